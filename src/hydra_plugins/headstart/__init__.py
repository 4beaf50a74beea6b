"""Hydra's side of Headstart's sweeps; thin, because Hydra imports this whenever it starts, but for ``_*.py``."""
