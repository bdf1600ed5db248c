"""Generate audio: ``python sample.py runs/quickstart --seed 1`` is ``wavegen sample ...``."""

import sys

from wavegen.cli import main

if __name__ == "__main__":
    main(["sample", *sys.argv[1:]])
