"""What every strategy must hold on every backbone: see ``strategy_runs`` for how it is observed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from headstart.training.rates import check_phases


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


runs = _load("strategy_runs")

GRID = [(strategy, backbone) for strategy in runs.STRATEGIES for backbone in runs.BACKBONES]
FAST = {
    ("freeze", "mobilenetv3_small_100"),
    ("gradual", "vit_tiny_patch16_224"),
    ("l2sp", "small_cnn"),
    ("delta", "convnext_atto"),
    ("lora", "vit_tiny_patch16_224"),
    ("share", "small_cnn"),
    ("distill", "small_cnn"),
    ("full ema", "mobilenetv3_small_100"),
}
#: A small CNN without normalisation layers has nothing for these; a test of its own holds that it says so.
IMPOSSIBLE = {("norm_only", "small_cnn")}


def cases() -> list:
    marked = []
    for strategy, backbone in GRID:
        if (strategy, backbone) not in IMPOSSIBLE:
            marks = [] if (strategy, backbone) in FAST else [pytest.mark.slow]
            marked.append(pytest.param(strategy, backbone, marks=marks, id=f"{strategy}-{backbone}".replace(" ", "+")))
    return marked


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np
    from PIL import Image

    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in {"train": 4, "val": 2}.items():
        for number, label in enumerate(("ant", "bee", "cow")):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 96, (32, 32, 3))
                pixels[..., number] += 120
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{index}.png")
    return root


@pytest.mark.parametrize(("strategy", "backbone"), cases())
@pytest.mark.filterwarnings("ignore:Found .* module:UserWarning")
@pytest.mark.filterwarnings("ignore:.*exists and is not empty:UserWarning")
def test_the_contract(strategy: str, backbone: str, images: Path, tmp_path: Path):
    """Rules, movement, rates and modes in every phase; then a resume in the middle of each gives the same bits."""
    built = runs.build(images, strategy, backbone)
    info, phases = built.module.audit.info, built.module.plan.phases
    owned = [parameter.name for stage in info.stages for parameter in stage.parameters]
    assert sorted(owned) == sorted(name for name, _ in built.model.named_parameters())
    check_phases(phases, info, max_epochs=built.config["trainer"]["max_epochs"])

    observer = runs.Observer(built)
    runs.train(built, observer, runs.every_epoch(tmp_path))
    assert observer.problems == []
    assert observer.phases_seen == [phase.name for phase in phases]
    outcome = built.module.audit.finish()
    assert outcome["violations"] == []
    whole = runs.state_of(built.model)

    for epoch in runs.middles(phases):
        again = runs.build(images, strategy, backbone)
        runs.train(again, runs.every_epoch(tmp_path), resume=tmp_path / f"epoch{epoch}.ckpt")
        assert again.module.audit.finish()["violations"] == []
        resumed = runs.state_of(again.model)
        different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
        assert different == [], f"resumed after epoch {epoch}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_layers_unfrozen_later_learn_in_a_compiled_network(images: Path):
    """A graph traced while they were frozen must not be used again."""
    built = runs.build(images, "gradual", "resnet18", "trainer.compile=true")
    observer = runs.Observer(built)
    runs.train(built, observer)
    assert observer.problems == []
    assert built.module.audit.finish()["violations"] == []


def test_a_network_without_normalisation_has_nothing_for_norm_only(images: Path):
    from headstart.errors import ConfigError

    with pytest.raises(ConfigError, match="norm_only finds nothing to train"):
        runs.build(images, "norm_only", "small_cnn")
