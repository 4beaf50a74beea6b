"""What tables of images, later keys and other tasks mean for a run's choices."""

from pathlib import Path

import pytest
from PIL import Image

from headstart.config import ResolvedRun, compose, resolve_run
from headstart.errors import ConfigError


def resolve(*overrides: str) -> ResolvedRun:
    given = [*overrides]
    if not any("weights=" in item or item == "strategy=scratch" for item in given):
        given.append("backbone.weights=bundled")
    return resolve_run(compose(given))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "ages.csv").write_text("path,age\n0.png,1\n1.png,2\n")
    return folder / "ages.csv"


def test_a_table_counts_by_its_lines_and_its_images_not_by_its_place(manifest: Path, tmp_path: Path):
    def fingerprint(path: Path) -> str:
        return resolve("datamodule=csv", f"datamodule.manifest={path}", "task=regression").fingerprint

    first = fingerprint(manifest)
    Image.new("RGB", (4, 4), (99, 0, 0)).save(manifest.parent / "2.png")  # not in the table
    moved = manifest.parent.rename(tmp_path / "elsewhere") / manifest.name
    assert fingerprint(moved) == first
    moved.write_text("path,age\n0.png,1\n1.png,3\n")
    second = fingerprint(moved)
    Image.new("RGB", (4, 4), (55, 0, 0)).save(moved.parent / "1.png")
    assert len({first, second, fingerprint(moved)}) == 3


def test_classes_in_the_order_of_their_numbers_are_another_result(manifest: Path, monkeypatch: pytest.MonkeyPatch):
    choices = ("datamodule=csv", f"datamodule.manifest={manifest}")
    manifest.write_text("path,age\n0.png,9\n1.png,10\n")
    ordered = [resolve(*choices, task).fingerprint for task in ("task=multiclass", "task=regression")]
    monkeypatch.setattr("headstart.data.manifest.sorts_by_number", lambda *_: False)
    before = [resolve(*choices, task).fingerprint for task in ("task=multiclass", "task=regression")]
    assert (ordered[0] == before[0], ordered[1] == before[1]) == (False, True)


def test_a_table_gives_the_run_its_name_and_its_images_their_folder(manifest: Path):
    run = resolve("datamodule=csv", f"datamodule.manifest={manifest}", "task=regression")
    assert run.key.startswith("ages-resnet18-linear-freeze")
    assert run.config["datamodule"]["root"] == str(manifest.parent)
    with pytest.raises(ConfigError, match=r"datamodule.manifest=nowhere.csv: there is no such file"):
        resolve("datamodule=csv", "datamodule.manifest=nowhere.csv")


def test_keys_that_came_later_leave_earlier_runs_theirs():
    from headstart.config.resolve import _described

    run = resolve()
    described = _described(run.config, run.weights, {})
    later = {"datamodule.classes", "datamodule.shear_range", "datamodule.steps_per_epoch", "datamodule.val_steps"}
    assert later <= {f"datamodule.{key}" for key in run.config["datamodule"]}
    assert not later & set(described)
    prints = {run.fingerprint} | {
        resolve(f"datamodule.{choice}").fingerprint for choice in ("classes=[3,8]", "steps_per_epoch=5", "val_steps=2")
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (("task=regression", "strategy=cotuning"), "task=regression does not go with this strategy"),
        (("task=multilabel", "strategy=delta", "strategy.attention=loss"), "needs one class an image"),
        (("task=multilabel", "head_init=probe"), "head_init=probe needs one class an image"),
        (("task=regression", "batch_transform=mixup"), "batch_transform.name=mixup needs one class"),
        (("datamodule.zoom_range=0.2",), "datamodule.augment=keras only"),
        (("task=binary",), "this data set has 10"),
        (("task=binary", "datamodule.classes=[1,2,3]"), "this data set has 3"),
        (("datamodule.classes=3",), r"datamodule.classes=3: must be a list"),
    ],
)
def test_what_does_not_go_together_is_told(overrides, match):
    with pytest.raises(ConfigError, match=match):
        resolve(*overrides)


def test_two_classes_of_ten_can_be_binary():
    assert resolve("task=binary", "datamodule.classes=[3,8]").config["task"] == "binary"


def test_an_experiment_may_name_weights_that_its_scratch_runs_replace(tmp_path: Path):
    """What the user gives with ``strategy=scratch`` is refused; what an experiment gives is for its other runs."""
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\n# Mine.\nbackbone:\n  weights: bundled\n")
    run = resolve_run(compose(["experiment=mine", "strategy=scratch"], config_dir=tmp_path))
    assert run.weights.kind == "none"
    assert run.weights.card["input_size"] == "3,64,64"
    with pytest.raises(ConfigError, match="weights=hub has no effect"):
        resolve_run(compose(["strategy=scratch", "backbone.weights=hub"]))
