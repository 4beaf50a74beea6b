"""What is tried when a backbone is trained, and who goes on when time is short."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from headstart.study.tuning import Point, space_points

RUNGS = (2, 4, 8, 16, 32)
"""Epochs of each round: in the first the rates are chosen, each further one halves the arms and doubles the epochs."""

# Steps that the first round has at least, where up to eight epochs are enough for them: ten teach hardly anything.
_FIRST_STEPS, _FIRST_EPOCHS = 40, 8

SPACE = {"default": {"optimizer.lr": [3e-4, 1e-3, 1e-4]}}
"""Values that each arm tries, as ``study.tuning.space`` has them; where time is short, the first ones."""


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        name: for people.
        strategy: its name.
        overrides: what chooses it.
        says: what it does, for someone new to it.
        trains: share of the backbone that runs forward and backward in every step; 0: stored features are enough.
    """

    name: str
    strategy: str
    overrides: tuple[str, ...]
    says: str
    trains: float = 1.0


FROZEN = Recipe(
    "frozen features",
    "freeze",
    ("strategy=freeze", "head=logreg", "datamodule.augment=none"),
    "keep the pretrained network as it is and solve for a classifier on its features",
    trains=0.0,
)

FINE_TUNING = (
    Recipe(
        "fine-tuning",
        "full",
        ("strategy=full", "head_init=probe", "batchnorm=eval"),
        "start from a classifier on its features and train the whole network",
    ),
    Recipe(
        "fine-tuning of two stages",
        "partial",
        ("strategy=partial", "strategy.k=2", "head_init=probe", "batchnorm=eval"),
        "start from a classifier on its features and train the network's last two stages",
        trains=0.5,
    ),
)

RECIPES = {recipe.name: recipe for recipe in (FROZEN, *FINE_TUNING)}


@dataclass(frozen=True)
class Contender:
    """A recipe on a backbone.

    Attributes:
        backbone: its name.
        choice: what chooses it.
        recipe: how it is trained.
        point: values that are tuned; empty before they are chosen, and where there is nothing to tune.
    """

    backbone: str
    choice: tuple[str, ...]
    recipe: Recipe
    point: Point = ()

    @property
    def label(self) -> str:
        """For people, whatever is tuned."""
        return f"{self.backbone}, {self.recipe.name}"

    @property
    def name(self) -> str:
        """For people, with the values that are tuned."""
        return ", ".join([self.label, *(f"{key.rpartition('.')[2]} {value}" for key, value in self.point)])

    def at(self, point: Point) -> "Contender":
        """With these values."""
        return replace(self, point=point)

    def points(self, given: Collection[str]) -> tuple[Point, ...]:
        """What it tries.

        Args:
            given: keys that somebody chose, which stay as they are.
        """
        return space_points(SPACE, self.recipe.strategy, given=given) if self.recipe.trains else ((),)

    def overrides(self, epochs: int) -> tuple[str, ...]:
        """What trains it for so many epochs; a classifier that is solved for has none."""
        length = (f"trainer.max_epochs={epochs}",) if self.recipe.trains else ()
        return (*self.choice, *self.recipe.overrides, *(f"{key}={value}" for key, value in self.point), *length)


def rounds(images: int, batch_size: int) -> tuple[int, ...]:
    """The epochs of the rounds for so many training images: with few of them the first ones would be too short."""
    steps = max(1, images // batch_size)
    return tuple(epochs for epochs in RUNGS if epochs >= _FIRST_EPOCHS or epochs * steps >= _FIRST_STEPS)


def survivors(scores: Sequence[tuple[Contender, float]]) -> list[Contender]:
    """The better half, one at least, the best first.

    Reference: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016.
    """
    ordered = sorted(scores, key=lambda scored: -scored[1])
    return [arm for arm, _ in ordered[: max(1, (len(ordered) + 1) // 2)]]
