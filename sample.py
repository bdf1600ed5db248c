"""Generate audio: ``python sample.py runs/quickstart --seed 1`` is ``wavegen sample ...``."""

import sys

from wavegen.__main__ import run

if __name__ == "__main__":
    run(["sample", *sys.argv[1:]])
