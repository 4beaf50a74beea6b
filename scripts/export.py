"""Write a finished run's backbone as a weights file with a card: ``python scripts/export.py RUN``."""

import sys

from headstart.system.interpreter import whole_process

if __name__ == "__main__":
    sys.argv.insert(1, "export")
    whole_process("headstart.commands.cli:main")
