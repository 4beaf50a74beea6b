"""From the command line to one decided run: composing, checking, explaining. Importing this needs no torch."""

from headstart.config.check import check
from headstart.config.compose import compose
from headstart.config.resolve import RESULTS_VERSION, ResolvedRun, resolve_run
from headstart.config.settings import Component, RunSettings

__all__ = [
    "RESULTS_VERSION",
    "Component",
    "ResolvedRun",
    "RunSettings",
    "check",
    "compose",
    "resolve_run",
]
