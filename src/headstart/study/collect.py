"""Find the run directories of a study and read what they hold. Torch-free, and quick to import."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import RunError
from headstart.runs.directory import find_runs as run_directories
from headstart.runs.result import RESULT_FILE, read_metrics_csv
from headstart.system.atomic import atomic_write

if TYPE_CHECKING:
    import numpy as np

COST_NAMES = ("total_seconds", "fit_seconds", "extract_seconds", "peak_memory_bytes", "images_seen", "stored_bytes")
"""The keys of ``cost`` that become columns of ``runs.csv``, in this order."""

_BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for one split, ordered by image id.

    Attributes:
        ids: the images' names, ``(N,)``.
        targets: the true class positions, ``(N,)``.
        probabilities: ``(N, C)``.
        classes: the class names, in the order of the columns.
    """

    ids: "np.ndarray"
    targets: "np.ndarray"
    probabilities: "np.ndarray"
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: the directory.
        status: ``done``, ``failed``, ``partial`` or ``unreadable``.
        reason: why it is not done; empty when it is.
        result: ``result.json``, or an empty mapping.
    """

    path: Path
    status: str
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The directory's name: the readable key and the short fingerprint."""
        return self.path.name

    @property
    def seed(self) -> str:
        """The seed as text: what pairs the runs of different strategies."""
        return value_text(self.choices.get("seed"))

    @cached_property
    def choices(self) -> dict[str, Any]:
        """The flat ``config`` of the result; a list or mapping under ``overrides`` is laid out beside the rest."""
        config = dict(self.result.get("config") or {})
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
        path = self.path / "config.yaml"
        if not path.is_file():
            return {}
        import yaml

        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return {}
        return dict(_flatten(loaded)) if isinstance(loaded, Mapping) else {}

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics that are finite numbers, by flat name."""
        return _finite_numbers(self.result.get("metrics"))

    @cached_property
    def costs(self) -> dict[str, float]:
        """Seconds, bytes and parameters this run cost, as far as it recorded them.

        ``stored_bytes`` is what one more task adds to the disk, four bytes per trainable parameter (or per stored
        number, where the run recorded those), unless the run recorded it itself.
        """
        costs = _finite_numbers(self.result.get("cost"))
        if "total_seconds" not in costs and "fit_seconds" in costs:
            costs["total_seconds"] = costs["fit_seconds"] + costs.get("extract_seconds", 0.0)
        params = _finite_numbers(self.result.get("params"))
        trainable = params.get("trainable")
        if trainable is not None:
            costs["trainable_parameters"] = trainable
            costs.setdefault("stored_bytes", _BYTES_PER_PARAMETER * params.get("stored", trainable))
        return costs

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv``, numbers only; empty when there is none."""
        path = self.path / "metrics.csv"
        if not path.is_file():
            return []
        return [_finite_numbers(row) for row in read_metrics_csv(path)]

    @cached_property
    def drift(self) -> list[tuple[str, float]]:
        """How far each stage moved from its start, relative to its size there, in the order of the stages."""
        audit = _read_json(self.path / "audit.json")
        stages = audit.get("stages") if isinstance(audit, Mapping) else None
        found = []
        for stage in stages if isinstance(stages, list) else []:
            drift = _number(stage.get("drift_relative")) if isinstance(stage, Mapping) else None
            if drift is not None:
                found.append((str(stage.get("name", "?")), drift))
        return found

    def predictions(self, split: str) -> Predictions | None:
        """What the run predicted for ``split``, or None when it kept nothing readable."""
        path = self.path / f"predictions_{split}.npz"
        if not path.is_file():
            return None
        import numpy as np

        try:
            with np.load(path, allow_pickle=False) as archive:
                ids, targets = archive["ids"].astype(str), archive["targets"]
                probabilities = archive["probabilities"].astype(np.float64)
                classes = tuple(str(name) for name in archive["classes"])
        except (OSError, KeyError, ValueError, EOFError):
            return None
        if probabilities.ndim != 2 or len(ids) != len(probabilities) or not len(ids):
            return None
        if targets.ndim != 1:  # labels or numbers: what is said about classes does not apply
            return None
        order = np.argsort(ids, kind="stable")
        return Predictions(ids[order], targets[order].astype(np.int64), probabilities[order], classes)


def find_runs(directory: str | Path) -> list[Run]:
    """Read every run directory at or below ``directory``, ordered by path.

    Raises:
        RunError: ``directory`` is not a folder.
    """
    root = Path(directory)
    if not root.is_dir():
        raise RunError(f"'{root}' is not a folder; give the folder of a study, such as outputs/<study>")
    return [read_run(path) for path in run_directories(root)]


def read_run(path: Path) -> Run:
    """Read one run directory; never raises for what is wrong inside it."""
    target = path / RESULT_FILE
    if not target.is_file():
        epochs = len(Run(path, "partial").history)
        return Run(path, "partial", f"not finished ({epochs} epochs recorded); the same command resumes it")
    result = _read_json(target)
    if not isinstance(result, Mapping):
        return Run(path, "unreadable", "result.json is not valid JSON; delete the folder and run it again")
    status = str(result.get("status", "unreadable"))
    if status == "done":
        return Run(path, "done", "", result)
    if status == "failed":
        return Run(path, "failed", _error_text(result.get("error")), result)
    return Run(path, "partial", f"status is '{status}'", result)


def run_rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One flat row per run: where it is, how it ended, its choices, metrics, costs and data."""
    rows = []
    for run in runs:
        data, weights = run.result.get("data"), run.result.get("weights")
        data = data if isinstance(data, Mapping) else {}
        weights = weights if isinstance(weights, Mapping) else {}
        row: dict[str, Any] = {"run": run.name, "study": run.path.parent.name, "status": run.status}
        row["reason"] = run.reason
        row |= {key: value_text(value) for key, value in sorted(run.choices.items())}
        row |= dict(sorted(run.metrics.items()))
        row |= {name: run.costs[name] for name in (*COST_NAMES, "trainable_parameters") if name in run.costs}
        row["weights_source"], row["weights_sha256"] = weights.get("source", ""), weights.get("sha256", "")
        row["data_name"], row["data_fingerprint"] = data.get("name", ""), data.get("fingerprint", "")
        row["fingerprint"] = run.result.get("fingerprint", "")
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically; columns in the order of their first appearance, absent values empty."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def value_text(value: Any) -> str:
    """A choice as the text by which it is compared and shown: ``1`` and ``"1"`` are the same, None is ``null``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or (isinstance(value, str) and _number(value) is not None):
        number = float(value)
        return f"{int(number)}" if number.is_integer() and abs(number) < 1e15 else f"{number:g}"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def _error_text(error: Any) -> str:
    if isinstance(error, Mapping):
        kind, message = error.get("type") or error.get("kind"), error.get("message")
        return ": ".join(str(part) for part in (kind, message) if part) or "no error was recorded"
    return str(error) if error else "no error was recorded"


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _finite_numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    numbers = {str(key): _number(value) for key, value in values.items() if key is not None}
    return {key: number for key, number in numbers.items() if number is not None}
