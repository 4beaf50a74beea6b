"""Classify new images with a finished run: ``python scripts/predict.py RUN IMAGES|FOLDER...``; see ``--help``."""

import sys

from headstart.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
