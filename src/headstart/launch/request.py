"""How a sweep tells a process which jobs to train together, and hears which of them must train alone. No torch."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from headstart.config import ResolvedRun
from headstart.config.weights import resolve_backbone_weights
from headstart.system.atomic import write_json
from headstart.system.interpreter import INTERRUPTED


def write_request(path: Path, runs: Sequence[ResolvedRun]) -> None:
    """Write the choices of jobs that have their shared part in common."""
    names = [field.name for field in fields(ResolvedRun) if field.name != "weights"]
    plain = [{name: getattr(run, name) for name in names} for run in runs]
    write_json(path, {"runs": plain})


def read_request(path: Path) -> list[ResolvedRun]:
    """The inverse of :func:`write_request`; the weights are what they were decided to be."""
    runs = []
    for values in json.loads(path.read_text(encoding="utf-8"))["runs"]:
        weights = resolve_backbone_weights(values["config"], scratch=False)
        runs.append(ResolvedRun(**{**values, "overrides": tuple(values["overrides"])}, weights=weights))
    return runs


def answer_path(request: Path) -> Path:
    """Where the process answers which jobs must train alone: fingerprints and reasons."""
    return request.with_suffix(".refused.json")


def train_request(arguments: Sequence[str]) -> int:
    """The whole of a process that trains what a request asks for.

    Args:
        arguments: the request's file.

    Returns: the exit code.
    """
    from headstart.execution.together import train_together

    request = Path(arguments[0])
    refused: dict[str, str] = {}

    def refuse(resolved: ResolvedRun, reason: str) -> None:
        refused[resolved.fingerprint] = reason

    try:
        train_together(read_request(request), refuse)
    except KeyboardInterrupt:
        return INTERRUPTED
    write_json(answer_path(request), refused)
    return 0
