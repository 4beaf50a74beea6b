"""What `auto` means for the backbone's rate: decided by where the weights come from, and by nothing else."""

import pytest

from headstart.config import ResolvedRun, compose, resolve_run
from headstart.errors import ConfigError

IMAGENET = ("backbone=efficientnet_lite0",)
BUNDLED = ("backbone=resnet18", "backbone.weights=bundled")


def resolve(*overrides: str) -> ResolvedRun:
    return resolve_run(compose(overrides))


def rate(*overrides: str, chosen: str = "auto") -> float:
    return resolve(*overrides, f"strategy.backbone_lr_mult={chosen}").config["strategy"]["backbone_lr_mult"]


@pytest.mark.parametrize("strategy", ["full", "l2sp", "bss", "wise_ft"])
def test_weights_of_imagenet_learn_at_a_tenth_of_the_heads_rate(strategy: str):
    assert rate(f"strategy={strategy}", *IMAGENET) == 0.1
    assert rate(f"strategy={strategy}", *BUNDLED) == 1.0


def test_random_weights_have_nothing_to_lose():
    assert rate("strategy=scratch", *IMAGENET) == 1.0
    assert rate("strategy=full", *IMAGENET, "backbone.weights=none") == 1.0


def test_a_rate_that_is_given_stands():
    assert rate("strategy=full", *IMAGENET, chosen="0.3") == 0.3


def test_auto_is_the_same_run_as_its_number():
    decided, given = (
        resolve("strategy=full", *IMAGENET, f"strategy.backbone_lr_mult={value}") for value in ("auto", "0.1")
    )
    assert (decided.fingerprint, decided.key) == (given.fingerprint, given.key)
    usual, decided = (resolve("strategy=full", *BUNDLED, *more) for more in ((), ("strategy.backbone_lr_mult=auto",)))
    assert (decided.fingerprint, decided.key) == (usual.fingerprint, usual.key)


def test_other_words_are_refused():
    with pytest.raises(ConfigError, match="backbone_lr_mult=slow: must be auto or a number above 0"):
        rate("strategy=full", *BUNDLED, chosen="slow")
