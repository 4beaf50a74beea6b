"""The one reader of runs on disk: how each ended, what was chosen, what came out and what it cost.

A run directory is data: nothing in it is executed, and nothing damaged in it ends the reader. A run whose result cannot
be read is ``unreadable``, with the reason; other damaged files are named in the log and taken as absent.
"""

import json
import logging
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headstart.errors import ConfigError, RunError
from headstart.runs.directory import RunDirectory, find_runs
from headstart.runs.result import CONFIG_FILE, RESULT_FILE, Cost, Result, check_file, read_metrics_csv, read_result
from headstart.system.digests import digest
from headstart.system.names import leaves
from headstart.system.regular import check_regular

if TYPE_CHECKING:
    import numpy as np

Part = TypeVar("Part")
Ending = Literal["done", "failed", "partial", "unreadable"]

_BYTES_PER_PARAMETER = 4
# In a file of choices: a line of it can name a part that is named in many others, and so be more than memory holds.
_MOST_VALUES = 1_000_000
_NO_RESULT = Result(status="failed", fingerprint="")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPredictions:
    """What a run predicted for one split, ordered by image id.

    Attributes:
        ids: the images' names, ``(N,)``.
        targets: the true class positions, ``(N,)``; of other tasks ``(N, outputs)``.
        probabilities: ``(N, C)``.
        classes: the class names, in the order of the columns.
        hits: of masks, the right pixels of each class ``(N, C)``; targets and probabilities are shares of classes then.
        pixels: of masks, those that count ``(N,)``.
    """

    ids: "np.ndarray"
    targets: "np.ndarray"
    probabilities: "np.ndarray"
    classes: tuple[str, ...]
    hits: "np.ndarray | None" = None
    pixels: "np.ndarray | None" = None


@dataclass(frozen=True)
class RunRecord:
    """What one run directory holds.

    Attributes:
        path: the directory.
        status: ``partial`` has no result yet; ``unreadable`` has a damaged one.
        reason: why it is not done; empty when it is.
        result: ``result.json``; an empty one where there is none.
    """

    path: Path
    status: Ending
    reason: str = ""
    result: Result = _NO_RESULT

    @property
    def name(self) -> str:
        """The directory's name: the readable key and the short fingerprint."""
        return self.path.name

    @property
    def directory(self) -> RunDirectory:
        """Where its files are."""
        return RunDirectory(self.path, self.result.fingerprint)

    @property
    def seed(self) -> str:
        """The seed as text: what pairs the runs of different strategies."""
        return value_text(self.choices.get("seed"))

    @cached_property
    def choices(self) -> dict[str, Any]:
        """The flat ``config`` of the result, with what was overridden beside the rest."""
        config = dict(self.result.config)
        overrides = config.pop("overrides", None)
        if isinstance(overrides, Mapping):
            config = {**overrides, **config}
        elif isinstance(overrides, list):
            pairs = (str(item).lstrip("+~").split("=", 1) for item in overrides if "=" in str(item))
            config = {**{pair[0]: pair[1] for pair in pairs}, **config}
        return config

    @cached_property
    def composed(self) -> dict[str, Any]:
        """The whole configuration (``config.yaml``) with dotted keys; empty when there is none."""
        return self._part(self.directory.config_file, lambda: leaves(read_config(self.path)), {})

    @property
    def tuned(self) -> tuple[str, ...]:
        """Keys that a tuned study chose for the run's arm: they tell no arm from another."""
        keys = self.composed.get("study.tuned")
        return tuple(map(str, keys)) if isinstance(keys, list) else ()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics that are finite numbers, by flat name."""
        return _finite_numbers(self.result.metrics)

    @cached_property
    def costs(self) -> dict[str, float]:
        """Seconds, bytes and parameters this run cost, as far as it recorded them.

        ``stored_bytes`` is what one more task adds to the disk: four bytes per trainable parameter, or per stored
        number where the run recorded those.
        """
        cost, params = self.result.cost, _finite_numbers(self.result.params)
        costs = _finite_numbers(asdict(cost)) if cost != Cost() else {}
        if costs and not costs["total_seconds"]:
            costs["total_seconds"] = cost.fit_seconds + cost.extract_seconds
        if "trainable" in params:
            costs["trainable_parameters"] = params["trainable"]
            costs["stored_bytes"] = _BYTES_PER_PARAMETER * params.get("stored", params["trainable"])
        return costs

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv``, numbers only; empty when there is none."""
        path = self.directory.metrics_file
        return self._part(path, lambda: [_finite_numbers(row) for row in read_metrics_csv(path)], [])

    @cached_property
    def drift(self) -> list[tuple[str, float]]:
        """How far each stage moved from its start, relative to its size there, in the order of the stages."""
        path = self.directory.audit_file
        return self._part(path, lambda: _drift(path), [])

    @property
    def recorded_seconds(self) -> float | None:
        """What all attempts took as far as they recorded it; None where none did."""
        return self._part(self.directory.attempts_file, lambda: self.directory.cost().total_seconds, None)

    def predictions(self, split: str) -> StoredPredictions | None:
        """What the run predicted for ``split``; None where it kept none, or predicts no classes."""
        found = self._stored(split)
        return found if found is not None and found.targets.ndim == 1 else None

    def masks(self, split: str) -> StoredPredictions | None:
        """The same of a run that predicts masks; None of others, and of runs that counted no pixels yet."""
        found = self._stored(split)
        return found if found is not None and found.hits is not None else None

    def _stored(self, split: str) -> StoredPredictions | None:
        path = self.directory.predictions_file(split)
        return self._part(path, lambda: read_predictions(path), None)

    def _part(self, path: Path, read: Callable[[], Part], absent: Part) -> Part:
        if not path.is_file():
            return absent
        try:
            check_file(path, self.result)
            return read()
        except RunError as error:
            _log.warning("%s", error)
            return absent


def read_runs(directory: str | Path) -> list[RunRecord]:
    """Read every run directory at or below ``directory``, ordered by path.

    Raises:
        RunError: ``directory`` is not a folder.
    """
    root = Path(directory)
    if not root.is_dir():
        raise RunError(f"'{root}' is not a folder; give the folder of a study, such as outputs/<study>")
    return [read_run(path) for path in find_runs(root)]


def read_run(path: Path) -> RunRecord:
    """Read one run directory; never raises for what is wrong inside it."""
    try:
        if (path / RESULT_FILE).exists():
            result = read_result(path)
            return RunRecord(path, result.status, result.error or "", result)
        RunDirectory(path, "").attempts()
    except RunError as error:
        return RunRecord(path, "unreadable", str(error).replace(f"{path}{os.sep}", ""))
    epochs = len(RunRecord(path, "partial").history)
    return RunRecord(path, "partial", f"not finished ({epochs} epochs recorded); the same command resumes it")


def find_finished(choice: str | Path, *, key: str = "") -> Path:
    """The directory of the one finished run that ``choice`` names.

    Args:
        choice: a run directory, a folder with one finished run below it, or a pattern that one finished run matches
            (``outputs/study/*-full-s${seed}-*``: in a sweep over seeds, each its own).
        key: the choice that is set to it, for messages.

    Raises:
        ConfigError: no finished run, or several; without ``key`` it is a RunError.
    """
    kind, said = (ConfigError, f"{key}={choice}") if key else (RunError, f"{choice}")
    given = Path(choice).expanduser().absolute()
    places = [given] if given.is_dir() else sorted(Path(given.anchor).glob(str(given.relative_to(given.anchor))))
    runs = [read_run(path) for place in places for path in find_runs(place)]
    done = [run.path for run in runs if run.status == "done"]
    if len(done) == 1:
        return done[0]
    if done:
        names = ", ".join(path.as_posix() for path in done[:3])
        raise kind(
            f"{said} names {len(done)} finished runs; give one of them, or a pattern that only one matches: {names}"
        )
    if len(runs) == 1:
        raise kind(f"{said}: there is no finished run; {runs[0].path} is {runs[0].status} ({runs[0].reason})")
    raise kind(
        f"{said}: there is no finished run; give a run directory, with its {RESULT_FILE}, or a pattern that one "
        "matches; `headstart runs` lists what there is"
    )


def outcome(run: Path) -> str:
    """What identifies the outcome of a finished run: its fingerprint and its final metrics."""
    result = read_result(run)
    return digest({"fingerprint": result.fingerprint, "metrics": result.metrics})


def read_config(run: str | Path) -> dict[str, Any]:
    """The resolved choices of a run, from its ``config.yaml``: plain containers, never an object.

    Raises:
        RunError: there is none, or it is damaged.
    """
    import yaml

    path = Path(run) / CONFIG_FILE
    try:
        check_regular(path)
        # LibYAML reads the same in a tenth of the time where it is there.
        values = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _damaged(path, error) from None
    if not isinstance(values, dict):
        raise RunError(f"{path} holds no choices; copy the run directory again, or run it again")
    if _count(values) > _MOST_VALUES:
        raise RunError(f"{path} holds more than {_MOST_VALUES:,} values; copy the run directory again")
    return values


def _count(values: Any) -> int:
    """How many values there are, as far as that matters. What YAML names again counts again, within itself too."""
    waiting, found = [values], 0
    while waiting and found <= _MOST_VALUES:
        value = waiting.pop()
        found += 1
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return found


DAMAGED_ARRAYS = (
    *(OSError, KeyError, ValueError, TypeError, EOFError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What NumPy raises on an ``.npz`` that is damaged, encrypted, packed otherwise or said to be larger than memory."""


def read_predictions(path: str | Path) -> StoredPredictions:
    """A file ``predictions_<split>.npz``.

    Raises:
        RunError: there is none, it is damaged, or its parts do not fit together.
    """
    import numpy as np

    try:
        check_regular(path)
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            ids, targets = archive["ids"].astype(str), archive["targets"]
            chances = archive["probabilities"].astype(np.float64)
            classes = tuple(str(name) for name in archive["classes"])
            hits, pixels = (archive[name].astype(np.int64) if name in archive else None for name in ("hits", "pixels"))
        one_class = targets.ndim == 1
        targets = targets.astype(np.int64 if one_class else np.float64)
    except DAMAGED_ARRAYS as error:
        raise _damaged(Path(path), error) from None
    if ids.ndim != 1 or chances.ndim != 2 or not len(ids) == len(targets) == len(chances) > 0:
        raise RunError(f"{path} is damaged: {ids.shape} ids, {targets.shape} targets, {chances.shape} probabilities")
    if one_class and not 0 <= targets.min() <= targets.max() < max(len(classes), chances.shape[1]):
        raise RunError(f"{path} is damaged: targets {targets.min()} to {targets.max()} of {len(classes)} classes")
    if (hits is None) != (pixels is None) or (
        hits is not None and pixels is not None and (hits.shape != chances.shape or pixels.shape != ids.shape)
    ):
        raise RunError(f"{path} is damaged: its counts of pixels do not fit its {len(ids)} images")
    order = np.argsort(ids, kind="stable")
    counts = [None if part is None else part[order] for part in (hits, pixels)]
    return StoredPredictions(ids[order], targets[order], chances[order], classes, *counts)


def value_text(value: Any) -> str:
    """A choice as the text by which it is compared and shown: ``1`` and ``"1"`` are the same, None is ``null``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or (isinstance(value, str) and number(value) is not None):
        found = float(value)
        return f"{int(found)}" if found.is_integer() and abs(found) < 1e15 else f"{found:g}"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)


def number(value: Any) -> float | None:
    """A finite number, or the text of one, as such; None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _drift(path: Path) -> list[tuple[str, float]]:
    try:
        check_regular(path)
        stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
        return [
            (str(stage["name"]), drift)
            for stage in stages
            if (drift := number(stage.get("drift_relative"))) is not None
        ]
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} cannot be read ({' '.join(str(error).split())}); copy the run directory again")


def _finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): found for key, value in values.items() if (found := number(value)) is not None}
