"""From the command line to one decided run: composing, checking, explaining. Importing this needs no torch."""

from headstart.config.check import check
from headstart.config.compose import compose, conf_dir
from headstart.config.resolve import RESULTS_VERSION, ResolvedRun, flat_config, resolve_run

__all__ = ["RESULTS_VERSION", "ResolvedRun", "check", "compose", "conf_dir", "flat_config", "resolve_run"]
