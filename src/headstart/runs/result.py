"""``result.json``: what one run was, what came out and what it cost. Written last, read by everything that compares.

A result is a small dataclass of flat sections. ``metrics`` has names such as ``val/acc``; ``config`` has the names
of the choices. A section may hold more than :data:`REQUIRED` asks for, never less.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from headstart.errors import RunError
from headstart.system.atomic import write_json
from headstart.system.digests import digest
from headstart.system.regular import check_regular

RESULT_FILE = "result.json"
CONFIG_FILE, METRICS_FILE, AUDIT_FILE = "config.yaml", "metrics.csv", "audit.json"
#: Raised when a reader of older files would misread a newer one.
FORMAT = 1

Status = Literal["done", "failed"]

#: What a finished result holds in each section at least.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "config": ("backbone", "head", "strategy", "datamodule", "optimizer", "scheduler", "seed", "max_epochs"),
    "weights": ("source", "sha256", "matched", "missing"),
    "data": ("name", "fingerprint", "classes", "sizes"),
    "params": ("total", "trainable"),
    "cache": ("used", "key", "hit", "reason"),
}
_SECTIONS = ("metrics", "config", "weights", "data", "params", "cost", "cache", "versions", "details", "files")
_DIGEST = "digest"
_LOWER_IS_BETTER = ("loss", "objective", "error", "mae", "mse", "rmse", "nrmse", "ece", "nll", "brier")


@dataclass(frozen=True)
class Cost:
    """What a run took, as if nothing had been cached.

    Attributes:
        fit_seconds: training and validation.
        extract_seconds: building the frozen prefix's activations; for a cache hit the entry's recorded build time.
        total_seconds: from start to result, over all attempts.
        peak_memory_bytes: the largest over all attempts; on the accelerator where there is one, else of the process.
        images_seen: training images, counted with repetition.
        device: as a person would name it.
    """

    fit_seconds: float = 0.0
    extract_seconds: float = 0.0
    total_seconds: float = 0.0
    peak_memory_bytes: int = 0
    images_seen: int = 0
    device: str = ""

    def plus(self, later: Cost) -> Cost:
        """This attempt and a later one together: times and images add up, memory peaks, the last device is named."""
        return Cost(
            fit_seconds=self.fit_seconds + later.fit_seconds,
            extract_seconds=self.extract_seconds + later.extract_seconds,
            total_seconds=self.total_seconds + later.total_seconds,
            peak_memory_bytes=max(self.peak_memory_bytes, later.peak_memory_bytes),
            images_seen=self.images_seen + later.images_seen,
            device=later.device or self.device,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cost:
        """The inverse of :func:`dataclasses.asdict`; unknown keys are left out."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Result:
    """One run's outcome.

    Attributes:
        status: ``done`` means complete and audited.
        fingerprint: digest of the choices that change the result.
        error: of a failed run, one line: the exception's type and message.
        metrics: flat names to values; None where a value is not a number (an AUROC of one class).
        config: names of the choices, the seed and every override as given.
        weights: where the backbone's parameters came from.
        data: name, digest, class names in order, sizes of the splits, skipped files.
        params: numbers of parameters.
        cost: over all attempts.
        cache: whether stored activations were used, and why not.
        versions: of the packages that the result depends on.
        details: anything else worth keeping (best epoch, what the strategy chose, phases).
        files: digests of the files without a checksum of their own, by name; of older results none.
    """

    status: Status
    fingerprint: str
    error: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=dict)
    cost: Cost = Cost()
    cache: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain containers for JSON, with the format's number first."""
        return {"format": FORMAT, **to_plain(self)}


def failed_result(error: BaseException, *, fingerprint: str, **sections: Any) -> Result:
    """The result of a run that ended with ``error``; ``sections`` is what was known by then."""
    message = " ".join(str(error).split())
    return Result(
        status="failed",
        fingerprint=fingerprint,
        error=f"{type(error).__name__}: {message}" if message else type(error).__name__,
        **sections,
    )


def write_result(run: str | Path, result: Result) -> Path:
    """Check ``result`` and write it into the run directory, atomically. Nothing may be written after it.

    Raises:
        RunError: a finished result lacks something that :data:`REQUIRED` asks for, or has no metric.
    """
    folder = Path(run)
    beside = [path for name in (CONFIG_FILE, METRICS_FILE, AUDIT_FILE) if (path := folder / name).exists()]
    files = {path.name: digest(path.read_bytes()) for path in beside}
    values = dataclasses.replace(result, files=files).as_dict()
    _check(values, where="this result")
    path = folder / RESULT_FILE
    write_json(path, {**values, _DIGEST: digest(values)})
    return path


def read_result(run: str | Path) -> Result:
    """Read the result of a run directory (or the file itself).

    Raises:
        RunError: there is none, it is damaged, or a newer version of Headstart wrote it.
    """
    path = Path(run)
    if path.suffix != ".json":
        path = path / RESULT_FILE
    try:
        check_regular(path)
        values = json.loads(path.read_text(encoding="utf-8"))
        recorded = values.pop(_DIGEST, None) if isinstance(values, dict) else None
        altered = recorded is not None and recorded != digest(values)
    except FileNotFoundError:
        raise RunError(f"{path.parent} holds no {RESULT_FILE}: it is not a run, or not a finished one.") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: it is not valid JSON ({error}); delete it and run again.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error}); delete it and run again.") from None
    _check(values, where=str(path))
    if altered:
        raise RunError(
            f"{path} is damaged: its digest is not the recorded one; copy it again, or delete it and run again."
        )
    known = {entry.name for entry in dataclasses.fields(Result)} - {"cost"}
    return Result(
        cost=Cost.from_dict(values.get("cost", {})), **{key: value for key, value in values.items() if key in known}
    )


def check_file(path: Path, result: Result) -> None:
    """Raise RunError if a file is not what the run wrote, where its result recorded a digest of it."""
    recorded = result.files.get(path.name)
    if recorded is not None and (not path.is_file() or digest(path.read_bytes()) != recorded):
        raise RunError(f"{path} is missing or not as the run wrote it; copy the run directory again, or run it again")


def read_metrics_csv(path: str | Path) -> list[dict[str, float | str | None]]:
    """One row per epoch, in order; numbers as float, empty cells and NaN as None.

    A row that a killed process left half-written is dropped; of an epoch that was trained again, the last row counts.

    Raises:
        RunError: there is no such file, or it is no table.
    """
    rows: dict[Any, dict[str, float | str | None]] = {}
    try:
        check_regular(path)
        with Path(path).open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                if None in row or None in row.values():
                    continue
                values = {name: _cell(text) for name, text in row.items()}
                key = values.get("epoch", number)
                rows.pop(key, None)
                rows[key] = values
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({error}); delete it and run again.") from None
    return list(rows.values())


def split_of(metric: str) -> tuple[str, str]:
    """A metric's split and its name there: ``source/val/mae/speed (km/h)`` is ``source/val`` and the rest."""
    parts = metric.split("/")
    place = next((place for place, part in enumerate(parts) if part in ("train", "val", "test")), len(parts) - 2)
    return "/".join(parts[: place + 1]), "/".join(parts[place + 1 :])


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better; of a target it is called kind_target, as in ``rmse_speed (km/h)``."""
    name = split_of(metric)[1]
    if name.startswith("r2_"):
        return True
    return not any(f"_{name}".endswith(f"_{word}") or f"{name}_".startswith(f"{word}_") for word in _LOWER_IS_BETTER)


def to_plain(value: Any) -> Any:
    """``value`` as JSON knows it: arrays and tensors as lists, paths as text, NaN and infinities as None."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, set | frozenset):
        return [to_plain(inner) for inner in sorted(value)]
    if isinstance(value, Iterable):
        return [to_plain(inner) for inner in value]
    return str(value)


def _check(values: Any, *, where: str) -> None:
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise RunError(f"{where} is not a result of Headstart: it has no `format`.")
    if values["format"] > FORMAT:
        raise RunError(f"{where} has format {values['format']}, this version reads up to {FORMAT}; update Headstart.")
    if values.get("status") not in get_args(Status):
        raise RunError(f"{where} has status {values.get('status')!r}; allowed are {', '.join(get_args(Status))}.")
    if not isinstance(values.get("fingerprint"), str):
        raise RunError(f"{where} has no fingerprint.")
    if odd := [name for name in _SECTIONS if not isinstance(values.get(name, {}), dict)]:
        raise RunError(f"{where} is damaged: {', '.join(odd)} should be a mapping.")
    known = {name: amount for name, amount in values.get("cost", {}).items() if name in Cost.__dataclass_fields__}
    if odd := [name for name in known if not isinstance(known[name], str if name == "device" else int | float)]:
        raise RunError(f"{where} is damaged: cost.{', cost.'.join(odd)} should be a number.")
    if values["status"] == "failed":
        if not values.get("error"):
            raise RunError(f"{where} is failed without saying why: `error` is empty.")
        return
    missing = [
        f"{section}.{key}" for section, keys in REQUIRED.items() for key in keys if key not in values.get(section, {})
    ]
    if missing:
        raise RunError(f"{where} lacks {', '.join(missing)}.")
    if not isinstance(values["data"]["sizes"], dict):
        raise RunError(f"{where} is damaged: data.sizes should be a mapping.")
    if not values.get("metrics"):
        raise RunError(f"{where} is done without a metric.")
    wrong = [name for name, metric in values["metrics"].items() if not isinstance(metric, int | float | None)]
    if wrong:
        raise RunError(f"{where} has metrics that are not numbers: {', '.join(wrong)}.")


def _cell(text: str) -> float | str | None:
    if text == "":
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else None
