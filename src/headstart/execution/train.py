"""Asking for a run: whether it is there already, and that nothing is lost when it fails."""

import gc
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headstart.config import ResolvedRun
from headstart.errors import HeadstartError, RunError
from headstart.execution.summary import show_result
from headstart.runs.directory import Action, RunDirectory
from headstart.runs.ranks import LostRankError, agree, decided, find_place
from headstart.runs.reader import read_runs
from headstart.runs.result import RESULT_FILE, Result, failed_result, write_result
from headstart.system.atomic import atomic_write
from headstart.system.console import copied_to, show
from headstart.system.digests import digest
from headstart.system.interpreter import collector_at_rest, interruption_in
from headstart.system.names import LegibleFormatter, override
from headstart.weights.sources import EXPORT_NAME

if TYPE_CHECKING:
    from headstart.execution.load import Model

_log = logging.getLogger(__name__)

# By their text: the libraries that write files pass it on in errors of their own.
_DISK = ("No space left on device", "Disk quota exceeded", "Read-only file system", "Input/output error")
_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "MPS backend out of memory")

# Runs of this process.
_begun = itertools.count()


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its directory.
        result: its ``result.json``.
    """

    path: Path
    result: Result = field(repr=False)

    @property
    def metrics(self) -> dict[str, Any]:
        """Flat names to values: ``val/acc``, ``test/acc``, ..."""
        return self.result.metrics

    def load(self) -> "Model":
        """What it learned, ready for new images.

        Raises:
            RunError: a file of the run is missing or damaged.
        """
        from headstart.execution.load import load

        return load(self.path)


def train(resolved: ResolvedRun) -> Run:
    """Train a run, or return it where it is finished.

    Raises:
        HeadstartError: the choices, the data or the weights cannot be used, the training diverged, or the audit
            failed; the run directory's ``result.json`` then says so.
    """
    resolved, earlier = _extension(resolved)
    run, settings = resolved.directory(), resolved.settings
    place = find_place(settings.trainer.processes, settings.trainer.num_nodes)
    owner = place.owner
    with run.lock(owner=owner):
        action = _decide(run, resolved, earlier) if owner else None
        action = agree(place, run.path.with_name(f".{run.path.name}.ranks"), action)
        if action == "return":
            return Run(run.path, _return_finished(run, export=settings.export) if owner else run.result())
        if next(_begun):
            gc.collect()  # an earlier run's model is in cycles of Lightning's, which Python looks for too rarely
        with log_file(run.log_file if owner else None), copied_to(run.log_file if owner else None), decided(action):
            try:
                with collector_at_rest():
                    from headstart.execution.execute import execute

                return Run(run.path, execute(resolved, run, resume=action == "resume", owner=owner))
            except Exception as error:
                if came := interruption_in(error):
                    raise came from None  # not from the error, which came of it
                _log.debug("the run failed", exc_info=True)
                if owner:
                    record_failure(error, resolved, run)
                cause = of_environment(error)
                if cause is not None and not isinstance(error, HeadstartError):
                    raise RunError(_how_to_go_on(cause, run)) from error
                raise


def _decide(run: RunDirectory, resolved: ResolvedRun, earlier: RunDirectory | None) -> Action:
    """What to do, with the directory made ready for it."""
    action = run.action
    if action == "return":
        return action
    if action == "resume" and (damage := _damage(run)):
        show(f"{damage}; training starts anew")
        action = "train"
    if earlier is not None and action == "train" and (damage := _damage(earlier)):
        raise RunError(f"extend=true: {damage}; train without extend")
    open_directory(run, resolved, resume=action == "resume")
    if earlier is not None and action == "train":
        run.continue_from(earlier)
        return "resume"
    return action


def _damage(run: RunDirectory) -> str | None:
    """Why a run's last checkpoint is nothing to go on from, found before anything is built; None if it is."""
    from headstart.training.checkpoints import why_not_resumed

    return why_not_resumed(run.checkpoints) if run.last_checkpoint.exists() else None


def _extension(resolved: ResolvedRun) -> tuple[ResolvedRun, RunDirectory | None]:
    """With ``extend=true``, the longest finished run of these choices with fewer epochs, and a run of its own for it.

    What comes out depends on the shorter run's schedule, so it never passes for a run of that length from the start.

    Raises:
        RunError: there is no such run, or its strategy has phases, whose lengths would change.
    """
    if not resolved.settings.extend:
        return resolved, None
    epochs, study = resolved.settings.trainer.max_epochs, Path(resolved.output_dir) / resolved.study
    done = [run for run in read_runs(study) if run.status == "done"] if study.is_dir() else []
    alike = [run for run in done if run.composed.get("run.lineage") == resolved.lineage]
    found = {run.composed["trainer.max_epochs"]: run for run in alike if run.composed["trainer.max_epochs"] < epochs}
    if not found:
        raise RunError(
            f"extend=true: {study} holds no finished run of these choices with fewer than trainer.max_epochs={epochs}; "
            "train without extend, or give the study's name"
        )
    shorter = max(found)
    path, result = found[shorter].path, found[shorter].result
    if len(result.details["phases"]) > 1:
        raise RunError(
            f"extend=true: strategy={result.config['strategy']} has phases whose lengths follow trainer.max_epochs, so "
            f"{path} cannot go on as if it had been meant to be longer; train without extend"
        )
    earlier = RunDirectory(path, result.fingerprint)
    if "fused" in result.details and not earlier.last_checkpoint.exists():
        show(f"{path} was trained together with others and kept no checkpoint to go on from: trained from the start")
        return resolved, None
    fingerprint = digest({"choices": resolved.fingerprint, "extends": result.fingerprint})
    changed = replace(resolved, fingerprint=fingerprint, key=f"{resolved.key}-extends{shorter}")
    return changed, earlier


def _return_finished(run: RunDirectory, *, export: bool) -> Result:
    result = run.result()
    if result.status == "failed":
        raise RunError(f"{run.path} failed before ({result.error}); rerun=failed runs it again")
    show_result(result, run.path, returned=True)
    if export and not (run.path / EXPORT_NAME).exists():
        from headstart.execution.export import export_run

        show(f"Exported: {override('backbone.weights', export_run(run.path).parent)}")
    return result


def open_directory(run: RunDirectory, resolved: ResolvedRun, *, resume: bool) -> None:
    """Write the resolved choices; unless the run is resumed, nothing of an earlier attempt stays."""
    if resume:
        (run.path / RESULT_FILE).unlink(missing_ok=True)  # of an attempt that the machine ended
    else:
        run.clear()
    # The same text, from LibYAML in a tenth of the time where that is there.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump({**resolved.config, "run": resolved.record()}, Dumper=dumper, sort_keys=False, allow_unicode=True)
    with atomic_write(run.config_file) as file:
        file.write(text)


def record_failure(error: Exception, resolved: ResolvedRun, run: RunDirectory) -> None:
    """Write the ``result.json`` of a run that ended with an error; after one of the machine's it can be resumed."""
    cause = of_environment(error)
    try:
        known = {"config": resolved.flat(), "cost": run.cost(), "details": {"resumable": True} if cause else {}}
        write_result(run.path, failed_result(error, fingerprint=resolved.fingerprint, **known))
    except OSError:
        if cause is None:  # on a full disk not even the failure can be written: the run stays as it is
            raise


def of_environment(error: BaseException) -> BaseException | None:
    """What of the machine's ended a run, by which its checkpoints are as good as before.

    No disk space, no memory, or another of its processes that is gone.
    """
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if isinstance(seen, MemoryError | LostRankError) or any(words in text for words in (*_DISK, *_MEMORY)):
            return seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _how_to_go_on(cause: BaseException, run: RunDirectory) -> str:
    reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
    start = "from the last checkpoint" if run.last_checkpoint.exists() else "from the start"
    if isinstance(cause, LostRankError):
        return f"{reason}; the same command goes on {start}"
    if any(words in reason for words in _DISK):
        return f"{run.path} cannot be written to ({reason}); once it can, the same command goes on {start}"
    return (
        f"out of memory ({reason}); once there is more, the same command goes on {start}; or lower "
        "datamodule.batch_size (and raise trainer.accumulate_grad_batches by the same factor), or datamodule.image_size"
    )


@contextmanager
def log_file(path: Path | None) -> Iterator[None]:
    """Within the block, what is logged goes into a file too, down to tracebacks; nowhere if ``path`` is None."""
    if path is None:
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(LegibleFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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
