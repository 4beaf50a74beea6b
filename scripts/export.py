"""Write a finished run's backbone as a weights file with a card: ``python scripts/export.py RUN``."""

from headstart.export import main

if __name__ == "__main__":
    raise SystemExit(main())
