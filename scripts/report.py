"""Compare the runs of a study and write its report: ``python scripts/report.py outputs/<study>``."""

import sys

from headstart.system.interpreter import whole_process

if __name__ == "__main__":
    sys.argv.insert(1, "report")
    whole_process("headstart.commands.cli:main")
