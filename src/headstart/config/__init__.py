"""From the command line to one decided run: composing, checking, explaining. Importing this needs no torch."""

from headstart.config.check import check
from headstart.config.compose import compose, conf_dir
from headstart.config.resolve import RESULTS_VERSION, ResolvedRun, resolve_run

__all__ = ["RESULTS_VERSION", "ResolvedRun", "check", "compose", "conf_dir", "resolve_run"]
