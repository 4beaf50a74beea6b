"""Training on stored activations is the same training: same order, same logits, same accuracy."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headstart_testing import TinyRun, tiny_model, tiny_run

from headstart.config.settings import CacheSettings
from headstart.data.dataset import ImageDataset
from headstart.errors import CacheError
from headstart.store.activations import CachedData
from headstart.store.extract import pooling_of
from headstart.store.loader import StoredBatches
from headstart.store.store import Store
from headstart.strategies import Freeze, Full, LpFt, Partial

# The prefix sees other batches when its activations are stored than in training, so sums are rounded in another order.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}
VIT = {"name": "vit_tiny_patch16_224", "patch_size": 8, "depth": 3, "embed_dim": 48, "num_heads": 3}
CONVNEXT = {"name": "convnext_atto", "depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
BACKBONES = {"resnet18": {"name": "resnet18"}, "vit_tiny": VIT, "convnext_atto": CONVNEXT}


def tiny(strategy: Any, **choices: Any) -> TinyRun:
    return tiny_run(strategy, **{"backbone": CONVNEXT, **choices})


def cached(run: TinyRun, folder: Path, *, mode: str = "auto", **settings: Any) -> CachedData:
    return CachedData(
        run.data,
        run.module.model,
        run.module.plan.phases,
        run.module.audit.info,
        settings=CacheSettings(mode=mode, **settings),
        folder=folder,
    )


def trained(strategy: Any, folder: Path | None, *, augment: str = "none", **choices: Any) -> tuple[TinyRun, Any]:
    """A run after its fit, with or without stored activations."""
    settings = {key: choices.pop(key) for key in ("mode", "dtype", "views", "images") if key in choices}
    run = tiny(strategy, **choices)
    run.data.augmentation = replace(run.data.augmentation, augment=augment)
    loaders: Any = run.data
    if folder is not None:
        loaders = cached(run, folder, **settings)
        if loaders.phases_differ:
            run.trainer.reload_dataloaders_every_n_epochs = 1
    run.trainer.fit(run.module, datamodule=loaders)
    run.module.audit.finish()
    run.trainer.validate(run.module, datamodule=loaders, verbose=False)
    return run, loaders


def same(first: TinyRun, second: TinyRun) -> None:
    ours, theirs = first.module.predictions["val"], second.module.predictions["val"]
    np.testing.assert_allclose(ours.outputs, theirs.outputs, **TOLERANCE)
    assert ours.metrics["acc"] == theirs.metrics["acc"]


@pytest.mark.parametrize(
    ("backbone", "strategy", "precision"),
    [
        ("resnet18", Freeze(), "32-true"),
        ("vit_tiny", Freeze(), "bf16-mixed"),
        ("convnext_atto", Freeze(), "32-true"),
        ("convnext_atto", Partial(k=1), "32-true"),
        pytest.param("resnet18", Freeze(), "bf16-mixed", marks=pytest.mark.slow),
        pytest.param("vit_tiny", Freeze(), "32-true", marks=pytest.mark.slow),
        pytest.param("convnext_atto", Freeze(), "bf16-mixed", marks=pytest.mark.slow),
        pytest.param("resnet18", Partial(k=1), "bf16-mixed", marks=pytest.mark.slow),
        pytest.param("resnet18", Partial(k=2), "32-true", marks=pytest.mark.slow),
        pytest.param("vit_tiny", Partial(k=1), "32-true", marks=pytest.mark.slow),
    ],
)
def test_cached_and_uncached_training_agree(tmp_path: Path, backbone: str, strategy: Any, precision: str):
    choices = {"backbone": BACKBONES[backbone], "precision": precision}
    with_images, _ = trained(strategy, None, **choices)
    stored, loaders = trained(strategy, tmp_path, **choices)
    assert loaders.record()["used"]
    if precision == "32-true":
        same(with_images, stored)
        return
    # bfloat16 keeps 8 bits: one rounding step more or less is 0.4 %.
    ours, theirs = with_images.module.predictions["val"], stored.module.predictions["val"]
    np.testing.assert_allclose(ours.outputs, theirs.outputs, rtol=2e-2, atol=2e-2)


def test_each_phase_uses_what_it_may(tmp_path: Path):
    strategy = LpFt(probe_epochs=2)
    with_images, _ = trained(strategy, None, max_epochs=3)
    stored, loaders = trained(strategy, tmp_path, max_epochs=3)
    assert loaders.phases_differ
    assert [(use["phase"], use["kind"]) for use in loaders.record()["entries"]] == [
        *[("probe", "activations")] * 2,
        *[("finetune", "images")] * 2,
    ]
    assert "nothing is frozen" in loaders.record()["reason"]
    same(with_images, stored)


def batches(loader: Any) -> list[tuple[list[int], list[int]]]:
    return [(batch["index"].tolist(), batch["targets"].tolist()) for batch in loader]


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_order_is_that_of_the_images(tmp_path: Path, drop_last: bool):
    run = tiny(Freeze(), max_epochs=1)
    run.data.drop_last = drop_last
    loaders = cached(run, tmp_path)
    run.trainer.fit(run.module, datamodule=loaders)
    run.trainer.state.fn = "fit"
    for split in ("train", "val"):
        stored = loaders._loader(split)
        assert isinstance(stored, StoredBatches)
        images = getattr(run.data, f"{split}_dataloader")()
        for epoch in (0, 3):
            stored.sampler.set_epoch(epoch)
            images.batch_sampler.sampler.set_epoch(epoch)
            assert batches(stored) == batches(images)
        assert len(stored) == len(images)


def test_a_second_run_with_another_head_seed_and_rate_finds_everything(tmp_path: Path):
    first = trained(Freeze(), tmp_path)[1]
    model = tiny(Freeze()).module.model
    torch.manual_seed(5)
    torch.nn.init.normal_(model.head.linear.weight)
    second = trained(Freeze(), tmp_path, model=model, seed=3, lr=0.5)[1]
    assert not first.record()["hit"]
    assert second.record()["hit"]
    assert second.record()["key"] == first.record()["key"]
    assert second.extract_seconds == first.extract_seconds > 0


def test_other_training_images_share_the_validation_entry(tmp_path: Path):
    trained(Freeze(), tmp_path)
    run = tiny(Freeze())
    run.data.shots = 2
    run.data._source = None
    loaders = cached(run, tmp_path)
    run.trainer.fit(run.module, datamodule=loaders)
    assert {use["split"]: use["hit"] for use in loaders.record()["entries"]} == {"val": True, "train": False}


@pytest.mark.parametrize(
    ("strategy", "backbone", "pooled"),
    [(Freeze(), "convnext_atto", True), (Freeze(), "vit_tiny", True), (Partial(k=1), "convnext_atto", False)],
    ids=["map", "tokens", "partial"],
)
def test_a_head_that_pools_first_is_given_pooled_features(tmp_path: Path, strategy: Any, backbone: str, pooled: bool):
    run, _ = trained(strategy, tmp_path, backbone=BACKBONES[backbone])
    store = Store(tmp_path / "activations")
    for key in store.entries():
        assert store.meta(key).about["pooled"] is pooled
        assert (store.meta(key).shape == (run.module.model.backbone.feature_dim,)) is pooled


def test_a_head_that_looks_at_the_map_is_not():
    model = tiny_model(CONVNEXT, size=64)
    assert pooling_of(model) is model.head.pool
    forward = model.head.forward
    model.head.forward = lambda features: forward(features) + features.flatten(1).std()
    assert pooling_of(model) is None


def test_augmentation_without_views_trains_on_images_and_says_so(tmp_path: Path):
    with_images, _ = trained(Freeze(), None, augment="light")
    stored, loaders = trained(Freeze(), tmp_path, augment="light")
    assert not loaders.record()["used"]
    assert "datamodule.augment=light" in loaders.notices()[0]
    used = [(use["kind"], use["split"]) for use in loaders.record()["entries"]]
    assert used == [("images", "train"), ("activations", "val")]
    same(with_images, stored)


@pytest.mark.parametrize("augment", ["light", "randaug"])
def test_views_are_what_the_first_epochs_show(tmp_path: Path, augment: str):
    """With as many views as epochs, and the views' own seed, training is that on images."""
    with_images, _ = trained(Freeze(), None, augment=augment, max_epochs=2)
    stored, loaders = trained(Freeze(), tmp_path, augment=augment, max_epochs=2, views=2)
    record = loaders.record()
    assert (record["used"], record["views"]) == (True, 2)
    assert "2 augmented views" in record["reason"]
    assert len({use["key"] for use in record["entries"]}) == 3
    same(with_images, stored)


@pytest.mark.parametrize(("augment", "images"), [("light", "auto"), ("light", "off"), ("randaug", "auto")])
def test_without_space_the_same_views_take_turns(
    tmp_path: Path, augment: str, images: str, monkeypatch: pytest.MonkeyPatch
):
    """The number of views is part of a run's choices, and the space on the disk is not."""
    choices = {"augment": augment, "max_epochs": 3, "views": 2}
    stored, _ = trained(Freeze(), tmp_path / "stored", **choices)
    monkeypatch.setattr("headstart.store.activations.too_large", lambda *_, **__: "there is no room")
    seen, loaders = trained(Freeze(), tmp_path / "images", **choices, images=images)
    record = loaders.record()
    assert (record["used"], record["views"]) == (False, 2)
    assert "there is no room" in record["reason"]
    assert [use["kind"] for use in record["entries"]] == ["images"] * len(record["entries"])
    same(stored, seen)
    anew, _ = trained(Freeze(), None, augment=augment, max_epochs=3)
    assert not np.allclose(anew.module.predictions["val"].outputs, seen.module.predictions["val"].outputs, **TOLERANCE)


def test_views_are_made_in_one_pass_no_more_than_epochs_and_serve_runs_with_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[int] = []
    image = ImageDataset.image
    monkeypatch.setattr(ImageDataset, "image", lambda data, index: decoded.append(index) or image(data, index))
    run, loaders = trained(Freeze(), tmp_path, augment="light", max_epochs=3, views=8)
    assert loaders.record()["views"] == 3
    assert len(decoded) == run.data.sizes["train"] + run.data.sizes["val"]
    _, fewer = trained(Freeze(), tmp_path, augment="light", max_epochs=3, views=2)
    assert (fewer.record()["views"], fewer.record()["hit"]) == (2, True)
    assert len(decoded) == run.data.sizes["train"] + run.data.sizes["val"]
    cost = sum(use["build_seconds"] for use in loaders.record()["entries"])
    assert cost <= loaders.seconds  # made together, each counts its share


def test_views_that_are_missing_are_made_beside_those_that_are_there(tmp_path: Path):
    whole, _ = trained(Freeze(), tmp_path / "at once", augment="light", max_epochs=3, views=3)
    trained(Freeze(), tmp_path / "later", augment="light", max_epochs=2, views=2)
    later, loaders = trained(Freeze(), tmp_path / "later", augment="light", max_epochs=3, views=3)
    hits = [use["hit"] for use in loaders.record()["entries"] if use["split"] == "train"]
    assert hits == [True, True, False]
    same(whole, later)


def test_requiring_what_cannot_be_is_an_error_before_training(tmp_path: Path):
    with pytest.raises(CacheError, match="nothing is frozen"):
        cached(tiny(Full()), tmp_path, mode="require")
    run = tiny(Freeze())
    run.data.augmentation = replace(run.data.augmentation, augment="light")
    with pytest.raises(CacheError, match=r"cache\.views"):
        cached(run, tmp_path, mode="require")
    cached(tiny(LpFt(probe_epochs=1)), tmp_path, mode="require")


def test_off_stores_nothing(tmp_path: Path):
    _, loaders = trained(Freeze(), tmp_path / "s", mode="off")
    expected = {"used": False, "key": None, "hit": False, "views": 0, "reason": "cache=off", "entries": []}
    assert loaders.record() == expected
    assert not (tmp_path / "s").exists()


def test_half_precision_by_choice(tmp_path: Path):
    with_images, _ = trained(Freeze(), None)
    stored, _ = trained(Freeze(), tmp_path, dtype="half")
    store = Store(tmp_path / "activations")
    assert {store.meta(key).dtype for key in store.entries()} == {"float16"}
    ours, theirs = with_images.module.predictions["val"], stored.module.predictions["val"]
    np.testing.assert_allclose(ours.outputs, theirs.outputs, rtol=2e-2, atol=2e-2)


def test_a_flipped_bit_is_found_and_the_entry_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first, _ = trained(Freeze(), tmp_path)
    for path in tmp_path.glob("activations/*/*.bin"):
        data = bytearray(path.read_bytes())
        data[7] ^= 64
        path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        second, loaders = trained(Freeze(), tmp_path)
    assert "damaged" in caplog.text
    assert not loaders.record()["hit"]
    same(first, second)


def test_changed_weights_after_training_are_never_served_old_activations(tmp_path: Path):
    run, loaders = trained(Freeze(), tmp_path)
    before = run.module.predictions["val"].outputs
    with torch.no_grad():
        for parameter in run.module.model.backbone.parameters():
            parameter.mul_(0.5)
    run.trainer.validate(run.module, datamodule=loaders, verbose=False)
    with_images = run.module.predictions["val"].outputs
    assert not np.allclose(before, with_images)
    run.trainer.validate(run.module, datamodule=run.data, verbose=False)
    np.testing.assert_array_equal(run.module.predictions["val"].outputs, with_images)


def test_more_than_the_limit_is_not_stored(tmp_path: Path):
    run = tiny(Freeze())
    small = cached(run, tmp_path / "small", max_gb=1e-6)
    run.trainer.fit(run.module, datamodule=small)
    assert "exceed cache.max_gb" in small.record()["reason"]
    assert not small.record()["used"]


def test_decoded_images_change_nothing_at_all(tmp_path: Path):
    with_files, _ = trained(Full(), None)
    stored, loaders = trained(Full(), tmp_path)
    again, found = trained(Full(), tmp_path)
    assert len(Store(tmp_path / "images").entries()) == 2
    assert not loaders.record()["used"]
    assert [entry["hit"] for entry in found.record()["entries"]] == [True, True]
    expected = with_files.module.predictions["val"].outputs
    np.testing.assert_array_equal(stored.module.predictions["val"].outputs, expected)
    np.testing.assert_array_equal(again.module.predictions["val"].outputs, expected)


@pytest.mark.parametrize(("augment", "stored_splits"), [("light", ["train", "val"]), ("randaug", ["val"])])
def test_augmentation_of_decoded_images_changes_nothing_at_all(tmp_path: Path, augment: str, stored_splits: list[str]):
    """The same training from files and from the store; RandAugment works on the original images."""
    with_files, _ = trained(Full(), None, augment=augment)
    stored, loaders = trained(Full(), tmp_path, augment=augment)
    assert [entry["split"] for entry in loaders.record()["entries"] if entry["kind"] == "images"] == stored_splits
    np.testing.assert_array_equal(
        stored.module.predictions["val"].outputs, with_files.module.predictions["val"].outputs
    )


def test_decoded_images_can_be_left_out(tmp_path: Path):
    trained(Full(), tmp_path, images="off")
    assert Store(tmp_path / "images").entries() == []
