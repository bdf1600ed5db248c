"""Train a model: ``python train.py configs/quickstart.yaml optimizer.learning_rate=1e-3`` is ``wavegen train ...``."""

import sys

from wavegen.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
