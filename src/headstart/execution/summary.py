"""What a finished run says last: its metrics, what it cost, and where it is. No torch here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from headstart.runs.result import Cost, Result, split_of
from headstart.system.console import duration, number, plain_table, show
from headstart.system.names import legible
from headstart.weights.report import weights_notice

_MOST_COLUMNS = 6
_MOST_CLASSES = 10
# Datamodules of images that someone brings.
_OWN_IMAGES = ("folder", "csv", "hf", "webdataset")


def end_table(metrics: dict[str, float | None]) -> Table:
    """Splits by metrics, or where there are many metrics the other way round; a missing test split is said."""
    places = {split_of(name): value for name, value in metrics.items()}
    splits = list(dict.fromkeys(split for split, _ in places))
    names = list(dict.fromkeys(name for _, name in places))
    names.sort(key=lambda name: (name == "loss", name != "acc"))
    if len(names) > _MOST_COLUMNS:
        table = plain_table("", "metric", *map(number, splits))
        for name in names:
            table.add_row(escape(legible(name)), *(_metric(places.get((split, name))) for split in splits))
        return table
    table = plain_table("", Column("split", no_wrap=True), *(number(escape(legible(name))) for name in names))
    for split in splits:
        table.add_row(split, *(_metric(places.get((split, name))) for name in names))
    if "test" not in splits:
        table.add_row("test", *(["none"] + [""] * (len(names) - 1))[: len(names)], style="dim")
    return table


def class_table(split: str, classes: Sequence[str], scores: Mapping[str, Sequence[float | None]]) -> Table:
    """Precision, recall, F1 and number of images of each class of a split."""
    table = plain_table("", f"class ({split})", *map(number, ("precision", "recall", "f1", "images")))
    for place, name in enumerate(classes):
        values = (_metric(scores[key][place]) for key in ("precision", "recall", "f1"))
        table.add_row(escape(legible(name)), *values, f"{scores['support'][place]:,}")
    return table


def views_notice(views: int, *, images: int, epochs: int) -> str:
    """What stored views cost, beforehand, against augmenting anew in each of so many epochs."""
    saved = f" instead of {epochs * images:,} (cache.views=0 augments anew in each epoch)" if views < epochs else ""
    return (
        f"Augmentation: {views} stored views of each training image take turns, which is {views * images:,} passes "
        f"through the frozen stages{saved}"
    )


def data_notice(data: Mapping[str, Any]) -> str:
    """One line about a run's data: classes, sizes of splits, what was carved, left out and damaged.

    Args:
        data: the ``data`` section of its result.
    """
    names = [legible(str(name)) for name in data["classes"]]
    kind = "target" if "target_ranges" in data else "class"
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    counted = f"{len(names)} {kind if len(names) == 1 else {'class': 'classes', 'target': 'targets'}[kind]} ({listed})"
    few = next((f" ({name}={data[name]})" for name in ("shots", "fraction") if data.get(name) is not None), "")
    notes = {"train": few, **dict.fromkeys(data.get("carved", ()), " (carved from train)")}
    sizes = [f"{size:,} {split}{notes.get(split, '')}" for split, size in data["sizes"].items()]
    ignored = data.get("ignored") or {}
    apart = [f"{count:,} {suffix}" for suffix, count in ignored.items()]
    others = [f"{name}/" for name in data.get("ignored_folders", ())]
    left_out = [*apart[:5], *others[:5], *(["..."] if len(apart) > 5 or len(others) > 5 else [])]
    shared = [f"{count:,} in {pair}" for pair, count in (data.get("shared_between_splits") or {}).items()]
    near = [f"{count:,} in {pair}" for pair, count in (data.get("near_duplicates") or {}).items()]
    return "; ".join(
        [
            f"Data: {data['name']}, {counted}: {', '.join(sizes)}" + ("" if "test" in data["sizes"] else ", no test"),
            *([f"left out: {', '.join(left_out)}"] if left_out else []),
            *([f"unreadable: {data['skipped_count']:,}"] if data.get("skipped_count") else []),
            *([f"the same images in two splits: {', '.join(shared)}"] if shared else []),
            *([f"images that look alike in two splits: {', '.join(near)}"] if near else []),
        ]
    )


def result_summary(result: Result) -> Group:
    """The end table, one of the classes where they are few; cost, parameters, weights, images left out."""
    lines: list[RenderableType] = [end_table(result.metrics)]
    per_class, classes = result.details.get("per_class") or {}, result.data.get("classes", ())
    if per_class and len(classes) <= _MOST_CLASSES:
        split = "test" if "test" in per_class else "val"
        lines.append(class_table(split, classes, per_class[split]))
    if calibration := result.details.get("calibration"):
        split = "test" if "test" in calibration else "val"
        before, after = (calibration[split][name] for name in ("ece_before", "ece"))
        factor = f"temperature {calibration['temperature']:.3f}"
        lines.append(
            Text(f"Calibrated ({factor}): calibration error on {split} {before:.4f} before, {after:.4f} after")
        )
    lines.append(Text(f"Cost: {cost_text(result.cost)}"))
    if params := result.params:
        share = params["trainable"] / max(params["total"], 1)
        lines.append(Text(f"Trainable parameters: {params['trainable']:,} of {params['total']:,} ({share:.2%})"))
    if result.weights:
        lines.append(weights_notice(result.weights))
        if hint := _of_other_weights(result):
            lines.append(Text(hint, style="dim"))
    if earlier := _of_phases(result):
        lines.append(Text(earlier, style="yellow"))
    if skipped := len(result.data.get("skipped", ())):
        images = "1 unreadable image was" if skipped == 1 else f"{skipped:,} unreadable images were"
        lines.append(Text(f"{images} skipped; result.json names what and why.", style="yellow"))
    if cut := result.details.get("cut_short"):
        lines.append(Text(f"Cut short, so in no comparison: {'; '.join(cut)}", style="yellow"))
    return Group(*lines)


def _of_phases(result: Result) -> str:
    """That the last phase brought nothing; most often the features were not what the phase before had fitted."""
    best, phases = result.details.get("best_phase"), result.details.get("phases", ())
    if not best or best == phases[-1]:
        return ""
    return (
        f"The best epoch is of the phase '{best}': what came after made it no better. Try more epochs, a lower rate "
        "or batchnorm=eval, which keeps the statistics that the features had."
    )


def _of_other_weights(result: Result) -> str:
    """Where other weights are, for a run on someone's own images from the bundled ones."""
    if not result.weights["source"].startswith("bundled:") or result.config.get("datamodule") not in _OWN_IMAGES:
        return ""
    return (
        "These weights are of 64-pixel photographs; backbone=efficientnet_lite0 has ImageNet's, which mostly score "
        "higher (experiments/ranking). `headstart advise` compares the networks at hand on your images."
    )


def cost_text(cost: Cost) -> str:
    """What a run took, in a line."""
    parts = [f"{duration(cost.total_seconds)} in total", f"{duration(cost.fit_seconds)} training"]
    if cost.extract_seconds:
        parts.append(f"{duration(cost.extract_seconds)} extracting features")
    parts += [f"{cost.images_seen:,} images"] if cost.images_seen else []
    parts += [f"peak {cost.peak_memory_bytes / 2**30:.2f} GiB"] if cost.peak_memory_bytes else []
    return ", ".join([*parts, *([cost.device] if cost.device else [])])


def show_result(result: Result, run_dir: Path, *, returned: bool = False) -> None:
    """Show a finished run and where it is.

    Args:
        result: of the run.
        run_dir: the run directory.
        returned: the run was there already and nothing was trained.
    """
    if returned:
        show(Text("Already done; nothing was trained (rerun=all trains it again).", style="yellow"))
    show(result_summary(result))
    show(Text("Run directory: ").append(str(run_dir), style="bold"))


def _metric(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}"
