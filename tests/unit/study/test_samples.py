"""What is marked on an arm: what it was fitted on, whether it had come to rest, how its choice flatters it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headstart.runs.reader import RunRecord, read_runs
from headstart.study.samples import chosen_on_score, fitted_images, unconverged
from headstart.study.verdict import verdicts

if TYPE_CHECKING:
    from conftest import StudyWriter


def with_details(path: Path, **details: object) -> Path:
    result = json.loads((path / "result.json").read_text())
    result["details"] |= details
    (path / "result.json").write_text(json.dumps(result))
    return path


def runs(writer: "StudyWriter", strategy: str) -> list[RunRecord]:
    return [run for run in read_runs(writer.root) if run.choices["strategy"] == strategy]


def test_images_fitted_are_those_of_the_solution_where_the_head_refits(writer: "StudyWriter") -> None:
    writer.run("full", 1)
    with_details(writer.run("freeze", 1), closed_form={"refit": True, "images": 490})
    assert (fitted_images(runs(writer, "full")), fitted_images(runs(writer, "freeze"))) == (400, 490)


@pytest.mark.parametrize(
    ("best", "fall", "early"), [(7, 0.3, True), (7, 0.01, False), (4, 0.3, False), (7, None, False)]
)
def test_an_arm_whose_best_epoch_is_its_last_and_whose_loss_still_falls_had_not_finished(
    writer: "StudyWriter", best: int, fall: float | None, early: bool
) -> None:
    for seed in range(1, 6):
        fit = {"best_epoch": best, "last_epoch": 7, "train_loss_fall": fall}
        with_details(writer.run("full", seed), fit=fit)
        with_details(writer.run("freeze", seed), fit={"best_epoch": 3, "last_epoch": 7, "train_loss_fall": 0.2})
    assert unconverged(runs(writer, "full")) == early
    assert not unconverged(runs(writer, "freeze"))
    _, [(analysis, words)] = verdicts(read_runs(writer.root))
    assert [arm.value for arm in analysis.arms if arm.unconverged] == (["full"] if early else [])
    assert words.headline.endswith("But full fine-tuning (full) had not finished learning.") == early


def test_what_had_not_finished_is_named_with_its_key_where_it_is_no_strategy(writer: "StudyWriter") -> None:
    for seed in range(1, 6):
        for weights, skill in (("none", 1.0), ("bundled", 3.0)):
            fit = {"best_epoch": 7, "last_epoch": 7, "train_loss_fall": 0.3 if weights == "none" else 0.0}
            run = writer.run("full", seed, skill=skill, config={"backbone.weights": weights})
            with_details(run, fit=fit)
    _, [(_, words)] = verdicts(read_runs(writer.root))
    assert words.headline.endswith("But backbone.weights=none had not finished learning.")


def test_a_gain_over_a_scratch_that_still_learns_is_said_to_be_too_large(writer: "StudyWriter") -> None:
    for seed in range(1, 6):
        writer.run("freeze", seed)
        writer.run("full", seed)
        with_details(writer.run("scratch", seed), fit={"best_epoch": 7, "last_epoch": 7, "train_loss_fall": 0.4})
    _, [(_, words)] = verdicts(read_runs(writer.root))
    (gain,) = [point for point in words.points if point.startswith("Transfer gain")]
    assert gain.endswith("but scratch was still learning when it ended, so the gain is overstated.")


def test_choosing_the_epoch_on_the_score_flatters_by_what_the_runs_have_noted(writer: "StudyWriter") -> None:
    for seed, size in enumerate((0.01, 0.02)):
        with_details(writer.run("full", seed, test=False), choice={"optimism": size, "epochs": 8, "images": 90})
    assert chosen_on_score(runs(writer, "full"), "val/acc") == pytest.approx(0.015)
    assert chosen_on_score(runs(writer, "full"), "val/f1") is None


def test_without_a_test_split_the_report_says_how_much_too_good_and_how_to_get_one(writer: "StudyWriter") -> None:
    from headstart.study.decision import cautions

    for seed in range(1, 4):
        for strategy, size in (("freeze", 0.004), ("full", 0.021)):
            path = writer.run(strategy, seed, test=False)
            with_details(path, choice={"optimism": size, "epochs": 8, "images": 90})
    _, [(analysis, _)] = verdicts(read_runs(writer.root))
    (said,) = [text for text in cautions(analysis) if text.startswith("There is no test split")]
    assert "by about full 2.1 points; freeze 0.4 points" in said
    assert "datamodule.test_fraction=0.2" in said
