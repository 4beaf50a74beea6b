"""Compare the runs of a study and write its report: ``python scripts/report.py outputs/<study>``."""

from headstart.study.report import main

if __name__ == "__main__":
    raise SystemExit(main())
