"""Images with a class for every pixel: reading, checks before training, and transforms that move both alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.data import InputSpec, MaskFolder, MaskTable, Shapes
from headstart.data.datamodule import ImageDataModule
from headstart.errors import DataError

CHOICES = {"batch_size": 4, "seed": 0, "task": "segmentation", "num_workers": 0}
#: Colours by which a pixel of these images says its class; no mixture of two is the third.
COLOURS = (20 + 200 * np.eye(3)).astype(np.uint8)


def pair(
    folder: Path, name: str, *, size: tuple[int, int] = (40, 30), seed: int = 0, suffix: str = "png"
) -> np.ndarray:
    """An image whose colours say the class in its mask, with a border that does not count."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 3, (3, 4), dtype=np.uint8)
    mask = blocks.repeat(size[1] // 3, axis=0).repeat(size[0] // 4, axis=1)
    Image.fromarray(COLOURS[mask]).save(folder / "images" / f"{name}.{suffix}")
    mask[0] = 255
    palette = Image.fromarray(mask)
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tolist())
    palette.save(folder / "masks" / f"{name}.png")
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("Validation", 3)):
        for number in range(count):
            pair(tmp_path / split, f"{number}", seed=number + 10 * count)
    return tmp_path


def loaded(data: ImageDataModule, size: tuple[int, int] = (30, 40)) -> ImageDataModule:
    data.prepare()
    data.configure(InputSpec(height=size[0], width=size[1], crop_pct=0.5))
    return data


def test_a_folder_gives_images_with_masks(folder: Path):
    data = loaded(MaskFolder(root=folder, class_names=["ground", "tree", "car"], augment="none", **CHOICES))
    assert data.sizes == {"train": 6, "val": 3}
    assert data.classes == ("ground", "tree", "car")
    (batch,) = data.val_dataloader()
    wanted = np.stack([np.asarray(Image.open(folder / "Validation/masks" / f"{n}.png")) for n in range(3)])
    assert torch.equal(batch["targets"], torch.from_numpy(wanted))
    shares = data.targets("val")
    inside = wanted[1][wanted[1] != 255]
    np.testing.assert_allclose(shares[1], np.bincount(inside, minlength=3) / inside.size, rtol=1e-6)
    summary = data.summary()
    assert summary["class_shares"]["val"] == pytest.approx(shares.mean(axis=0).tolist(), abs=1e-6)
    assert loaded(MaskFolder(root=folder, augment="none", **CHOICES)).classes == ("0", "1", "2")


def test_a_table_gives_the_same(folder: Path):
    parts = [("train", "train", n) for n in range(6)] + [("Validation", "val", n) for n in range(3)]
    lines = [f"{folder}/images/{n}.png,{folder}/masks/{n}.png,{split}" for folder, split, n in parts]
    table = folder / "list.csv"
    table.write_text("\n".join(["path,mask,split", *lines]))
    found = loaded(MaskTable(manifest=table, augment="none", **CHOICES))
    wanted = loaded(MaskFolder(root=folder, augment="none", **CHOICES))
    assert found.summary()["split_fingerprints"] == wanted.summary()["split_fingerprints"]
    assert torch.equal(next(iter(found.val_dataloader()))["targets"], next(iter(wanted.val_dataloader()))["targets"])


def test_splits_are_carved_where_there_are_none(tmp_path: Path):
    for number in range(10):
        pair(tmp_path, f"{number}", seed=number)
    data = loaded(MaskFolder(root=tmp_path, val_fraction=0.2, test_fraction=0.3, augment="none", **CHOICES))
    assert data.sizes == {"train": 5, "val": 2, "test": 3}
    (batch,) = data.test_dataloader()
    for name, mask in zip(data.records("test").ids, batch["targets"], strict=True):
        stored = np.array(Image.open(tmp_path / name.replace("images", "masks")))
        assert torch.equal(mask, torch.from_numpy(stored))


def spoil(folder: Path, what: str) -> None:
    mask = folder / "train" / "masks" / "3.png"
    if what == "missing":
        mask.unlink()
    elif what == "size":
        Image.new("L", (41, 30)).save(mask)
    elif what == "value":
        Image.new("L", (40, 30), 9).save(mask)
    elif what == "colour":
        Image.new("RGB", (40, 30)).save(mask)
    elif what == "damaged":
        mask.write_bytes(mask.read_bytes()[:80])
    elif what == "deep":
        Image.fromarray(np.full((30, 40), 300, dtype=np.uint16)).save(mask)
    elif what == "negative":
        Image.fromarray(np.full((30, 40), -1, dtype=np.int32)).save(mask, "TIFF")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", r"train/images/3.png has no mask train/masks/3.png in .*; add it, or take the image out"),
        (
            "size",
            r"train/masks/3.png is 41 x 30 pixels and its image train/images/3.png is 40 x 30; both",
        ),
        (
            "value",
            r"train/masks/3.png has the class number 9, and datamodule.class_names names 3 classes \(0 to 2; 255",
        ),
        ("colour", r"masks/3.png cannot be read as a mask: it has colours \(RGB\); a mask is a palette or grayscale"),
        ("damaged", r"masks/3.png cannot be read as a mask: "),
        ("deep", r"masks/3.png has the value 300; class numbers are 0 to 254, and 255 does not count"),
        ("negative", r"masks/3.png has the value -1; class numbers are 0 to 254, and 255 does not count"),
    ],
)
def test_a_wrong_mask_is_one_line_with_its_name(folder: Path, what: str, said: str):
    spoil(folder, what)
    for _ in range(2):  # what is remembered says the same
        data = MaskFolder(root=folder, class_names=["a", "b", "c"], memory_path=folder / "memory", **CHOICES)
        with pytest.raises(DataError, match=said) as raised:
            data.prepare()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", r"list.csv, line 5: train/images/3.png has no mask train/masks/3.png in "),
        ("size", r"list.csv, line 5: train/masks/3.png is 41 x 30 pixels and its image train/images/3.png is 40 x 30"),
        ("value", r"list.csv, line 5: train/masks/3.png has the class number 9, and datamodule.class_names names 3"),
        ("colour", r"list.csv, line 5: .*masks/3.png cannot be read as a mask: it has colours"),
        ("image", r"list.csv, line 5: train/images/3.png is not in .*; set datamodule.root"),
    ],
)
def test_a_wrong_mask_of_a_table_is_told_with_its_line(folder: Path, what: str, said: str):
    lines = [f"train/images/{n}.png,train/masks/{n}.png,train" for n in range(6)]
    (folder / "list.csv").write_text("\n".join(["path,mask,split", *lines]))
    if what == "image":
        (folder / "train" / "images" / "3.png").unlink()
    spoil(folder, what)
    for _ in range(2):
        data = MaskTable(manifest=folder / "list.csv", class_names=["a", "b", "c"], **CHOICES)
        with pytest.raises(DataError, match=said) as raised:
            data.prepare()
        assert "\n" not in str(raised.value)


def test_two_images_of_one_mask_are_told(folder: Path):
    Image.new("RGB", (40, 30)).save(folder / "train" / "images" / "3.jpg")
    with pytest.raises(
        DataError, match=r"train/images/3\.\w+ and train/images/3\.\w+ have one mask by name, train/masks/3"
    ):
        MaskFolder(root=folder, **CHOICES).prepare()


def test_two_folders_of_one_split_are_told_and_others_are_noted(folder: Path):
    pair(folder / "holdout", "0")
    assert MaskFolder(root=folder, **CHOICES).load().notes == {"ignored_folders": ["holdout"]}
    pair(folder / "val", "0")
    with pytest.raises(DataError, match=r"several folders for the val split \(Validation, val\); keep one"):
        MaskFolder(root=folder, **CHOICES).prepare()


def test_a_damaged_orientation_is_none(folder: Path):
    place = folder / "train" / "images" / "3.png"
    Image.open(place).save(place, exif=b"Exif\0\0garbage")
    assert loaded(MaskFolder(root=folder, **CHOICES)).sizes == {"train": 6, "val": 3}


def test_what_was_looked_at_is_remembered_by_content(folder: Path):
    memory = folder / "memory"
    first = loaded(MaskFolder(root=folder, memory_path=memory, **CHOICES)).targets("train")
    assert np.array_equal(loaded(MaskFolder(root=folder, memory_path=memory, **CHOICES)).targets("train"), first)
    Image.new("L", (40, 30), 2).save(folder / "train" / "masks" / "0.png")
    changed = loaded(MaskFolder(root=folder, memory_path=memory, **CHOICES)).targets("train")
    assert changed[0].tolist() == [0, 0, 1]
    assert np.array_equal(changed[1:], first[1:])


def test_a_folder_without_masks_says_how_to_lay_it_out(tmp_path: Path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match=r"has no images and masks; lay it out as root/\{train,val,test\}"):
        MaskFolder(root=tmp_path, **CHOICES).prepare()


def test_masks_need_the_task_and_the_task_needs_masks(folder: Path):
    with pytest.raises(DataError, match=r"task=multiclass does not fit: .* has masks; .*task=segmentation head=dense"):
        MaskFolder(root=folder, **{**CHOICES, "task": "multiclass"}).prepare()


def test_an_augmentation_that_leaves_masks_behind_is_refused(folder: Path):
    with pytest.raises(DataError, match="randaug would move images without their masks"):
        loaded(MaskFolder(root=folder, augment="randaug", **CHOICES))


@pytest.mark.parametrize("augment", ["none", "light", "keras"])
@pytest.mark.parametrize("size", [(30, 40), (64, 48)])
def test_images_and_masks_move_alike(folder: Path, augment: str, size: tuple[int, int]):
    """Each pixel's colour says its class: away from edges it must be that of the mask, in every epoch."""
    more = {"shear_range": 10.0, "zoom_range": 0.3} if augment == "keras" else {}
    data = loaded(MaskFolder(root=folder, augment=augment, min_crop=0.3, **more, **CHOICES), size)
    dataset, mean, std = data.dataset("train", augmented=True), *map(np.array, (data.spec.mean, data.spec.std))
    kept: list[np.ndarray] = []
    for epoch in range(4):
        for index in range(6):
            item = dataset[epoch, index]
            mask = item["targets"].numpy()
            pixels = 255 * (item["images"].numpy().transpose(1, 2, 0) * std + mean)
            assert mask.shape == size
            assert set(np.unique(mask)) <= {0, 1, 2, 255}
            said, sure = pixels.argmax(axis=-1), pixels.max(axis=-1) > 215
            counts = sure & (mask != 255)
            assert counts.mean() > 0.5
            assert (said == mask)[counts].mean() > 0.995
            kept.append(mask)
    moved = any(not np.array_equal(kept[index], kept[6 + index]) for index in range(6))
    assert moved == (augment != "none")


def test_a_class_number_is_never_made_up_by_resizing(folder: Path):
    data = loaded(MaskFolder(root=folder, augment="none", **CHOICES), (17, 23))
    for index in range(6):
        assert set(np.unique(data.dataset("train")[index]["targets"])) <= {0, 1, 2, 255}


def test_shapes_are_a_function_of_their_seed():
    first, same, other = (loaded(Shapes(images=20, data_seed=seed, **CHOICES)) for seed in (0, 0, 1))
    assert first.summary()["content"] == same.summary()["content"] != other.summary()["content"]
    assert first.classes == ("background", "disc", "square", "triangle")
    masks = [first.records("train").masks.read(place) for place in range(first.sizes["train"])]
    assert {int(value) for mask in masks for value in np.unique(mask)} == {0, 1, 2, 3, 255}
    longer = Shapes(images=30, data_seed=0, **CHOICES)
    longer.prepare()
    known = dict(zip(longer.records("train").ids, longer.records("train").digests, strict=True))
    assert known["shapes/00"] in {d for s in first.sizes for d in first.records(s).digests}


def test_another_mask_is_other_data(folder: Path):
    before = loaded(MaskFolder(root=folder, **CHOICES)).summary()
    mask = np.asarray(Image.open(folder / "train/masks/0.png"))
    Image.fromarray(mask[:, ::-1].copy()).save(folder / "train/masks/0.png")
    after = loaded(MaskFolder(root=folder, **CHOICES)).summary()
    assert before["split_fingerprints"]["train"] != after["split_fingerprints"]["train"]
    assert before["split_fingerprints"]["val"] == after["split_fingerprints"]["val"]
