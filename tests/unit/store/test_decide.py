"""When a phase runs on stored activations."""

from typing import Any

import pytest

from headstart.config.settings import CacheSettings
from headstart.errors import CacheError
from headstart.model.description import ModelInfo, ParameterInfo, StageInfo
from headstart.model.phases import Group, Phase
from headstart.store.decide import Storing, check_required, decide, too_large, trainer_obstacle, views_in_turn

MODEL = ModelInfo(
    tuple(StageInfo(name, (ParameterInfo(name, "weight", 1, True),)) for name in ("s0", "s1", "s2", "head"))
)


def phase(*learning: str, needs_images: str | None = None) -> Phase:
    return Phase("p", 0, 1, tuple(Group(name, (name,)) for name in learning), needs_images=needs_images)


def decided(chosen: Phase, **changes: Any) -> Storing:
    values = {"settings": CacheSettings(), "is_cuttable": lambda count: True, "augmentation": None, **changes}
    return decide(chosen, MODEL, values.pop("settings"), **values)


@pytest.mark.parametrize(("learning", "stages"), [(("head",), 3), (("s2", "head"), 2), (("s1", "head"), 1)])
def test_the_whole_frozen_prefix_is_stored(learning: tuple[str, ...], stages: int):
    assert decided(phase(*learning)) == Storing(stages, True)


def test_the_deepest_cut_that_works_is_taken():
    assert decided(phase("head"), is_cuttable=lambda count: count in {1, 2}) == Storing(2, True)
    refused = decided(phase("s2", "head"), is_cuttable=lambda count: count == 3)
    assert (refused.stages, refused.evaluation) == (0, False)
    assert "cannot be cut within its frozen stages (s0, s1)" in refused.reason


@pytest.mark.parametrize(
    ("chosen", "changes", "reason"),
    [
        (phase("head"), {"settings": CacheSettings(mode="off")}, "cache=off"),
        (phase("head"), {"settings": CacheSettings(mode="images")}, "cache=images"),
        (phase("s0", "head"), {}, "nothing is frozen before the first stage that learns"),
        (phase("head", needs_images="mixup mixes images"), {}, "mixup mixes images"),
        (phase("head"), {"obstacle": "trainer.fast_dev_run"}, "trainer.fast_dev_run"),
    ],
)
def test_otherwise_the_reason_is_given(chosen: Phase, changes: dict[str, Any], reason: str):
    decision = decided(chosen, **changes)
    assert (decision.train, decision.evaluation) == (False, False)
    assert reason in decision.reason


def test_augmentation_leaves_validation_stored():
    decision = decided(phase("head"), augmentation="datamodule.augment=light")
    assert (decision.train, decision.evaluation) == (False, True)
    assert "datamodule.augment=light" in decision.reason
    assert decided(phase("head"), augmentation="datamodule.augment=light", settings=CacheSettings(views=4)).train


def test_requiring_means_every_phase_that_freezes_something():
    require = CacheSettings(mode="require")
    full, stored, refused = Storing(0, False, "nothing"), Storing(3, True), Storing(3, False, "augment")
    check_required(require, [stored, full])
    for decisions in ([full], [stored, refused]):
        with pytest.raises(CacheError, match="cache=require, but"):
            check_required(require, decisions)
        check_required(CacheSettings(), decisions)


def test_sizes_that_are_not_stored():
    sizes = {"rows": 1000, "row_bytes": 10**6, "image_bytes": 10**6, "free_bytes": 10**12}
    assert too_large(CacheSettings(max_gb=20), **sizes) is None
    assert "cache.max_gb=0.5" in too_large(CacheSettings(max_gb=0.5), **sizes)
    assert "do not fit on the disk" in too_large(CacheSettings(), **{**sizes, "free_bytes": 10**9})
    assert "20 times larger" in too_large(CacheSettings(), **{**sizes, "image_bytes": 50_000})
    assert too_large(CacheSettings(mode="require"), **{**sizes, "image_bytes": 50_000}) is None


def test_no_more_views_than_passes():
    phases = (Phase("head", 0, 2, (Group("head", ("head.weight",)),)),)
    assert views_in_turn(CacheSettings(views=4), phases, None) == 2
    assert views_in_turn(CacheSettings(views=4), phases, 50) == 4


@pytest.mark.parametrize(
    ("switches", "found"),
    [
        ({}, None),
        ({"fast_dev_run": False, "limit_train_batches": None, "limit_val_batches": 1.0, "overfit_batches": 0.0}, None),
        ({"fast_dev_run": 2}, "trainer.fast_dev_run=2"),
        ({"overfit_batches": 1}, "trainer.overfit_batches=1"),
        ({"limit_train_batches": 5}, "trainer.limit_train_batches=5"),
        ({"limit_train_batches": 1}, "trainer.limit_train_batches=1"),
    ],
)
def test_runs_on_a_part_of_the_images_store_nothing(switches: dict[str, Any], found: str | None):
    obstacle = trainer_obstacle(switches)
    assert obstacle is found is None or found in str(obstacle)
