"""A workspace and a report of Weights & Biases for a study: ``python scripts/wandb_dashboard.py outputs/<study>``."""

from headstart.commands.wandb_dashboard import main

if __name__ == "__main__":
    raise SystemExit(main())
