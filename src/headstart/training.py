"""Asking for a run: what its choices mean, whether it is there already, and that nothing is lost when it fails."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from headstart.config import ResolvedRun, flat_config, resolve_run
from headstart.console import copied_to, show_result
from headstart.errors import RunError
from headstart.results import Result, failed_result, write_result
from headstart.run import RunDirectory

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from headstart.loaded import LoadedRun

_log = logging.getLogger(__name__)


def train(cfg: "DictConfig") -> Result:
    """Run what a composed configuration asks for, or return the finished run of the same choices.

    Raises:
        HeadstartError: the choices, the data or the weights cannot be used, the training diverged, or the audit
            failed; the run directory's ``result.json`` then says so.
    """
    resolved = resolve_run(cfg)
    run = RunDirectory.open(
        resolved.output_dir, resolved.study, resolved.key, resolved.fingerprint, rerun=resolved.config["rerun"]
    )
    # Lightning starts the other processes of a distributed run with the same command line.
    owner = int(os.environ.get("LOCAL_RANK", "0")) == 0
    with run.lock(owner=owner):
        action = run.action if owner else ("resume" if run.last_checkpoint.exists() else "train")
        if action == "return":
            return _return_finished(run)
        if owner:
            _open_directory(run, resolved, resume=action == "resume")
        with _log_file(run.log_file if owner else None), copied_to(run.log_file if owner else None):
            try:
                from headstart.execution import execute

                return execute(resolved, run, resume=action == "resume", owner=owner)
            except Exception as error:
                _log.debug("the run failed", exc_info=True)
                if owner:
                    _record_failure(error, resolved, run)
                raise


def load_run(path: str | Path) -> "LoadedRun":
    """The model, classes and preprocessing of a finished run.

    Raises:
        RunError: the run is not finished, or a file of it is missing or damaged.
    """
    from headstart.loaded import load_run as load

    return load(path)


def _return_finished(run: RunDirectory) -> Result:
    result = run.result()
    if result.status == "failed":
        raise RunError(f"{run.path} failed before ({result.error}); rerun=failed runs it again")
    show_result(result, run.path, returned=True)
    return result


def _open_directory(run: RunDirectory, resolved: ResolvedRun, *, resume: bool) -> None:
    if not resume:
        run.clear()
    record = {"fingerprint": resolved.fingerprint, "choices": resolved.choices, "overrides": list(resolved.overrides)}
    text = yaml.safe_dump({**resolved.config, "run": record}, sort_keys=False, allow_unicode=True)
    run.config_file.write_text(text, encoding="utf-8")


def _record_failure(error: Exception, resolved: ResolvedRun, run: RunDirectory) -> None:
    write_result(run.path, failed_result(error, fingerprint=resolved.fingerprint, config=flat_config(resolved)))


@contextmanager
def _log_file(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, own = logging.getLogger(), logging.getLogger("headstart")
    before = own.level, {other: other.level for other in root.handlers}
    for other in root.handlers:  # what is for the file alone stays off the console
        other.setLevel(max(other.level, logging.INFO))
    root.addHandler(handler)
    own.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        own.setLevel(before[0])
        for other, level in before[1].items():
            other.setLevel(level)
        root.removeHandler(handler)
        handler.close()
