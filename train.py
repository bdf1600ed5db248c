"""Train a model: ``python train.py configs/quickstart.yaml optimizer.learning_rate=1e-3`` is ``wavegen train ...``."""

import sys

from wavegen.__main__ import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
