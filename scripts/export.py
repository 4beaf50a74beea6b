"""Write a finished run's backbone as a weights file with a card: ``python scripts/export.py RUN``."""

import sys

from headstart.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
