"""A sweep's jobs have the configurations that Hydra would compose for each."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from headstart.system.catalog import conf_dir
from hydra_plugins.headstart._composing import SweepComposer

JOBS = (
    ["optimizer.lr=0.1", "seed=1"],
    ["seed=2", "optimizer.lr=1e-3"],
    ["strategy=full", "strategy.backbone_lr_mult=0.1", "trainer.max_epochs=3"],
    ["strategy.backbone_lr_mult=0.1", "strategy=full", "~strategy.backbone_lr_mult"],
    ["strategy=freeze", "seed=3"],
    ["name='a, b'", "datamodule=digits", "datamodule.shots=10"],
    ["experiment=smoke", "optimizer.lr=0.5"],
    ["optimizer.lr=${seed}", "seed=7"],
    ["optimizer.lr=0.1", "optimizer.lr=0.2"],
    ["++trainer.log_every_n_steps=5", "trainer.log_every_n_steps=6"],
    ["strategy.backbone_lr_mult=null", "strategy=full"],
    ["logger=[csv]", "seed=4"],
    ["hydra.job.chdir=false", "seed=5"],
)
MISTAKES = (["optimizer.nothing=1"], ["strategy=nothing"], ["strategy=full", "strategy.k=1", "seed=2"], ["seed.x=1"])


@pytest.fixture
def both():
    """A sweep's composer, and what Hydra composes for one job."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3", job_name="headstart"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", overrides=["seed=1,2"], run_mode=RunMode.MULTIRUN)
        yield SweepComposer(loader, config), lambda job: loader.load_sweep_config(config, job)
    GlobalHydra.instance().clear()


def test_equals_what_hydra_composes(both):
    composer, hydra = both
    for job in JOBS:
        found, expected = composer.compose(job), hydra(job)
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected), job


def test_a_job_does_not_see_the_values_of_another(both):
    composer, _ = both
    composer.compose(["optimizer.lr=0.5"])
    assert composer.compose(["seed=3"]).optimizer.lr != 0.5


def test_jobs_that_differ_in_plain_values_are_composed_once(both, monkeypatch):
    composer, _ = both
    composed = []
    load = composer._loader.load_sweep_config
    monkeypatch.setattr(composer._loader, "load_sweep_config", lambda *args: composed.append(args) or load(*args))
    for lr in (0.1, 0.2, 0.3):
        for strategy in ("freeze", "full"):
            composer.compose([f"strategy={strategy}", "datamodule=digits", "datamodule.shots=5", f"optimizer.lr={lr}"])
    assert len(composed) == 2


@pytest.mark.parametrize("job", MISTAKES, ids=str)
def test_says_of_a_mistake_what_hydra_says(both, job):
    composer, hydra = both
    with pytest.raises(HydraException) as expected:
        hydra(job)
    with pytest.raises(HydraException) as found:
        composer.compose(job)
    assert str(found.value) == str(expected.value)
