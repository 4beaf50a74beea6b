"""The numbers and the words of a study whose answer is known."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from scipy import stats

from headstart.errors import RunError
from headstart.runs.reader import read_runs
from headstart.study.analysis import Analysis, aggregate, analyse, primary_metric
from headstart.study.compare import design, separate
from headstart.study.verdict import FULL_NAMES, GLOSSARY, verdict

if TYPE_CHECKING:
    from conftest import StudyWriter


def analysed(writer: "StudyWriter", **options: str) -> list[Analysis]:
    found = []
    for table in separate(read_runs(writer.root)):
        layout = design(table)
        assert layout is not None
        found.append(analyse(table, layout, **options))
    return found


def test_numbers_are_those_of_the_runs(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], range(1, 9))
    (analysis,) = analysed(writer)
    scores = {
        name: [run.metrics["test/acc"] for run in read_runs(writer.root) if run.choices["strategy"] == name]
        for name in ("freeze", "full")
    }
    assert analysis.metric.name == "test/acc"
    assert [arm.metrics["test/acc"].mean for arm in analysis.arms] == pytest.approx(
        [sum(scores[name]) / 8 for name in ("freeze", "full")]
    )
    (difference,) = analysis.differences
    assert difference.paired is not None
    # Runs sort by seed within a strategy, so the lists are paired.
    expected = stats.permutation_test(
        ([a - b for a, b in zip(scores["full"], scores["freeze"], strict=True)],),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
    )
    assert difference.paired.p == pytest.approx(expected.pvalue)
    assert difference.verdict == "better"


def test_better_in_words_with_costs_and_gain(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full", "scratch"], range(1, 9))
    (analysis,) = analysed(writer)
    words = verdict(analysis)
    assert words.headline.startswith("Full fine-tuning (full) beats feature extraction (freeze) by ")
    assert "8 seeds, p = 0.008" in words.headline
    text = " ".join(words.points)
    assert "scratch falls short of freeze" in text
    assert "full takes 4." in text
    assert "2,180 times as many bytes" in text
    assert "Transfer gain: starting full from pretrained instead of random weights" in text
    assert {item.value: item.verdict for item in analysis.gains} == {"freeze": "better", "full": "better"}


def test_three_seeds_are_too_few_to_tell(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2, 3])
    (analysis,) = analysed(writer)
    assert analysis.differences[0].verdict == "too few"
    assert "n=3 can never reach p<0.05." in verdict(analysis).headline


def test_many_comparisons_can_make_seeds_too_few(writer: "StudyWriter") -> None:
    for seed in range(1, 7):
        for strategy in ("freeze", "full", "lp_ft", "bitfit"):
            writer.run(strategy, seed)
    (analysis,) = analysed(writer)
    # Six seeds reach 1/32 at best, and Holm multiplies that by three.
    assert {item.verdict for item in analysis.differences} == {"too few"}
    assert "n=6 can never reach p<0.05 with 3 comparisons at once" in verdict(analysis).headline
    (declared,) = analysed(writer, primary="full")
    assert {item.value: (item.family, item.primary) for item in declared.differences} == {
        "full": (1, True),
        "lp_ft": (2, False),
        "bitfit": (2, False),
    }


def test_the_question_can_be_declared_in_the_configuration(writer: "StudyWriter") -> None:
    for seed in range(1, 7):
        for strategy in ("freeze", "full", "lp_ft"):
            writer.run(strategy, seed, composed={"study": {"primary": "full"}})
    (analysis,) = analysed(writer)
    assert {item.value: (item.family, item.primary) for item in analysis.differences} == {
        "full": (1, True),
        "lp_ft": (1, False),
    }


def test_no_difference_is_said_as_such(writer: "StudyWriter") -> None:
    for seed in range(1, 9):
        writer.run("freeze", seed, skill=1.6)
        writer.run("full", seed, skill=1.6)
    (analysis,) = analysed(writer)
    assert analysis.differences[0].verdict == "no difference"
    assert verdict(analysis).headline.startswith("No significant difference between full fine-tuning (full)")


def test_seeds_that_do_not_match_are_not_compared(writer: "StudyWriter") -> None:
    writer.study(["freeze"], [1, 2])
    writer.study(["full"], [3, 4])
    (analysis,) = analysed(writer)
    assert analysis.differences[0].verdict == "unpaired"
    assert "have no seed in common" in verdict(analysis).headline


def test_a_lower_loss_is_better(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], range(1, 9))
    (analysis,) = analysed(writer, metric="test/loss")
    assert not analysis.metric.higher_is_better
    assert analysis.differences[0].paired is not None
    assert analysis.differences[0].paired.mean < 0
    assert analysis.differences[0].verdict == "better"


def test_without_a_test_split_validation_decides(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        writer.run("freeze", seed, test=False)
        writer.run("full", seed, test=False)
    assert analysed(writer)[0].metric.name == "val/acc"


def test_an_unknown_metric_is_an_error(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1])
    with pytest.raises(RunError, match="'test/f1' is not in every run"):
        primary_metric(separate(read_runs(writer.root))[0], "test/f1")


def test_the_crossing_of_two_curves_is_the_headline(writer: "StudyWriter") -> None:
    for seed in range(1, 9):
        for shots, freeze, full in ((2, 1.6, 0.6), (5, 1.7, 1.2), (10, 1.8, 2.4), (20, 1.9, 3.4)):
            # The writer adds its own growth with shots; undo it, so that the curves are as given.
            growth = math.log(shots / 10)
            writer.run("freeze", seed, shots=shots, skill=freeze - 0.5 * growth)
            writer.run("full", seed, shots=shots, skill=full - 0.9 * growth)
    (analysis,) = analysed(writer)
    (found,) = analysis.overtakings
    assert (found.leader, found.follower) == ("full", "freeze")
    assert found.crossing.point is not None
    assert 5 < found.crossing.low <= found.crossing.point <= found.crossing.high < 10
    headline = verdict(analysis).headline
    assert headline.startswith("Full fine-tuning (full) overtakes feature extraction (freeze) at about ")
    assert "training images per class" in headline


def test_an_unsettled_crossing_is_no_headline(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2, 3], shots=[2, 20])
    (analysis,) = analysed(writer)
    words = verdict(analysis)
    assert words.headline.startswith("Too few seeds to tell")
    assert any(point.startswith("On average full ") for point in words.points)


def test_several_data_sets_are_aggregated(writer: "StudyWriter") -> None:
    for data in ("cats", "dogs", "owls"):
        for seed in (1, 2, 3, 4):
            writer.run("freeze", seed, data=data)
            writer.run("full", seed, data=data)
    found = aggregate(analysed(writer))
    assert list(found) == [("full", "")]
    assert (found["full", ""].datasets, found["full", ""].n) == (3, 12)
    assert found["full", ""].iqm > 0
    assert aggregate(analysed(writer)[:1]) == {}


def test_every_strategy_is_named_in_words() -> None:
    strategies = {path.stem for path in (Path(__file__).parents[3] / "conf" / "strategy").glob("*.yaml")}
    assert set(GLOSSARY) == set(FULL_NAMES) == strategies


def test_weights_beside_the_study_are_called_by_their_place(writer: "StudyWriter") -> None:
    outputs = writer.root.absolute().parent
    for seed in range(1, 3):
        for weights in ("none", f"{outputs}/pretrain_fractals", "/elsewhere/mine.safetensors"):
            writer.run("full", seed, config={"backbone.weights": weights})
    (analysis,) = analysed(writer)
    assert set(analysis.design.values) == {"none", "pretrain_fractals", "/elsewhere/mine.safetensors"}


def test_the_error_of_a_target_is_better_when_lower_and_keeps_its_name() -> None:
    from headstart.study.analysis import _metric

    metric = _metric(SimpleNamespace(runs=()), "test/rmse_speed (km/h)")  # type: ignore[arg-type]
    assert (metric.higher_is_better, metric.percent) == (False, False)
    assert metric.label == "test rmse_speed (km/h)"
