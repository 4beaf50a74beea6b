"""What is tried when a backbone is trained, and who goes on when time is short."""

from collections.abc import Sequence
from dataclasses import dataclass

RUNGS = (2, 4, 8, 16)
"""Epochs of each round; every round halves the recipes and doubles the epochs."""


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        name: for people.
        overrides: what chooses it.
        says: what it does, for someone new to it.
        trains: share of the backbone that runs forward and backward in every step; 0: stored features are enough.
    """

    name: str
    overrides: tuple[str, ...]
    says: str
    trains: float = 1.0


FROZEN = Recipe(
    "frozen features",
    ("strategy=freeze", "head=logreg", "datamodule.augment=none"),
    "keep the pretrained network as it is and solve for a classifier on its features",
    trains=0.0,
)

FINE_TUNING = (
    Recipe(
        "fine-tune, rate 1e-4",
        ("strategy=full", "head_init=probe", "batchnorm=eval", "optimizer.lr=1e-4"),
        "start from that classifier and train the whole network gently",
    ),
    Recipe(
        "fine-tune, rate 3e-4",
        ("strategy=full", "head_init=probe", "batchnorm=eval", "optimizer.lr=3e-4"),
        "start from that classifier and train the whole network",
    ),
    Recipe(
        "last two stages, rate 3e-4",
        ("strategy=partial", "strategy.k=2", "head_init=probe", "batchnorm=eval", "optimizer.lr=3e-4"),
        "start from that classifier and train the network's last two stages",
        trains=0.5,
    ),
    Recipe(
        "fine-tune, rate 1e-3",
        ("strategy=full", "optimizer.lr=1e-3"),
        "train the whole network with a new classifier",
    ),
)


@dataclass(frozen=True)
class Arm:
    """A recipe on a backbone.

    Attributes:
        backbone: its name.
        choice: what chooses it.
        recipe: how it is trained.
    """

    backbone: str
    choice: tuple[str, ...]
    recipe: Recipe

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.backbone}, {self.recipe.name}"

    def overrides(self, epochs: int) -> tuple[str, ...]:
        """What trains it for so many epochs; a classifier that is solved for has none."""
        length = (f"trainer.max_epochs={epochs}",) if self.recipe.trains else ()
        return (*self.choice, *self.recipe.overrides, *length)


def survivors(scores: Sequence[tuple[Arm, float]]) -> list[Arm]:
    """The better half, one at least, the best first.

    Reference: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016.
    """
    ordered = sorted(scores, key=lambda scored: -scored[1])
    return [arm for arm, _ in ordered[: max(1, (len(ordered) + 1) // 2)]]
