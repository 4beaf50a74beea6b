"""``cache.views=auto`` is a number before anything is built."""

import pytest

from headstart.config import compose, resolve_run
from headstart.config.views import VIEWS
from headstart.errors import ConfigError

MACHINE = ("backbone.weights=bundled", "trainer=cpu", "trainer.precision=32-true")
LIGHT = "datamodule.augment=light"


def resolved(*overrides: str):
    return resolve_run(compose([*MACHINE, *overrides]))


@pytest.mark.parametrize(
    ("overrides", "views"),
    [
        ((), 0),
        ((LIGHT,), VIEWS),
        ((LIGHT, "cache=require"), VIEWS),
        ((LIGHT, "cache.views=0"), 0),
        ((LIGHT, "cache.views=3"), 3),
        ((LIGHT, "cache=off"), 0),
        ((LIGHT, "cache=images"), 0),
        ((LIGHT, "strategy=full"), 0),
        ((LIGHT, "strategy=lp_ft"), 0),
        ((LIGHT, "batch_transform=mixup"), 0),
        ((LIGHT, "datamodule.train_size=32"), 0),
    ],
)
def test_views_meet_augmentation_and_a_backbone_that_stays_frozen(overrides: tuple[str, ...], views: int):
    assert resolved(*overrides).settings.cache.views == views


def test_the_number_is_part_of_the_result_and_named_where_it_was_given():
    auto, given, anew = (resolved(LIGHT, *more) for more in ((), (f"cache.views={VIEWS}",), ("cache.views=0",)))
    assert auto.fingerprint == given.fingerprint != anew.fingerprint
    assert "views" not in auto.key
    assert "views0" in anew.key
    assert anew.fingerprint == resolved(LIGHT, "cache=off").fingerprint


def test_a_run_can_be_extended_whatever_its_length():
    assert resolved(LIGHT, "trainer.max_epochs=2").lineage == resolved(LIGHT, "trainer.max_epochs=20").lineage


def test_views_that_were_asked_for_are_refused_where_they_have_no_effect():
    with pytest.raises(ConfigError, match=r"cache\.views=3 has no effect with cache=off"):
        resolved(LIGHT, "cache=off", "cache.views=3")
    with pytest.raises(ConfigError, match=r"train_size=32"):
        resolved(LIGHT, "cache.views=3", "datamodule.train_size=32")
