"""Train an image classifier from a pretrained network: ``python train.py --help``."""

from headstart.system.interpreter import whole_process

if __name__ == "__main__":
    whole_process("headstart.commands.cli:train_main")
