"""Classify new images with a finished run: ``python scripts/predict.py RUN IMAGES|FOLDER...``; see ``--help``."""

import sys

from headstart.system.interpreter import whole_process

if __name__ == "__main__":
    sys.argv.insert(1, "predict")
    whole_process("headstart.commands.cli:main")
