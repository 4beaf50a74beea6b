"""Train an image classifier from a pretrained network: ``python train.py --help``."""

import sys

from headstart.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
