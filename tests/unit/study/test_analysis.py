"""The numbers and the words of a study whose answer is known."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from headstart.errors import RunError
from headstart.runs.reader import read_runs
from headstart.study import curves
from headstart.study.analysis import Analysis, aggregate, analyse, primary_metric
from headstart.study.compare import design, separate
from headstart.study.decision import cautions
from headstart.study.labels import Sheet
from headstart.study.verdict import FULL_NAMES, GLOSSARY, verdict, verdicts

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
        [sum(scores[name]) / 8 for name in ("full", "freeze")]  # the best first
    )
    (difference,) = analysis.differences
    assert difference.paired is not None
    # Runs sort by seed within a strategy, so the lists are paired.
    gaps = [a - b for a, b in zip(scores["full"], scores["freeze"], strict=True)]
    assert difference.paired.mean == pytest.approx(sum(gaps) / 8)
    assert difference.verdict == "better"
    # The interval allows for the images too, so it is wider than that of the seeds.
    seeds_only = stats.ttest_1samp(gaps, 0).confidence_interval()
    assert difference.paired.low is not None
    assert difference.paired.low < seeds_only.low


def folded(writer: "StudyWriter", strategy: str, folds: int, *, images: Sequence[int]) -> None:
    """Runs of a cross-validation, whose folds may differ by an image."""
    for fold in range(folds):
        path = writer.run(strategy, 1, split_seed=fold, config={"datamodule.fold": fold})
        result = json.loads((path / "result.json").read_text())
        result["data"] |= {"split_seed": 0, "fold": fold, "folds": folds}
        result["data"]["sizes"]["train"] -= images[fold] - 90
        (path / "result.json").write_text(json.dumps(result))


def test_folds_are_repetitions_with_the_interval_of_overlapping_training_sets(writer: "StudyWriter") -> None:
    for strategy in ("freeze", "full"):
        folded(writer, strategy, 5, images=[90, 90, 91, 91, 91])
    (analysis,) = analysed(writer)
    assert str(analysis.scope(analysis.arms[0].setting)) == "5 folds and 90 test images in each"
    for arm in analysis.arms:
        runs = analysis.design.cells[arm.value, arm.setting].values()
        scores = np.array([run.metrics["test/acc"] for run in runs])
        # Nadeau and Bengio (2003): a fifth of the images is tested on, the rest trained on.
        half = stats.t.ppf(0.975, 4) * math.sqrt((1 / 5 + (1 / 5) / (4 / 5)) * scores.var(ddof=1))
        found = arm.metrics["test/acc"]
        assert found.mean == pytest.approx(scores.mean())
        assert found.low == pytest.approx(scores.mean() - half)


def test_a_cross_validation_of_one_strategy_says_how_well_it_does_and_how_that_varies(writer: "StudyWriter") -> None:
    folded(writer, "freeze", 5, images=[90] * 5)
    (analysis,) = analysed(writer)
    words = verdict(analysis)
    assert words.headline.startswith("Feature extraction (freeze) alone: ")
    assert "95 % interval" in words.headline
    said = dict(words.decision)
    assert "It rests on 5 folds and 90 test images in each." in said["How sure that is"]
    assert said["How it varies"].startswith("The folds lie from ")


def test_a_split_that_no_seed_moves_is_one_split(writer: "StudyWriter") -> None:
    fixed = {"name": "animals", "carved": [], "split_fingerprints": {"train": "a", "val": "b", "test": "c"}}
    for seed in range(1, 9):
        for strategy in ("freeze", "full"):
            path = writer.run(strategy, seed)
            result = json.loads((path / "result.json").read_text())
            result["data"] |= {**fixed, "split_seed": seed}
            (path / "result.json").write_text(json.dumps(result))
    (analysis,) = analysed(writer)
    assert str(analysis.scope(analysis.arms[0].setting)) == "8 seeds on one split and 90 test images"


def test_few_images_drawn_from_a_training_split_that_the_data_bring_are_one_table(writer: "StudyWriter") -> None:
    for seed in range(1, 9):
        prints = {"train": f"drawn {seed}", "val": "b", "test": "c"}
        for strategy in ("freeze", "full"):
            path = writer.run(strategy, seed, shots=10)
            result = json.loads((path / "result.json").read_text())
            own = {"name": "animals", "carved": [], "content": "a", "split_fingerprints": prints}
            result["data"] |= {**own, "split_seed": seed, "shots": 10}
            (path / "result.json").write_text(json.dumps(result))
    (analysis,) = analysed(writer)
    assert str(analysis.scope(analysis.arms[0].setting)) == "8 draws of the training images and 90 test images"


def test_the_cheapest_is_named_beside_the_costs_of_the_next_best(writer: "StudyWriter") -> None:
    for seed in range(1, 7):
        for strategy, skill in (("full", 4.0), ("scratch", 1.5), ("freeze", 0.5)):
            writer.run(strategy, seed, skill=skill)
    (analysis,) = analysed(writer)
    costs = dict(verdict(analysis).decision)["What it costs"]
    assert "44.7 MB to store for each task (scratch: 44.7 MB; freeze: 20.5 kB)" in costs


def test_the_interval_of_a_share_ends_where_shares_do(writer: "StudyWriter") -> None:
    for seed in range(1, 7):
        writer.run("freeze", seed, skill=4.0, split_seed=seed)
        writer.run("full", seed, skill=5.0, split_seed=seed)
    (analysis,) = analysed(writer)
    assert analysis.metric.percent
    best = analysis.arms[0].metrics["test/acc"]
    assert best.low is not None
    assert 0.9 < best.low < best.mean < 1.0
    assert best.high == 1.0  # Student's interval alone reaches 1.005


def test_better_in_words_with_costs_and_gain(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full", "scratch"], range(1, 9))
    (analysis,) = analysed(writer)
    words = verdict(analysis)
    assert words.headline.startswith(
        "Take full fine-tuning (full): it scores higher than everything else that was tried"
    )
    assert "on this split" in words.headline
    decided = dict(words.decision)
    assert "44.7 MB to store for each task (freeze: 20.5 kB)" in decided["What it costs"]
    assert "8 seeds on one split and 90 test images" in decided["How sure that is"]
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
    words = verdict(analysis)
    assert words.headline.startswith("Too few seeds to choose: so far full fine-tuning (full) scores highest")
    assert words.chosen.take == ""
    assert dict(words.decision)["What would change it"].startswith("2 more of each (seed=1,2,3,4,5)")


def test_all_comparisons_of_a_table_are_one_family_and_so_are_the_gains(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full", "lp_ft", "scratch"], range(1, 7))
    (analysis,) = analysed(writer)
    for items in (analysis.differences, analysis.gains):
        assert [item.family for item in items] == [3, 3, 3]
        assert max(item.paired.factor for item in items if item.paired) == pytest.approx(3)
    (declared,) = analysed(writer, primary="full")
    assert [item.value for item in declared.differences if item.primary] == ["full"]


def test_the_decision_says_no_more_than_the_table_below_it(writer: "StudyWriter") -> None:
    for head in ("linear", "mlp", "cosine", "bias"):
        for seed in range(1, 7):
            writer.run("freeze", seed, skill=1.5, config={"head": head})
            writer.run("full", seed, skill=1.8, config={"head": head})
    (analysis,) = analysed(writer)
    (alone,) = {
        pairing.p
        for pairing in (analysis.pairing.compare(*_cells(analysis, s)) for s in analysis.design.settings)
        if pairing
    }
    assert alone is not None
    assert alone < 0.05 < 4 * alone  # Of four such comparisons one may come out by chance.
    assert {item.verdict for item in analysis.differences} == {"no difference"}
    assert set(analysis.best.values()) == {("freeze", "full")}
    words = verdict(analysis)
    # Other settings were not compared with this one.
    assert "nothing that was tried in this setting is demonstrably better" in words.headline
    sure = dict(words.decision)["How sure that is"]
    assert sure.startswith("Not sure which is better")
    paired = analysis.compare("full", "freeze", ("mlp",))
    assert paired == analysis.differences[-1].paired
    assert paired is not None
    assert analysis.compare("freeze", "full", ("mlp",)) == paired.reversed()
    assert f"A difference of {analysis.metric.size(paired.detectable() or 0.0)} would have been seen" in sure


def _cells(analysis: Analysis, setting: tuple[str, ...]) -> tuple[dict, dict]:
    return analysis.design.cells["full", setting], analysis.design.cells["freeze", setting]


def test_the_question_can_be_declared_in_the_configuration(writer: "StudyWriter") -> None:
    for seed in range(1, 7):
        for strategy in ("freeze", "full", "lp_ft"):
            writer.run(strategy, seed, composed={"study": {"primary": "full"}})
    (analysis,) = analysed(writer)
    assert [item.value for item in analysis.differences if item.primary] == ["full"]


def test_splits_are_the_repetitions_where_there_are_five(writer: "StudyWriter") -> None:
    for split in range(6):
        for seed in (1, 2):
            for strategy in ("freeze", "full"):
                writer.run(strategy, seed, split_seed=split)
    (analysis,) = analysed(writer)
    (difference,) = analysis.differences
    assert difference.paired is not None
    assert difference.paired.n == 6
    assert str(analysis.scope(())) == "6 splits of the images and 90 test images"
    assert "on this split" not in verdict(analysis).headline
    # Test images are 90 of 580 that were split: Nadeau and Bengio's factor, on the means over the seeds of each split.
    means = {
        value: np.array([[_score(analysis, value, seed, split) for seed in (1, 2)] for split in range(6)]).mean(axis=1)
        for value in ("full", "freeze")
    }
    gaps = means["full"] - means["freeze"]
    assert difference.paired.error == pytest.approx(gaps.std(ddof=1) * math.sqrt(1 / 6 + (90 / 580) / (1 - 90 / 580)))


def _score(analysis: Analysis, value: str, seed: int, split: int) -> float:
    return analysis.design.cells[value, ()][f"{seed} on split {split}"].metrics["test/acc"]


def test_few_images_are_drawn_anew_with_each_split(writer: "StudyWriter") -> None:
    for split in range(5):
        for strategy in ("freeze", "full"):
            writer.run(strategy, 1, shots=5, split_seed=split)
    (analysis,) = analysed(writer)
    assert str(analysis.scope(())) == "5 draws of the training images and 90 test images"
    paired = analysis.differences[0].paired
    assert paired is not None
    assert paired.lasting  # known and counted apart, so no factor for overlapping training sets


def test_on_a_few_splits_nothing_is_said_of_others(writer: "StudyWriter") -> None:
    for split in range(2):
        for seed in (1, 2, 3):
            for strategy in ("freeze", "full"):
                writer.run(strategy, seed, split_seed=split)
    (analysis,) = analysed(writer)
    assert str(analysis.scope(())).startswith("3 seeds on these 2 splits")
    assert "on these splits" in verdict(analysis).headline


def test_what_seeds_agree_on_may_still_be_luck_of_the_images(writer: "StudyWriter") -> None:
    for seed in range(1, 9):
        writer.run("freeze", seed, result={"params": {"total": 1, "trainable": 1}})
        path = writer.run("full", seed)
        # The same predictions as those of freeze, but for one image that full gets right.
        other = next(writer.root.glob(f"freeze-animals-all-{seed}-*"))
        with np.load(other / "predictions_test.npz") as stored:
            arrays = dict(stored)
        wrong = np.flatnonzero(arrays["probabilities"].argmax(axis=1) != arrays["targets"])[0]
        arrays["probabilities"][wrong] = np.eye(4)[arrays["targets"][wrong]]
        np.savez(path / "predictions_test.npz", **arrays)
        result = json.loads((path / "result.json").read_text())
        result["metrics"]["test/acc"] = float((arrays["probabilities"].argmax(axis=1) == arrays["targets"]).mean())
        (path / "result.json").write_text(json.dumps(result))
    (analysis,) = analysed(writer)
    assert analysis.differences[0].verdict == "no difference"
    assert set(analysis.best[()]) == {"freeze", "full"}
    assert verdict(analysis).chosen.take == "freeze"


def test_an_arm_without_randomness_is_one_repetition(writer: "StudyWriter") -> None:
    for strategy in ("freeze", "full"):
        for seed in (1, 2, 3):
            path = writer.run(strategy, seed)
            first = next(writer.root.glob(f"{strategy}-animals-all-1-*"))
            for name in ("predictions_test.npz", "predictions_val.npz"):
                (path / name).write_bytes((first / name).read_bytes())
            result = json.loads((path / "result.json").read_text())
            result["metrics"] = json.loads((first / "result.json").read_text())["metrics"]
            (path / "result.json").write_text(json.dumps(result))
    (analysis,) = analysed(writer)
    assert all(arm.exact for arm in analysis.arms)
    paired = analysis.differences[0].paired
    assert paired is not None
    assert (paired.n, paired.exact) == (1, True)
    assert paired.low is not None


def test_no_difference_is_said_as_such(writer: "StudyWriter") -> None:
    for seed in range(1, 9):
        writer.run("freeze", seed, skill=1.6)
        writer.run("full", seed, skill=1.6)
    (analysis,) = analysed(writer)
    assert analysis.differences[0].verdict == "no difference"
    words = verdict(analysis)
    assert words.headline.startswith("Take feature extraction (freeze): ")
    assert words.points[0].startswith("No significant difference between full and freeze in test accuracy")
    assert words.chosen.tied == ("freeze", "full")


def test_seeds_that_do_not_match_are_not_compared(writer: "StudyWriter") -> None:
    writer.study(["freeze"], [1, 2])
    writer.study(["full"], [3, 4])
    (analysis,) = analysed(writer)
    assert analysis.differences[0].verdict == "unpaired"
    words = verdict(analysis)
    assert words.headline.startswith("No choice yet")
    assert "have no seed in common" in words.points[0]
    assert "How sure that is" not in dict(words.decision)


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
    assert words.headline.startswith("Too few seeds to choose with 20 images per class")
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


def test_strategies_are_named_in_words() -> None:
    strategies = {path.stem for path in (Path(__file__).parents[3] / "conf" / "strategy").glob("*.yaml")}
    assert set(GLOSSARY) == set(FULL_NAMES) <= strategies


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


def test_an_arm_that_lacks_the_hard_repetitions_is_not_taken_for_the_best(writer: "StudyWriter") -> None:
    for split in range(10):
        hard = split < 3
        writer.run("freeze", 1, split_seed=split, skill=0.4 if hard else 1.8)
        if not hard:
            writer.run("full", 1, split_seed=split, skill=1.2)
    (analysis,) = analysed(writer)
    means = {arm.value: arm.metrics["test/acc"].mean for arm in analysis.arms}
    assert means["full"] > means["freeze"]
    assert [item.verdict for item in analysis.differences] == ["worse"]
    words = verdict(analysis)
    assert words.chosen.take == "freeze"
    assert "it scores higher than everything else that was tried on the runs that both have" in words.headline
    said = dict(words.decision)
    assert "What you give up" not in said
    assert "freeze is " in said["How sure that is"]
    assert "It rests on 7 splits" in said["How sure that is"]
    assert any("full has 7 of 10" in caution for caution in cautions(analysis))


def test_less_of_an_error_is_an_improvement(writer: "StudyWriter") -> None:
    for data in ("cats", "dogs"):
        for seed in range(1, 7):
            for strategy in ("freeze", "full"):
                writer.run(strategy, seed, data=data)
    for metric, options in (("test/acc", {}), ("test/loss", {"metric": "test/loss"})):
        found = aggregate(analysed(writer, **options))["full", ""]
        assert found.improvement > 0.9, metric


def test_two_tables_of_one_data_set_are_not_two_data_sets(writer: "StudyWriter") -> None:
    for seed in range(1, 7):
        for strategy in ("freeze", "full"):
            for part, eps in enumerate((1e-8, 1e-6)):
                writer.run(strategy, seed + 20 * part, composed={"optimizer": {"eps": eps}, "seed": seed + 20 * part})
    both = analysed(writer)
    assert len(both) == 2
    assert aggregate(both) == {}


def test_what_is_behind_a_decision_comes_by_size_and_with_the_cost_of_the_choice(writer: "StudyWriter") -> None:
    for seed in range(1, 7):
        for strategy, skill in (("freeze", 0.5), ("bitfit", 0.9), ("cotuning", 2.0), ("full", 3.0)):
            writer.run(strategy, seed, skill=skill)
    (analysis,) = analysed(writer)
    words = verdict(analysis, limit=2)
    assert [point.split(" ")[0] for point in words.points[:2]] == ["full", "cotuning"]
    assert words.points[2] == "The table of differences has all 3 comparisons."
    assert words.points[3].startswith(f"Compared with freeze, {words.chosen.take} takes ")


def test_each_setting_has_its_own_crossing(writer: "StudyWriter") -> None:
    for backbone, gain in (("resnet18", 0.0), ("vit", 0.9)):
        for seed in range(1, 9):
            for few, freeze, full in ((2, 1.6, 0.6), (5, 1.7, 1.2), (10, 1.8, 2.4), (20, 1.9, 3.4)):
                growth = math.log(few / 10)
                config = {"backbone": backbone}
                writer.run("freeze", seed, shots=few, skill=freeze - 0.5 * growth, config=config)
                writer.run("full", seed, shots=few, skill=full - gain - 0.9 * growth, config=config)
    (analysis,) = analysed(writer)
    assert {item.rest for item in analysis.overtakings} == {("resnet18",), ("vit",)}
    plots = curves.shots(Sheet(analysis, writer.root / "plots"))
    assert ["backbone resnet18" in plot.title for plot in plots] == [True, False]
    assert all(plot.caption.count("overtakes") == 1 for plot in plots)


@pytest.mark.parametrize("wrong", [{"contrast": "stratgy"}, {"reference": "ful"}, {"primary": "nonsense"}])
def test_what_no_table_has_is_told(writer: "StudyWriter", wrong: dict[str, str]) -> None:
    writer.study(["freeze", "full"], [1, 2])
    with pytest.raises(RunError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}: "):
        verdicts(read_runs(writer.root), **wrong)
