"""Train an image classifier from a pretrained network: ``python train.py --help``."""

from headstart.cli import train_main
from headstart.interpreter import leave

if __name__ == "__main__":
    leave(train_main())
