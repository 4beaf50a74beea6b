"""The life of a datamodule: splits, input spec, loaders, and results that do not depend on workers."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from headstart.data import Digits, Folder, InputSpec
from headstart.data.dataset import seeded
from headstart.data.sampler import choose_workers
from headstart.errors import DataError
from headstart.store.decoded import DecodedImages
from headstart.store.pixels import pixel_batches

SPEC = InputSpec(height=224, width=224)


def digits(**choices: Any) -> Digits:
    """A small digits datamodule, ready to load."""
    module = Digits(**({"batch_size": 16, "seed": 3, "image_size": 16, "shots": 4, "num_workers": 0} | choices))
    module.configure(SPEC)
    return module


def epochs(loader: DataLoader, numbers: list[int]) -> list[list[dict]]:
    """The batches of these epochs, iterated as Lightning does."""
    batches = []
    for number in numbers:
        loader.sampler.set_epoch(number)
        batches.append(list(loader))
    return batches


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))


def test_batches() -> None:
    module = digits()
    batches = list(module.train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [16, 16, 8]
    first = batches[0]
    assert set(first) == {"images", "targets", "index"}
    assert first["images"].shape == (16, 3, 16, 16)
    assert first["images"].dtype == torch.float32
    assert first["targets"].dtype == first["index"].dtype == torch.int64
    assert first["targets"].tolist() == module.targets("train")[first["index"]].tolist()


def test_index_finds_the_image_again() -> None:
    module = digits(augment="none")
    for batch in module.train_dataloader():
        for image, index in zip(batch["images"], batch["index"].tolist(), strict=True):
            assert torch.equal(image, module.dataset("train")[index]["images"])


def test_evaluation_loaders_are_in_order_and_not_augmented() -> None:
    module = digits(augment="randaug", eval_batch_size=100)
    for split, loader in (("val", module.val_dataloader()), ("test", module.test_dataloader())):
        index = torch.cat([batch["index"] for batch in loader])
        assert index.tolist() == list(range(module.sizes[split]))
    assert same(list(module.val_dataloader()), list(digits(augment="none", eval_batch_size=100).val_dataloader()))


@pytest.mark.parametrize("augment", ["none", "light", "randaug"])
def test_two_epochs_are_alike_however_they_are_loaded(augment: str) -> None:
    """Without workers, with them (they persist) and after a resume: the same bits."""
    expected = epochs(digits(augment=augment).train_dataloader(), [0, 1])
    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    assert same(epochs(digits(augment=augment, num_workers=2).train_dataloader(), [0, 1]), expected)
    assert same(epochs(digits(augment=augment).train_dataloader(), [1]), expected[1:])
    images = [torch.cat([batch["images"] for batch in epoch]) for epoch in expected]
    assert not torch.equal(*images)


def test_augmentation_changes_from_epoch_to_epoch_and_with_the_seed() -> None:
    module = digits(augment="light")
    dataset = module.dataset("train", augmented=True)
    seen = [dataset[(epoch, 0)]["images"] for epoch in range(3)] + [dataset[(0, 0)]["images"]]
    assert torch.equal(seen[0], seen[3])
    assert not torch.equal(seen[0], seen[1])
    other = digits(augment="light", seed=4).dataset("train", augmented=True)
    assert not torch.equal(other[(0, 0)]["images"], seen[0])
    assert torch.equal(dataset[0]["images"], seen[0]), "a plain index means epoch 0"


def test_loading_leaves_the_global_generators_alone() -> None:
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    epochs(digits(augment="randaug").train_dataloader(), [0, 1])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_seeded_covers_python_numpy_and_torch() -> None:
    def draw(*parts: int) -> tuple:
        with seeded(*parts):
            return random.random(), np.random.rand(), torch.rand(()).item()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert all(a != b for a, b in zip(draw(1, 2, 3), draw(1, 2, 4), strict=True))


class Recorder(pl.LightningModule):
    """Records the indices it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[int]] = {}

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(batch["index"].tolist())
        return self.weight * batch["images"].mean()

    def validation_step(self, batch: dict, _: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **choices: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **choices,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_sees_each_epochs_order_also_after_a_resume(tmp_path: Path, workers: int) -> None:
    whole = Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(whole, datamodule=digits(num_workers=workers))
    assert all(sorted(order) == list(range(40)) for order in whole.seen.values())
    assert whole.seen[0] != whole.seen[1] != whole.seen[2]
    first = trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    first.fit(Recorder(), datamodule=digits(num_workers=workers))
    first.save_checkpoint(tmp_path / "last.ckpt")
    resumed = Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        resumed, datamodule=digits(num_workers=workers), ckpt_path=tmp_path / "last.ckpt"
    )
    assert resumed.seen == {epoch: whole.seen[epoch] for epoch in (1, 2)}


def test_overfit_batches(tmp_path: Path) -> None:
    """Lightning then replaces the sampler by a plain sequential one."""
    model = Recorder()
    with pytest.warns(UserWarning, match="overfit"):
        trainer(tmp_path, max_epochs=2, overfit_batches=1, enable_checkpointing=False).fit(model, datamodule=digits())
    assert model.seen[0] == model.seen[1] == list(range(16))


def test_an_unprepared_spec_is_a_programming_error() -> None:
    with pytest.raises(RuntimeError, match="configure"):
        Digits(batch_size=2, seed=0).train_dataloader()


def test_the_size_chosen_replaces_that_of_the_weights() -> None:
    assert Digits(batch_size=2, seed=0, image_size=[32, 48]).configure(SPEC).shape == (3, 32, 48)
    assert Digits(batch_size=2, seed=0).configure(SPEC) == SPEC


def test_gray_weights() -> None:
    module = Digits(batch_size=2, seed=0, shots=1)
    module.configure(InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,)))
    assert next(iter(module.train_dataloader()))["images"].shape == (2, 1, 8, 8)


def test_summary_is_plain_and_tells_splits_apart() -> None:
    module = digits()
    summary = module.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["sizes"] == {"train": 40, "val": 359, "test": 359}
    assert summary["class_counts"]["train"] == [4] * 10
    assert summary["carved"] == ["val", "test"]
    assert digits().summary() == summary
    more = digits(shots=8).summary()
    assert more["fingerprint"] != summary["fingerprint"]
    assert more["split_fingerprints"]["val"] == summary["split_fingerprints"]["val"]
    other = digits(split_seed=1).summary()
    assert other["split_fingerprints"]["val"] != summary["split_fingerprints"]["val"]
    assert other["content"] == summary["content"]
    assert digits(seed=9, augment="none").summary() == summary


def test_datasets_travel_to_other_processes() -> None:
    dataset = digits().dataset("train", augmented=True)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[(1, 2)]["images"], dataset[(1, 2)]["images"])


def test_drop_last() -> None:
    assert [len(batch["index"]) for batch in digits(drop_last=True).train_dataloader()] == [16, 16]
    with pytest.raises(DataError, match="drop_last=true leaves nothing of 40"):
        digits(drop_last=True, batch_size=64).prepare()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be a whole number of at least 1"),
        ({"min_crop": 0.0}, "min_crop=0.0: must be a number above 0 and at most 1"),
        ({"zoom_range": 1.0, "augment": "keras"}, "zoom_range=1.0: must be"),
        ({"shear_range": 0.2, "augment": "light"}, "augment=keras only"),
        ({"zoom_range": 0.2, "augment": "light"}, "augment=keras only"),
        ({"augment": "none", "train_size": (16, 16)}, "augment=light or randaug only"),
        ({"augment": "randaug", "kept_size": 64}, "augment=light only"),
        ({"val_fraction": 1.0}, "val_fraction=1.0: must be a number of at least 0 and below 1"),
        ({"test_fraction": -0.1}, "test_fraction=-0.1: must be"),
        ({"shots": 0}, "shots=0: must be a whole number of at least 1"),
        ({"fraction": 0.0}, "fraction=0.0: must be a number above 0 and at most 1"),
        ({"fraction": 1.5}, "fraction=1.5: must be"),
        ({"image_size": [1, 2, 3]}, "image_size="),
        ({"augment": "strong"}, "must be none, light, randaug or keras"),
        ({"on_bad_image": "ignore"}, "must be skip or raise"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_choices(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        digits(**choices)


def test_workers_by_machine_and_data() -> None:
    assert choose_workers(images=1000, from_files=False, on_gpu=True, cores=16) == 0
    assert choose_workers(images=40, from_files=True, on_gpu=True, cores=16) == 0
    assert choose_workers(images=1000, from_files=True, on_gpu=True, cores=16) == 8
    assert choose_workers(images=50_000, from_files=False, on_gpu=True, cores=4) == 4
    assert choose_workers(images=1000, from_files=True, on_gpu=False, cores=2) == 0
    assert choose_workers(images=1000, from_files=True, on_gpu=False, cores=8) == 2


def test_memory_is_pinned_only_where_a_cuda_device_trains(tmp_path: Path) -> None:
    module = digits()
    trainer(tmp_path, fast_dev_run=True).fit(Recorder(), datamodule=module)
    assert module.train_dataloader().pin_memory is False


@pytest.fixture
def uneven(image_folder: Callable[..., Path]) -> Callable[..., Folder]:
    """Twelve ants and three bees to train on."""
    root = image_folder(splits={"train": 12, "val": 3})
    for number in range(3, 12):
        (root / "train" / "bee" / f"{number:03d}.png").unlink()

    def made(**choices: Any) -> Folder:
        usual = {"batch_size": 5, "seed": 1, "num_workers": 0, "image_size": 24, "sampler": "balanced"}
        data = Folder(root=root, **(usual | choices))
        data.configure(SPEC)
        return data

    return made


def test_a_balanced_epoch(uneven: Callable[..., Folder]) -> None:
    data = uneven()
    [batches] = epochs(data.train_dataloader(), [2])
    targets = torch.cat([batch["targets"] for batch in batches])
    index = torch.cat([batch["index"] for batch in batches])
    images = torch.cat([batch["images"] for batch in batches])
    assert sorted(torch.bincount(targets).tolist()) == [7, 8]
    assert torch.equal(targets, torch.from_numpy(data.targets("train"))[index])
    bee = images[index == index[targets == 1][0]]
    assert len(bee) >= 2
    # The same image again in an epoch is augmented anew, as in another epoch.
    assert len({one.numpy().tobytes() for one in bee}) == len(bee)
    assert same(epochs(data.train_dataloader(), [2]), [batches])
    # Evaluation shows each image once, whatever training does.
    assert torch.cat([batch["index"] for batch in data.val_dataloader()]).tolist() == list(range(6))


@pytest.mark.parametrize("augment", ["light", "none", "keras"])
@pytest.mark.parametrize("views", [0, 2])
def test_a_balanced_epoch_from_decoded_images_is_the_same(
    uneven: Callable[..., Folder], augment: str, views: int
) -> None:
    data = uneven(augment=augment, **({"zoom_range": 0.3} if augment == "keras" else {}))
    decoded = DecodedImages.of(data, "train", augmented=True)
    assert decoded is not None
    loader = data.train_dataloader()
    loader.dataset.views = decoded.dataset.views = views  # type: ignore[attr-defined]
    rows = torch.from_numpy(np.concatenate(list(pixel_batches(decoded.dataset, range(15), batch_size=4, threads=1))))
    decode = decoded.decoder(channels_last=False)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for keys, batch in zip(loader.batch_sampler, loader, strict=True):  # type: ignore[arg-type]
            indices = np.array([index for _, index in keys])
            assert torch.equal(decode(rows[indices % 15], epoch, indices), batch["images"])


def test_a_balanced_sampler_needs_classes(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    root = image_folder(classes=("1", "2"))
    with pytest.raises(DataError, match=r"datamodule\.sampler=balanced needs one class an image; images has values"):
        Folder(root=root, batch_size=4, seed=0, task="regression", sampler="balanced").prepare()
