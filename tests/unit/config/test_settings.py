"""The choices of a run as types."""

from dataclasses import replace

import pytest

from headstart.config import Component, compose, resolve_run
from headstart.config.settings import TrainerSettings

QUICK = ("backbone.weights=bundled", "trainer=cpu")


def test_what_was_chosen_has_a_type_and_nothing_is_left_out():
    run = resolve_run(
        compose([*QUICK, "strategy=lp_ft", "head=mlp", "ema.decay=0.9", "trainer.precision=32-true", "seed=4"])
    )
    settings = run.settings
    assert settings.strategy.target == "headstart.strategies.LpFt"
    assert settings.strategy.arguments["probe_lr_mult"] == 10.0
    assert "_target_" not in settings.head.arguments
    assert (settings.seed, settings.ema.decay, settings.trainer.accelerator) == (4, 0.9, "cpu")
    assert (settings.lr, settings.weight_decay, settings.scheduler["name"]) == (1e-3, 0.01, "cosine")
    assert settings.cache.max_bytes == 20 * 10**9
    assert settings.callbacks.checkpoint.every_n_epochs == 1
    assert set(settings.trainer.switches) == set(run.config["trainer"]) - {"channels_last", "compile"}


def test_settings_follow_the_choices_that_they_stand_for():
    run = resolve_run(compose(QUICK))
    assert run.settings.callbacks.plots
    changed = replace(run, config={**run.config, "callbacks": {**run.config["callbacks"], "plots": False}})
    assert not changed.settings.callbacks.plots
    assert run.settings.callbacks.plots


def test_a_head_in_closed_form_has_nothing_to_build_for_an_optimizer():
    settings = resolve_run(compose([*QUICK, "head=ncm"])).settings
    assert settings.optimizer == Component("", {"name": "none"})
    assert settings.weight_decay == 0.0


def test_a_further_task_has_data_of_its_own_and_the_runs_head():
    other = "+datamodule@sources.other.datamodule=digits"
    settings = resolve_run(compose([*QUICK, "strategy=share", other, "+sources.other.task=multiclass"])).settings
    source = settings.sources["other"]
    assert source.datamodule.target == "headstart.data.Digits"
    assert (source.task, source.head) == ("multiclass", None)


@pytest.mark.parametrize(
    ("devices", "nodes", "processes", "distributed"),
    [(1, 1, 1, False), ([3], 1, 1, False), ([0, 2], 1, 2, True), (2, 1, 2, True), (1, 2, 1, True)],
)
def test_several_devices_or_machines_make_a_run_distributed(devices, nodes, processes, distributed):
    choice = dict(resolve_run(compose(QUICK)).config["trainer"], devices=devices, num_nodes=nodes)
    trainer = TrainerSettings.of(choice)
    assert (trainer.processes, trainer.distributed) == (processes, distributed)


def test_a_component_is_built_with_its_arguments_and_more():
    counter = Component.of({"_target_": "collections.Counter", "a": 2})
    assert counter.build(b=1) == {"a": 2, "b": 1}
    assert counter.partial()(b=3) == {"a": 2, "b": 3}
    assert counter.without("a") == Component("collections.Counter")
    from collections import Counter

    assert counter.factory is Counter


def test_the_run_directory_is_named_by_the_run_and_its_record_says_which_results_version(tmp_path):
    from headstart.config import RESULTS_VERSION

    run = resolve_run(compose([*QUICK, "name=mine", f"paths.output_dir={tmp_path}", "rerun=all"]))
    directory = run.directory()
    assert directory.path == tmp_path / "mine" / f"{run.key}-{run.fingerprint[:8]}"
    assert directory.rerun == "all"
    assert run.record()["results_version"] == RESULTS_VERSION
    assert run.flat()["study"] == "mine"
