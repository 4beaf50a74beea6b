"""Strategies through whole runs: a user's own one, what a run leaves behind, several processes, a plan."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.commands.cli import main
from headstart.config import compose, resolve_run
from headstart.execution.load import load
from headstart.runs.directory import find_runs
from headstart.runs.result import Result
from headstart.training.checkpoints import BEST, FINAL_FILE

TINY = (
    "backbone=resnet18",
    "backbone.weights=none",
    "+backbone.layers=[1,1,1,1]",
    "datamodule=folder",
    "datamodule.image_size=32",
    "datamodule.batch_size=4",
    "datamodule.num_workers=0",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=1",
    "cache=off",
    "callbacks.progress=none",
    "callbacks.plots=false",
)
OWN = '''
from dataclasses import dataclass

from headstart.strategies import ModelInfo, Phase, Strategy, one_phase, stage_group


@dataclass(frozen=True)
class TopStage(Strategy):
    """The last stage and the head learn."""

    lr_mult: float = 1.0

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        top = model.backbone_stages[-1]
        return one_phase("top", [stage_group(top, lr_mult=self.lr_mult), stage_group(model.head)], max_epochs)


@dataclass(frozen=True)
class MyFreeze(Strategy):
    """The head learns."""

    only_head_learns = True

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        return one_phase("head", [stage_group(model.head)], max_epochs)
'''


@pytest.fixture
def train(image_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[Path, Result]]:
    root = image_folder(splits={"train": 4, "val": 4})

    def run(*overrides: str, config_dir: Path | None = None) -> tuple[Path, Result]:
        from headstart.execution.train import train as train_one

        output = tmp_path / "outputs"
        before = set(find_runs(output))
        chosen = [*TINY, f"datamodule.root={root}", f"paths.output_dir={output}", *overrides]
        result = train_one(resolve_run(compose(chosen, config_dir=config_dir))).result
        (made,) = set(find_runs(output)) - before
        return made, result

    return run


def test_a_strategy_from_outside_the_package(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A user's own file and YAML, found through Hydra's search path."""
    (tmp_path / "my_strategies.py").write_text(OWN)
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "top_stage.yaml").write_text(
        "# Train the last stage and the head.\n_target_: my_strategies.TopStage\nlr_mult: 0.1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path, result = train("strategy=top_stage", "strategy.lr_mult=0.5", config_dir=tmp_path / "conf")
    assert result.status == "done"
    assert result.config["strategy"] == "top_stage"
    table = {row["stage"]: row for row in _audit(path)["phases"][0]["stages"]}
    *frozen, top, head = table
    assert [name for name, row in table.items() if row["trainable"]] == [top, head]
    assert len(frozen) == 4
    assert table[top]["lr"][0] == pytest.approx(table[head]["lr"][0] / 2)


def test_a_head_is_solved_for_under_a_frozen_strategy_of_ones_own(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_strategies.py").write_text(OWN)
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "my_freeze.yaml").write_text("# Head only.\n_target_: my_strategies.MyFreeze\n")
    monkeypatch.syspath_prepend(tmp_path)
    _, result = train("strategy=my_freeze", "head=logreg", config_dir=tmp_path / "conf")
    assert result.status == "done"
    assert "l2" in str(result.details)


def _audit(path: Path) -> dict:
    import json

    return json.loads((path / "audit.json").read_text())


def validated(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the validation images, as recorded by the run and as given by the model that it left."""
    loaded = load(path)
    recorded = np.load(path / "predictions_val.npz")
    from PIL import Image

    root = Path(loaded.config["datamodule"]["root"]) / "val"
    names = {image.relative_to(root).as_posix(): image for image in root.rglob("*.png")}
    images = [names[str(name).removeprefix("val/")] for name in recorded["ids"]]
    batch = torch.stack([loaded.transform(Image.open(image).convert("RGB")) for image in images])
    with torch.no_grad():
        outputs = loaded.network(batch)
    return recorded["probabilities"], loaded.task.probabilities(outputs).numpy()


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["strategy=lora", "strategy.rank=2"], id="lora"),
        pytest.param(["strategy=wise_ft", "head_init=probe", "strategy.alphas=[0.0,0.5]"], id="wise_ft"),
        pytest.param(["strategy=full", "ema.decay=0.5"], id="ema", marks=pytest.mark.slow),
        pytest.param(["strategy=share"], id="share", marks=pytest.mark.slow),
        pytest.param(["strategy=full", "batch_transform=cutmix", "head_epochs=1"], id="mixed", marks=pytest.mark.slow),
    ],
)
def test_a_finished_run_gives_the_model_that_was_scored(overrides, train, image_folder):
    if "strategy=share" in overrides:
        other = image_folder(splits={"train": 4, "val": 4}, classes=("cat", "dog", "eel"), name="other")
        overrides = [
            *overrides,
            "+datamodule@sources.other.datamodule=folder",
            f"sources.other.datamodule.root={other}",
            "sources.other.datamodule.num_workers=0",
        ]
    if "head_epochs=1" in overrides:
        overrides = [*overrides, "trainer.max_epochs=2"]
    path, result = train(*overrides)
    recorded, rebuilt = validated(path)
    np.testing.assert_allclose(rebuilt, recorded, rtol=1e-3, atol=1e-4)
    if "strategy=share" in overrides:
        assert {"other/val/acc", "other/val/loss", "val/acc"} <= result.metrics.keys()
        assert not any(name.startswith("auxiliary") for name, _ in load(path).network.named_parameters())
    if "strategy=lora" in overrides:
        saved = torch.load(path / "checkpoints" / f"{BEST}.ckpt", weights_only=True)["state_dict"]
        assert all(".lora_" in name or name.startswith("model.head.") for name in saved)
        assert any(".lora_" in name for name in saved)
        assert not any(".lora_" in name for name, _ in load(path).network.named_parameters())
    if "strategy=wise_ft" in overrides:
        assert (path / "checkpoints" / FINAL_FILE).exists()
        assert set(result.details["strategy"]["scores"]) == {"0.0", "0.5"}


def test_a_plan_says_everything_and_leaves_nothing(image_folder, tmp_path: Path, capsys):
    root, output = image_folder(splits={"train": 4, "val": 2}), tmp_path / "outputs"
    choices = [*TINY, f"datamodule.root={root}", f"paths.output_dir={output}", "trainer.max_epochs=4"]
    assert main(["train", *choices, "strategy=lp_ft", "plan=true"]) == 0
    said = capsys.readouterr().out
    for word in ("probe, epochs 1 to 2", "finetune, epochs 3 to 4", "layer4", "8 images an epoch in 2 steps", "MiB"):
        assert word in said
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "gradual", "lora"])
def test_two_processes_have_the_gradients_of_one(strategy: str, image_folder, tmp_path: Path):
    """With plain gradient descent, what the weights moved is the sum of the gradients."""
    root = image_folder(splits={"train": 8, "val": 4})
    common = [
        *TINY,
        f"datamodule.root={root}",
        f"strategy={strategy}",
        "batchnorm=eval",
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.weight_decay=0",
        "optimizer.lr=0.05",
        "scheduler=none",
        "trainer.max_epochs=3",
        *(["strategy.full_by=0.7"] if strategy == "gradual" else []),
    ]
    one = states(tmp_path / "one", *common, "datamodule.batch_size=8")
    two = states(tmp_path / "two", *common, "trainer=ddp_cpu", "datamodule.batch_size=4", "trainer.devices=2")
    assert one.keys() == two.keys()
    assert len(one) > 2
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def states(output: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights at the end of a run as a command."""
    command = [sys.executable, "-m", "headstart", "train", *overrides, f"paths.output_dir={output}"]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = find_runs(output)
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
