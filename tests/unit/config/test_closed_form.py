"""What a head in closed form makes of the other choices."""

import pytest

from headstart.config import ResolvedRun, compose, resolve_run


def resolved(*overrides: str) -> ResolvedRun:
    return resolve_run(compose(["backbone.weights=none", *overrides]))


@pytest.mark.parametrize("head", ["logreg", "ridge"])
@pytest.mark.parametrize(
    ("overrides", "refit"),
    [((), True), (("datamodule.shots=10",), False), (("datamodule.fraction=0.1",), False)],
)
def test_it_is_refitted_on_validation_only_where_all_training_images_are_used(
    head: str, overrides: tuple[str, ...], refit: bool
):
    # Ten images a class beside hundreds for validation are not ten any more.
    left_open = resolved(f"head={head}", *overrides)
    assert left_open.config["head"]["refit"] is refit
    told = {choice: resolved(f"head={head}", f"head.refit={choice}", *overrides) for choice in ("true", "false")}
    assert left_open.fingerprint == told[str(refit).lower()].fingerprint
    assert left_open.fingerprint != told[str(not refit).lower()].fingerprint
    assert "refit" not in left_open.key


def test_the_other_heads_keep_their_own():
    assert resolved("head=ncm").config["head"]["refit"] is False
