"""Which runs may share a table, and what a study varies on purpose.

The rule: same task, same splits, same test set, same selection rule. Everything else may differ only as a declared
axis of the study; an axis is a choice (a component's name or an override) that varies between the runs. What breaks
the rule is put into a table of its own, with the reason. Seeds, splits (``datamodule.split_seed``) and folds are
repetitions: runs of the same images split by the same rule share a table, and those of one split and seed are pairs.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.config.schema import not_in_result
from headstart.runs.reader import RunRecord, value_text

AXIS_ORDER = ("strategy", "backbone", "head", "backbone.weights", "datamodule", "optimizer", "scheduler")
"""Axes in this order come first; the first one that varies is what the study contrasts."""

SHOTS_AXES = ("datamodule.shots", "datamodule.fraction")

REFERENCES = {"strategy": ("freeze", "full", "scratch"), "backbone.weights": ("none",), "head": ("linear",)}

# Beside what cannot change a result: names, seeds (they pair runs), and what the identity knows by content.
_NO_AXIS = (
    *not_in_result({}),
    "experiment",
    "hydra",
    "key",
    "name",
    "overrides",
    "run",
    "seed",
    "study",
    "datamodule.root",
)
_NO_AXIS_ENDINGS = (".seed", ".split_seed", ".fold", ".eval_batch_size", ".log_every_n_steps")
_ABSENT = "(default)"


@dataclass(frozen=True)
class Identity:
    """What runs must have in common to share a table."""

    task: str
    data: str
    classes: str
    splits: str
    test: str
    selection: str
    undeclared: str = ""


@dataclass(frozen=True)
class Table:
    """Runs that may be compared.

    Attributes:
        title: the data set, and what sets the table apart where there are several.
        reason: why these runs are not in the first table; empty for that one.
        identity: what they have in common.
        runs: one per seed, split and combination of axes.
        axes: values of every declared axis, in the order shown.
        duplicates: runs set aside because another has the same seed and choices.
        cautions: differences that do not forbid the comparison but should be known.
    """

    title: str
    reason: str
    identity: Identity
    runs: tuple[RunRecord, ...]
    axes: Mapping[str, tuple[str, ...]]
    duplicates: tuple[RunRecord, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Design:
    """How a table's runs are laid out for comparison.

    Attributes:
        contrast: the axis whose values are compared.
        values: its values, the reference first.
        axes: the other axes; a setting is one value of each, and pairs agree in all of them.
        tied: axes that only follow the contrast (each of its values has one of theirs), so they cannot be paired on.
        cells: per value and setting, the runs by seed, and split where there are several.
        settings: every setting that has a run, in order.
        shots: the position in ``axes`` of the number of images, or None.
    """

    contrast: str
    values: tuple[str, ...]
    axes: tuple[str, ...]
    tied: Mapping[str, Mapping[str, str]]
    cells: Mapping[tuple[str, tuple[str, ...]], Mapping[str, RunRecord]]
    settings: tuple[tuple[str, ...], ...]
    shots: int | None

    @property
    def reference(self) -> str:
        """The value that the others are compared with."""
        return self.values[0]

    def setting_text(self, setting: Sequence[str], *, short: bool = False) -> str:
        """A setting in words, or in fewer of them; empty when there is only one."""
        return ", ".join(_setting_words(axis, value, short) for axis, value in zip(self.axes, setting, strict=True))


def separate(runs: Iterable[RunRecord]) -> list[Table]:
    """Sort finished runs into tables that obey the comparability rule, the largest first; see :func:`kept_out`."""
    finished = [run for run in runs if run.status == "done" and not kept_out(run)]
    axes = _varying(finished)
    reduced = any(axis in SHOTS_AXES for axis in axes)
    groups: dict[Identity, list[RunRecord]] = defaultdict(list)
    undeclared = _undeclared(finished, axes, reduced)
    first: dict[tuple[str, str, str], str] = {}
    for run in finished:
        known = identity(run, by_evaluation=reduced, undeclared=undeclared.get(run.path.as_posix(), ""))
        rule = _rule(run, reduced)
        # One rule and one split seed give one split; another one came from other code.
        if rule and first.setdefault((known.data, rule, split_of_run(run)), known.splits) == known.splits:
            known = replace(known, splits=rule, test=rule if known.test != "none" else "none")
        groups[known].append(run)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    tables: list[Table] = []
    for known, members in ordered:
        reason = _reason(known, ordered[0][0]) if tables else ""
        same = sum(other.data == known.data for other, _ in ordered[: len(tables)])
        tables.append(_table(f"{known.data} (table {len(tables) + 1})" if same else known.data, known, members, reason))
    return tables


def _rule(run: RunRecord, reduced: bool) -> str:
    """The images and how they were split; empty where that was not recorded, or no seed moves any of it."""
    data = run.result.data
    if not (data.get("carved") or drawn_few(run)) or "content" not in data or "split_seed" not in data:
        return ""
    if folds := folds_of(run):
        return f"{value_text(data['content'])} in {folds} folds"  # Their sizes may differ by one.
    sizes = ", ".join(f"{data['sizes'][split]} {split}" for split in data["sizes"] if split != "train" or not reduced)
    return f"{value_text(data['content'])} split into {sizes}"


def split_of_run(run: RunRecord) -> str:
    """The seed of a run's split, which also draws the images of ``datamodule.shots``, and its fold.

    The same for all where the data bring every split themselves: there the seed moves nothing.
    """
    data = run.result.data
    moves = data.get("carved", True) or drawn_few(run)
    seed = value_text(data.get("split_seed", 0)) if moves else "0"
    return f"{seed}, fold {data['fold']}" if folds_of(run) else seed


def folds_of(run: RunRecord) -> int:
    """Of the cross-validation that a run is a part of; 0 where it is none."""
    return int(run.result.data.get("folds") or 0)


def drawn_few(run: RunRecord) -> bool:
    """Whether the training images are a small draw from a larger pool."""
    return any(run.result.data.get(name) is not None for name in ("shots", "fraction"))


def kept_out(run: RunRecord) -> str:
    """Why a finished run is in no table; empty where it may be in one."""
    if cut := run.result.details.get("cut_short"):
        return f"cut short: {'; '.join(map(str, cut)) if isinstance(cut, list) else cut}"
    short = str(run.result.details.get("monitor", "val/acc")).split("/", 1)[-1]
    recorded = [name for name in (f"test/{short}", f"val/{short}") if name in run.result.metrics]
    if lost := [name for name in recorded if name not in run.metrics]:
        return f"its {lost[0]} is not a number"
    return "" if run.metrics else "none of its metrics is a number"


def identity(run: RunRecord, *, by_evaluation: bool = False, undeclared: str = "") -> Identity:
    """What a run must share with others.

    Args:
        run: a finished run.
        by_evaluation: the number of training images is an axis, so that only the images that are evaluated on count.
        undeclared: a difference found between whole configurations.
    """
    data = run.result.data
    sizes = data["sizes"]
    prints = data.get("split_fingerprints") or {"all": data.get("fingerprint"), "test": data.get("fingerprint")}
    splits = ", ".join(f"{split} {prints[split]}" for split in prints if split != "train" or not by_evaluation)
    test = f"{sizes['test']} images, {prints['test']}" if sizes.get("test") else "none"
    return Identity(
        task=value_text(run.result.details.get("task")),
        data=value_text(data.get("name")),
        classes=value_text(data.get("classes")),
        splits=splits,
        test=test,
        selection=str(run.result.details.get("monitor", "val/acc")),
        undeclared=undeclared,
    )


def design(table: Table, *, contrast: str | None = None, reference: str | None = None) -> Design | None:
    """Lay out a table's runs; repetitions of one choice are one strategy alone, a single run is None.

    Args:
        table: of :func:`separate`.
        contrast: the axis to compare along; by default the first of ``AXIS_ORDER`` that varies.
        reference: the value that the others are compared with; by default the plainest one.
    """
    candidates = [axis for axis in table.axes if axis not in SHOTS_AXES] or list(table.axes)
    if not candidates and len(table.runs) < 2:
        return None
    alone = {} if candidates else {"strategy": (choice(table.runs[0], "strategy"),)}
    chosen = contrast if contrast is not None and contrast in table.axes else [*candidates, *alone][0]
    values = table.axes[chosen] if chosen in table.axes else alone[chosen]
    tied = {axis: follows for axis in table.axes if axis != chosen for follows in [_follows(table, axis, chosen)]}
    # A set of shots per strategy would be an odd study, but never one to hide: shots always stay an axis.
    others = tuple(axis for axis in table.axes if axis != chosen and (tied[axis] is None or axis in SHOTS_AXES))
    cells: dict[tuple[str, tuple[str, ...]], dict[str, RunRecord]] = defaultdict(dict)
    several = len({split_of_run(run) for run in table.runs}) > 1
    for run in table.runs:
        setting = tuple(choice(run, axis) for axis in others)
        key = f"{run.seed} on split {split_of_run(run)}" if several else run.seed
        cells[choice(run, chosen), setting][key] = run
    first = _reference(chosen, values, reference, cells)
    return Design(
        contrast=chosen,
        values=(first, *(value for value in values if value != first)),
        axes=others,
        tied={axis: follows for axis, follows in tied.items() if follows is not None and axis not in others},
        cells={key: dict(sorted(cell.items(), key=lambda item: sort_key(item[0]))) for key, cell in cells.items()},
        settings=tuple(sorted({key[1] for key in cells}, key=lambda setting: [sort_key(value) for value in setting])),
        shots=next((position for position, axis in enumerate(others) if axis in SHOTS_AXES), None),
    )


def choice(run: RunRecord, axis: str) -> str:
    """A run's value of an axis; one that was not overridden is looked up in the whole configuration.

    What lies beside the study, as pretrained weights do, is called by its path from there.
    """
    if axis in run.choices:
        text = value_text(run.choices[axis])
    else:
        text = value_text(run.composed[axis]) if axis in run.composed else _ABSENT
    if axis != "backbone.weights":
        return text
    return text.removeprefix(f"{run.path.absolute().parent.parent}{os.sep}")


def short_name(axis: str) -> str:
    """The last part of a dotted name, which is what people say; ``backbone.name`` stays whole."""
    last = axis.rsplit(".", 1)[-1]
    return axis if last in ("name", "weights") else last


def _setting_words(axis: str, value: str, short: bool) -> str:
    if axis == SHOTS_AXES[0] and not short:
        return "all images" if value == "null" else f"{value} image{'s' if value != '1' else ''} per class"
    return f"{short_name(axis)} {'all' if axis in SHOTS_AXES and value == 'null' else value}"


def sort_key(value: str) -> tuple[int, float, str]:
    """Numbers by size, then text; ``null`` (no limit) last."""
    if value == "null":
        return 2, 0.0, value
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


def _table(title: str, known: Identity, members: list[RunRecord], reason: str) -> Table:
    axes = _varying(members)
    kept: dict[tuple[str, ...], RunRecord] = {}
    duplicates = []
    for run in sorted(members, key=lambda run: run.path.as_posix()):
        key = (run.seed, split_of_run(run), *(choice(run, axis) for axis in axes))
        if key in kept:
            duplicates.append(run)
        else:
            kept[key] = run
    return Table(title, reason, known, tuple(kept.values()), axes, tuple(duplicates), tuple(_cautions(members)))


def _varying(runs: Sequence[RunRecord]) -> dict[str, tuple[str, ...]]:
    tuned = {"study.tuned", *(key for run in runs for key in run.tuned)}
    names = {name for run in runs for name in run.choices if not _no_axis(name)} - tuned
    axes: dict[str, tuple[str, ...]] = {}
    seen = set()
    for name in sorted(names, key=_axis_rank):
        values = [choice(run, name) for run in runs]
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        # `max_epochs` and `trainer.max_epochs` say the same: the first name stands for both.
        said = (short_name(name), tuple(places[value] for value in values))
        if len(places) > 1 and said not in seen:
            seen.add(said)
            axes[name] = tuple(sorted(places, key=sort_key))
    return axes


def _axis_rank(name: str) -> tuple[int, str]:
    return (AXIS_ORDER.index(name) if name in AXIS_ORDER else len(AXIS_ORDER), name)


def _no_axis(name: str) -> bool:
    return name.endswith(_NO_AXIS_ENDINGS) or any(name == part or name.startswith(f"{part}.") for part in _NO_AXIS)


def _follows(table: Table, axis: str, contrast: str) -> dict[str, str] | None:
    seen: dict[str, set[str]] = defaultdict(set)
    for run in table.runs:
        seen[choice(run, contrast)].add(choice(run, axis))
    return (
        {value: next(iter(found)) for value, found in seen.items()} if all(len(v) == 1 for v in seen.values()) else None
    )


def _reference(
    axis: str,
    values: Sequence[str],
    wanted: str | None,
    cells: Mapping[tuple[str, tuple[str, ...]], Mapping[str, RunRecord]],
) -> str:
    for candidate in (wanted, *REFERENCES.get(axis, ())):
        if candidate in values:
            return str(candidate)
    runs = Counter({value: sum(len(cell) for key, cell in cells.items() if key[0] == value) for value in values})
    return max(values, key=lambda value: (runs[value], [-part for part in map(ord, value)]))


def _undeclared(runs: Sequence[RunRecord], axes: Mapping[str, Any], reduced: bool) -> dict[str, str]:
    """Differences between whole configurations that no axis explains: a default that was edited between runs."""
    kinds: dict[str, dict[tuple[str, ...], set[str]]] = defaultdict(lambda: defaultdict(set))
    named = [run for run in runs if run.composed]
    places = {run.path.as_posix(): tuple(choice(run, axis) for axis in axes) for run in named}
    for run in named:
        for name in run.composed:
            if not _no_axis(name) and name not in axes:
                kinds[name][places[run.path.as_posix()]].add(choice(run, name))
    guilty = sorted(name for name, found in kinds.items() if any(len(values) > 1 for values in found.values()))
    return {
        run.path.as_posix(): ", ".join(f"{name}={value_text(run.composed.get(name))}" for name in guilty)
        for run in named
        if guilty
    }


def _reason(known: Identity, first: Identity) -> str:
    names = {
        "task": "another task",
        "data": "other data",
        "classes": "other classes",
        "splits": "other splits",
        "test": "another test set",
        "selection": "another selection rule",
        "undeclared": "a setting that differs without being an axis of the study",
    }
    parts = []
    for name, words in names.items():
        mine, other = getattr(known, name), getattr(first, name)
        # Other data has other classes, splits and tests by itself: one reason is enough.
        if mine != other and not (name in ("classes", "splits", "test") and known.data != first.data):
            detail = (
                ""
                if name in ("classes", "splits")
                else f" ({_shorten(mine)} here, {_shorten(other)} in the first table)"
            )
            parts.append(words + detail)
    return "; ".join(parts[:3])


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _cautions(runs: Sequence[RunRecord]) -> list[str]:
    cautions = []
    devices = {run.result.cost.device for run in runs}
    if len(devices) > 1:
        cautions.append(f"Times and memory were measured on different devices: {', '.join(sorted(devices))}.")
    versions: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for package, version in run.result.versions.items():
            versions[package].add(str(version))
    mixed = [
        f"{package} {' and '.join(sorted(found))}" for package, found in sorted(versions.items()) if len(found) > 1
    ]
    if mixed:
        cautions.append(f"The runs used different versions: {', '.join(mixed)}.")
    return cautions
