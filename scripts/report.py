"""Compare the runs of a study and write its report: ``python scripts/report.py outputs/<study>``."""

import sys

from headstart.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
