"""An advice in words that someone new to this understands."""

from collections.abc import Iterator

from headstart.plots.style import counted
from headstart.ranking.advise import Advice
from headstart.ranking.recipes import RECIPES
from headstart.system.console import duration
from headstart.transferability.intervals import Value

# Differences in accuracy below this are not worth a word.
_POINT = 0.01


def recommendation(advice: Advice) -> str:
    """What to do."""
    chosen = advice.chosen
    length = f" for {chosen.epochs} epochs" if chosen.epochs else ""
    return f"Use {chosen.backbone}: {RECIPES[chosen.recipe].says}{length}."


def points(advice: Advice) -> list[tuple[str, str]]:
    """What it will do, what it costs, and what would make it better, each with its label."""
    return [
        ("Expect", _expected(advice)),
        ("Cost", _costs(advice)),
        *(("Fine-tuning", words) for words in _alternatives(advice)),
        ("More images", _more_images(advice)),
        ("More time", _more_time(advice)),
    ]


def per_cent(value: Value) -> str:
    """``93.2 % (95 % interval 90.1 to 95.4)``."""
    if value.low is None or value.high is None:
        return f"{100 * value.value:.1f} %"
    return f"{100 * value.value:.1f} % (95 % interval {100 * value.low:.1f} to {100 * value.high:.1f})"


def _expected(advice: Advice) -> str:
    images = advice.result.data["sizes"].get("test")
    if advice.expected is None:
        return "There are no test images, so nothing can be said about new ones."
    part = " There was no time to train on all images; the command does." if advice.chosen.part else ""
    return (
        f"{per_cent(advice.expected)} of new images to be right, if they are like these: measured once, on "
        f"{images:,} test images that no choice was made on.{part}"
    )


def _costs(advice: Advice) -> str:
    cost = next(one.cost for one in advice.ranking.networks if one.name == advice.chosen.backbone)
    megabytes = 4 * advice.result.params["total"] / 1e6
    licence = f"; its weights are under {cost.licence}" if cost.licence else ""
    return (
        f"It took {duration(advice.result.cost.total_seconds)} to train, takes {megabytes:.0f} MB to store, and "
        f"{1000 / cost.images_per_second:.1f} ms for an image of {cost.image_size[0]} pixels here{licence}."
    )


def _alternatives(advice: Advice) -> Iterator[str]:
    """The best of the other kind: whether fine-tuning was worth it."""
    frozen = [one for one in advice.tried if one.score is not None and not one.epochs]
    tuned = [one for one in advice.tried if one.score is not None and one.epochs]
    if not frozen or not tuned:
        return
    best, gain = tuned[0], (tuned[0].estimate or 0.0) - (frozen[0].estimate or 0.0)
    images = advice.result.data["sizes"]["val"]
    if abs(gain) < max(_POINT, 1 / images):
        yield "Fine-tuning and frozen features were level; frozen features take a fraction of the time."
    elif gain > 0:
        yield f"Fine-tuning was worth it: {100 * gain:.1f} points by the estimates of both ({best.arm})."
    else:
        yield f"Fine-tuning was not worth it: {-100 * gain:.1f} points fewer at best ({best.arm})."


def _more_images(advice: Advice) -> str:
    curve = advice.curve
    if curve is None:
        return "There are too few images to say what more of them would bring."
    now, twice = curve.at(curve.images[-1]), curve.at(2 * curve.images[-1])
    gain = now.value - twice.value
    assert twice.low is not None
    assert twice.high is not None
    span = f"{100 * (now.value - twice.high):.1f} to {100 * (now.value - twice.low):.1f}"
    verdict = "More images would help" if now.value - twice.high > _POINT / 2 else "More images might help a little"
    if gain < _POINT / 2:
        verdict = "More images of the same kind would hardly help"
    return (
        f"{verdict}: twice as many would bring about {100 * gain:.1f} points (95 % interval {span}), as a linear "
        "probe's learning curve goes on. That it goes on as it did is an assumption."
    )


def _more_time(advice: Advice) -> str:
    rounds = sorted((one for one in advice.tried if one.score is not None and one.epochs), key=lambda one: one.epochs)
    by_arm: dict[str, list[float]] = {}
    for one in rounds:
        by_arm.setdefault(one.arm, []).append(one.mean or 0.0)
    rising = [name for name, scores in by_arm.items() if len(scores) > 1 and scores[-1] - scores[-2] > _POINT]
    if advice.skipped:
        needed = min(advice.skipped.values())
        first = f"{counted(len(advice.skipped), 'training')} had no time; the shortest needs {duration(needed)} more"
        hope = f", and {rising[0]} was still getting better" if rising else ""
        return f"A larger budget may help: {first}{hope}. The same command with a larger budget goes on from here."
    if rising:
        return f"A longer training may help: {rising[0]} was still getting better with more epochs."
    return "A larger budget would not change this: everything that is tried had its time."
