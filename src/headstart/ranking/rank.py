"""How well the networks at hand suit a data set, before anything is trained."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import compose, resolve_run
from headstart.data.datamodule import ImageDataModule
from headstart.errors import ConfigError, DataError, WeightsError
from headstart.ranking.candidates import Candidate, default_candidates, named_candidates
from headstart.ranking.features import Demand, Looked, look, prepared_data
from headstart.system.console import duration
from headstart.system.names import suggestion
from headstart.transferability.examples import Array, Labelled, folds_of
from headstart.transferability.intervals import draws
from headstart.transferability.scores import MEANINGS, Value, score_all

# How every candidate sees the images: each once, as evaluation does.
HOW = ("strategy=freeze", "head=linear", "datamodule.augment=none", "cache.mode=auto", "cache.views=0")
# Scores look at no more images than this, so that they stay cheap beside the passes.
MOST_IMAGES = 4000
BY = "logistic"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ranked:
    """A network with its scores.

    Attributes:
        candidate: the network.
        source: of its weights.
        values: scores by name, with intervals.
        right: for every accuracy 1 for each image found, else 0 ``(N,)``; the same images for every network.
        cost: of using it.
        pass_seconds: of the pass over the training images when it was made.
        stored: the pass was there already.
        score_seconds: of the scores.
        examples: features and classes of the images that were scored.
        chance: share of bootstrap samples in which it is the best by the ranking's score; None where that score
            is no share of right answers.
    """

    candidate: Candidate
    source: str
    values: dict[str, Value]
    right: dict[str, Array]
    cost: Demand
    pass_seconds: float
    stored: bool
    score_seconds: float
    examples: Labelled
    chance: float | None = None

    @property
    def name(self) -> str:
        """Of the network, as it is chosen."""
        return self.candidate.name


@dataclass(frozen=True)
class Ranking:
    """Networks, the most promising first.

    Attributes:
        data: name of the data set.
        images: that were scored.
        classes: of the data.
        duplicates: training images left out because another is the same.
        by: the score that orders them.
        networks: that were compared.
        absent: networks that were not, with the reason.
        folder: for what is written.
    """

    data: str
    images: int
    classes: int
    duplicates: int
    by: str
    networks: tuple[Ranked, ...] = field(repr=False)
    absent: tuple[Candidate, ...] = field(repr=False)
    folder: Path

    @property
    def best(self) -> Ranked:
        """The first."""
        return self.networks[0]

    def as_good(self) -> tuple[Ranked, ...]:
        """The best and those that these images cannot tell from it: the interval of the difference holds 0."""
        return tuple(other for other in self.networks if not self._behind(other))

    def promising(self) -> tuple[Ranked, ...]:
        """All of them: first those of :meth:`as_good`, then the others, each in their order."""
        return tuple(sorted(self.networks, key=self._behind))

    def rows(self) -> list[dict[str, Any]]:
        """A flat mapping for each network, in their order."""
        return [_row(network) for network in self.networks] + [
            {"backbone": candidate.name, "absent": candidate.absent} for candidate in self.absent
        ]

    def to_frame(self) -> Any:
        """:meth:`rows` as a pandas ``DataFrame``.

        Raises:
            DataError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise DataError("Ranking.to_frame() needs pandas: pip install pandas, or use Ranking.rows()") from None
        return pd.DataFrame(self.rows())

    def _behind(self, other: Ranked) -> bool:
        if other is self.best or self.by not in other.right:
            return other is not self.best and self._apart(other)
        differences = self.best.right[self.by] - other.right[self.by]
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        return bool(differences.mean() > 1.96 * error)

    def _apart(self, other: Ranked) -> bool:
        """Of scores without outcomes for single images: their intervals do not overlap."""
        low, high = self.best.values[self.by].low, other.values[self.by].high
        return low is not None and high is not None and high < low


def rank(
    overrides: Sequence[str] = (),
    *,
    backbones: Sequence[str] | None = None,
    by: str = BY,
    config_dir: str | Path | None = None,
    say: Say = lambda text: None,
    refuse: Callable[[Candidate], str] = lambda candidate: "",
) -> Ranking:
    """Score every network whose weights are to be had here on the training images of a data set.

    Each network sees every training image once, and the outcome is stored: the next call, and every training of a head
    on the same images without augmentation, finds it. Validation and test images are not looked at.

    Args:
        overrides: choices as for a training, such as ``datamodule=folder``.
        backbones: names, such as ``resnet18`` or ``resnet18:none``; None: all that are to be had.
        by: the score that orders them.
        config_dir: a folder of your own YAML files.
        say: takes a line about each step.
        refuse: asked before each network; a reason leaves it out.

    Raises:
        HeadstartError: the data cannot be used, or no network is to be had.
    """
    if by not in MEANINGS:
        raise ConfigError(f"by={by} is no score{suggestion(by, MEANINGS)}; there are {', '.join(MEANINGS)}")
    candidates = default_candidates() if backbones is None else named_candidates(backbones)
    networks: list[Ranked] = []
    absent = [candidate for candidate in candidates if candidate.absent]
    there = [candidate for candidate in candidates if not candidate.absent]
    data: ImageDataModule | None = None
    chosen, duplicates, folder = np.empty(0, dtype=np.int64), 0, Path()
    for number, candidate in enumerate(there, start=1):
        if reason := refuse(candidate):
            absent.append(replace(candidate, absent=reason))
            continue
        try:
            resolved = resolve_run(compose([*overrides, *HOW, *candidate.overrides], config_dir=config_dir))
            if data is None:
                data = prepared_data(resolved)
                chosen, duplicates = _to_score(data)
                folder = Path(resolved.output_dir) / f"rank-{safe_name(data.source_name)}"
                say(_announced(data, len(chosen), duplicates, len(there)))
            seen = look(resolved, data)
        except WeightsError as error:
            if backbones is not None:
                raise
            absent.append(replace(candidate, absent=str(error)))
            continue
        network = _scored(candidate, seen, chosen, by)
        networks.append(network)
        say(f"{number}/{len(there)} {candidate.name}: {_told(network, by)}")
    if data is None or not networks:
        reasons = "; ".join(f"{one.name}: {one.absent}" for one in absent[:3])
        raise WeightsError(f"no network's weights are to be had here ({reasons})")
    networks = _ordered(networks, by)
    return Ranking(
        data.source_name, len(chosen), len(data.classes), duplicates, by, tuple(networks), tuple(absent), folder
    )


def _to_score(data: ImageDataModule) -> tuple[np.ndarray, int]:
    """Positions of the training images that are scored, each content once, and how many were the same as another."""
    digests = data.records("train").digests
    first = np.array(sorted({digest: place for place, digest in reversed(list(enumerate(digests)))}.values()))
    kept = first
    if len(first) > MOST_IMAGES:
        parts = -(-len(first) // MOST_IMAGES)
        kept = first[folds_of(data.targets("train")[first], parts) == 0]
    return kept.astype(np.int64), len(digests) - len(first)


def _scored(candidate: Candidate, seen: Looked, chosen: np.ndarray, by: str) -> Ranked:
    started = time.perf_counter()
    examples = Labelled.of(seen.features[chosen], seen.targets[chosen])
    probabilities = None if seen.probabilities is None else seen.probabilities[chosen]
    scored = score_all(examples, probabilities)
    if by not in scored.values:
        raise ConfigError(
            f"by={by} needs the classifier of the source, which the weights of {candidate.name} ({seen.source}) do not "
            f"bring; order by another score, such as by={BY}"
        )
    seconds = time.perf_counter() - started
    return Ranked(
        candidate,
        seen.source,
        scored.values,
        scored.right,
        seen.cost,
        seen.pass_seconds,
        seen.stored,
        seconds,
        examples,
    )


def _ordered(networks: list[Ranked], by: str) -> list[Ranked]:
    """The best first, each with its chance of being the best; equal ones by their costs."""
    networks = sorted(networks, key=lambda one: (-one.values[by].value, one.cost.multiply_adds))
    if by not in networks[0].right:
        return networks
    outcomes = np.stack([one.right[by] for one in networks], axis=1)
    means = draws(len(outcomes)) @ outcomes
    best = means >= means.max(axis=1, keepdims=True) - 1e-12
    chances = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return [replace(one, chance=float(chance)) for one, chance in zip(networks, chances, strict=True)]


def _announced(data: ImageDataModule, scored: int, duplicates: int, networks: int) -> str:
    count = data.sizes["train"]
    parts = [f"{data.source_name}: {count:,} training images in {len(data.classes)} classes, {networks} networks"]
    if duplicates:
        parts.append(f"{duplicates} images are the same as another and count once")
    if scored < count - duplicates:
        parts.append(f"scores look at {scored:,} of them, evenly over the classes")
    return "; ".join(parts)


def _told(network: Ranked, by: str) -> str:
    pass_text = f"{'stored pass of' if network.stored else 'pass in'} {duration(network.pass_seconds)}"
    value = network.values[by].value
    shown = f"{100 * value:.1f} %" if MEANINGS[by].is_accuracy else f"{value:.3f}"
    return f"{pass_text}, scores in {duration(network.score_seconds)}; {MEANINGS[by].title} {shown}"


def _row(network: Ranked) -> dict[str, Any]:
    cost = network.cost
    row: dict[str, Any] = {"backbone": network.name, "weights": network.source}
    for name in MEANINGS:
        value = network.values.get(name, Value(float("nan")))
        row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return row | {
        "chance_of_best": network.chance,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "image_size": "x".join(map(str, cost.image_size)),
        "images_per_second": cost.images_per_second,
        "training_bytes": cost.training_bytes,
        "batch_size": cost.batch_size,
        "licence": cost.licence,
        "pass_seconds": network.pass_seconds,
        "score_seconds": network.score_seconds,
        "absent": "",
    }


def safe_name(name: str) -> str:
    """Of a data set, as part of a folder's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) or "data"
