"""What may share a table does, what may not is apart with a reason, and pairs are laid out."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from headstart.runs.reader import read_runs
from headstart.study.compare import Table, design, kept_out, separate

if TYPE_CHECKING:
    from conftest import StudyWriter


def tables(writer: "StudyWriter") -> list[Table]:
    return separate(read_runs(writer.root))


def test_strategies_and_seeds_share_a_table(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2, 3])
    writer.failed("lora", "RuntimeError: no")
    (table,) = tables(writer)
    assert len(table.runs) == 6
    assert table.axes == {"strategy": ("freeze", "full")}
    assert (table.reason, table.duplicates, table.cautions) == ("", (), ())


def test_what_was_cut_short_or_measured_nothing_is_in_no_table(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2, 3])
    details = {"task": "multiclass", "monitor": "val/acc"}
    writer.run("full", 4, result={"details": details | {"cut_short": ["trainer.fast_dev_run=True uses only some"]}})
    writer.run("full", 5, result={"metrics": {"val/acc": None, "val/loss": None}})
    (table,) = tables(writer)
    assert len(table.runs) == 6
    reasons = {run.seed: kept_out(run) for run in read_runs(writer.root)}
    assert [seed for seed, reason in reasons.items() if reason] == ["4", "5"]
    assert reasons["4"] == "cut short: trainer.fast_dev_run=True uses only some"
    assert reasons["5"] == "its val/acc is not a number"


def test_a_run_whose_score_is_not_a_number_costs_the_others_nothing(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2, 3])
    writer.run("full", 4, result={"metrics": {"val/acc": 0.5, "val/loss": 1.0, "test/acc": None, "test/loss": None}})
    (table,) = tables(writer)
    assert all("test/acc" in run.metrics for run in table.runs)
    assert len(table.runs) == 6


DATA = {"name": "animals", "classes": ["a"], "sizes": {"train": 4, "val": 90, "test": 90}, "fingerprint": "0"}
DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"details": {"task": "binary", "monitor": "val/acc"}}, "another task"),
    ({"details": {"task": "multiclass", "monitor": "val/loss"}}, "another selection rule"),
    ({"data": DATA | {"name": "plants"}}, "other data"),
    ({"data": DATA | {"classes": ["cat", "dog", "fox", "owl"]}}, "other splits"),
]


@pytest.mark.parametrize(("result", "reason"), DIFFERENCES, ids=[reason for _, reason in DIFFERENCES])
def test_what_breaks_the_rule_is_apart_with_the_reason(
    writer: "StudyWriter", result: dict[str, Any], reason: str
) -> None:
    writer.study(["freeze", "full"], [1, 2])
    other = writer.run("full", 3, result=result)
    first, second = tables(writer)
    assert len(first.runs) == 4
    assert [run.path for run in second.runs] == [other]
    assert reason in second.reason


def test_a_run_without_a_test_split_is_apart(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2])
    writer.run("full", 3, test=False)
    _, second = tables(writer)
    assert "another test set (none here" in second.reason


def test_other_data_is_one_reason_only(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2])
    writer.run("freeze", 1, data="plants")
    _, second = tables(writer)
    assert second.reason == "other data (plants here, animals in the first table)"


def test_fingerprints_of_single_splits_are_used(writer: "StudyWriter") -> None:
    def data(shots: int, test: str) -> dict[str, Any]:
        prints = {"train": f"t{shots}", "val": "v", "test": test}
        return DATA | {
            "classes": ["cat", "dog", "fox", "owl"],
            "fingerprint": f"{shots}{test}",
            "split_fingerprints": prints,
        }

    for shots in (5, 10):
        for strategy in ("freeze", "full"):
            writer.run(strategy, 1, shots=shots, result={"data": data(shots, "same")})
    writer.run("full", 2, shots=5, result={"data": data(5, "other")})
    first, second = tables(writer)
    assert (len(first.runs), len(second.runs)) == (4, 1)
    assert "another test set" in second.reason
    assert (first.title, second.title) == ("animals", "animals (table 2)")


def test_what_cannot_change_a_result_is_no_axis(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        for strategy in ("freeze", "full"):
            name = f"{strategy}{seed}"
            quiet = {
                "key": name,
                "study": name,
                "paths.output_dir": name,
                "logger": name,
                "datamodule.num_workers": seed,
            }
            writer.run(
                strategy, seed, config=quiet, composed={"run": {"fingerprint": name}, "datamodule": {"seed": seed}}
            )
    (table,) = tables(writer)
    assert table.axes == {"strategy": ("freeze", "full")}


def test_an_edited_default_that_no_axis_declares_is_found(writer: "StudyWriter") -> None:
    for seed in (1, 2, 3):
        for strategy in ("freeze", "full"):
            rate = 0.001 if seed < 3 else 0.1
            composed = {
                "optimizer": {"lr": rate},
                "datamodule": {"num_workers": seed},
                "paths": {"output_dir": f"{seed}"},
            }
            writer.run(strategy, seed, composed=composed)
    first, second = tables(writer)
    assert (len(first.runs), len(second.runs)) == (4, 2)
    assert "differs without being an axis of the study (optimizer.lr=0.1 here" in second.reason


def test_a_default_that_follows_an_axis_is_no_difference(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        writer.run("freeze", seed, composed={"strategy": {"layers": 0}})
        writer.run("full", seed, composed={"strategy": {"layers": 9}})
    (table,) = tables(writer)
    assert len(table.runs) == 4


def test_the_same_choices_twice_count_once(writer: "StudyWriter") -> None:
    writer.study(["freeze", "full"], [1, 2])
    writer.run("full", 2, config={"paths.output_dir": "elsewhere"})
    (table,) = tables(writer)
    assert len(table.runs) == 4
    assert len(table.duplicates) == 1


def test_other_devices_and_versions_are_cautions(writer: "StudyWriter") -> None:
    writer.run("freeze", 1)
    writer.run("full", 1, result={"versions": {"torch": "2.14.0"}, "cost": {"total_seconds": 1.0, "device": "gpu"}})
    (table,) = tables(writer)
    assert len(table.cautions) == 2
    assert "different devices: cpu, gpu" in table.cautions[0]
    assert "torch 2.14.0 and 2.15.0" in table.cautions[1]


def test_design_pairs_by_seed_and_every_other_axis(writer: "StudyWriter") -> None:
    writer.study(["scratch", "full", "freeze"], [2, 10, 1], shots=[20, 5])
    layout = design(tables(writer)[0])
    assert layout is not None
    assert layout.contrast == "strategy"
    assert layout.values == ("freeze", "full", "scratch")
    assert layout.settings == (("5",), ("20",))
    assert list(layout.cells["full", ("5",)]) == ["1", "2", "10"]
    assert layout.setting_text(("5",)) == "5 images per class"


def test_an_axis_that_follows_the_contrast_is_not_paired_on(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        writer.run("freeze", seed, config={"optimizer.lr": 0.01})
        writer.run("full", seed, config={"optimizer.lr": 0.001})
    layout = design(tables(writer)[0])
    assert layout is not None
    assert layout.axes == ()
    assert layout.tied == {"optimizer.lr": {"freeze": "0.01", "full": "0.001"}}


def test_what_a_tuned_study_chose_tells_no_arm_from_another(writer: "StudyWriter") -> None:
    # Neither follows the contrast alone, so both would be axes on which nothing pairs.
    rates = {("freeze", "a"): 0.1, ("freeze", "b"): 0.01, ("full", "a"): 0.001, ("full", "b"): 0.01}
    for (strategy, backbone), rate in rates.items():
        for seed in (1, 2):
            composed = {"optimizer": {"lr": rate}, "study": {"tuned": ["optimizer.lr"]}}
            chosen = {"optimizer.lr": rate, "backbone": backbone, "study.tuned": "[optimizer.lr]"}
            writer.run(strategy, seed, config=chosen, composed=composed)
    (table,) = tables(writer)
    assert set(table.axes) == {"strategy", "backbone"}
    layout = design(table)
    assert layout is not None
    assert layout.settings == (("a",), ("b",))


def test_a_teacher_for_each_seed_is_one_choice(writer: "StudyWriter") -> None:
    """A choice with ``${seed}`` in it reads the same for every seed, whatever it became."""
    for strategy in ("distill", "full"):
        for seed in (1, 2):
            given = {"strategy.teacher": "outputs/teachers/*-s${seed}-*"} if strategy == "distill" else {}
            became = {"strategy": {"teacher": f"/outputs/teachers/full-s{seed}-0"}} if given else {}
            writer.run(strategy, seed, config=given, composed=became)
    (table,) = tables(writer)
    laid = design(table)
    assert laid is not None
    assert laid.values == ("full", "distill")
    assert {key: len(cell) for key, cell in laid.cells.items()} == {("distill", ()): 2, ("full", ()): 2}


def test_only_students_with_a_teacher_for_each_seed_share_a_table(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        given = {"strategy.teacher": "outputs/teachers/*-s${seed}-*"}
        writer.run("distill", seed, config=given, composed={"strategy": {"teacher": f"/outputs/teachers/s{seed}"}})
    (table,) = tables(writer)
    assert len(table.runs) == 2


def test_contrast_and_reference_can_be_chosen(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        for strategy in ("freeze", "full"):
            for head in ("linear", "mlp"):
                writer.run(strategy, seed, config={"head": head})
    table = tables(writer)[0]
    by_head = design(table, contrast="head", reference="mlp")
    assert by_head is not None
    assert by_head.values == ("mlp", "linear")
    assert by_head.axes == ("strategy",)


def test_repetitions_of_one_choice_are_laid_out_as_one_strategy_and_a_single_run_is_not(writer: "StudyWriter") -> None:
    writer.study(["freeze"], [1])
    assert design(tables(writer)[0]) is None
    writer.study(["freeze"], [2, 3])
    layout = design(tables(writer)[0])
    assert layout is not None
    assert (layout.contrast, layout.values) == ("strategy", ("freeze",))


def test_splits_are_repetitions_and_not_other_data(writer: "StudyWriter") -> None:
    for split in range(3):
        for strategy in ("freeze", "full"):
            writer.run(strategy, 1, split_seed=split)
    (table,) = tables(writer)
    layout = design(table)
    assert layout is not None
    assert [len(cell) for cell in layout.cells.values()] == [3, 3]
    assert list(layout.cells["full", ()]) == ["1 on split 0", "1 on split 1", "1 on split 2"]


def test_one_split_seed_with_two_splits_is_other_data(writer: "StudyWriter") -> None:
    for seed in (1, 2):
        writer.study(["freeze", "full"], [seed])
    data = json.loads((writer.run("full", 3, split_seed=0) / "result.json").read_text())["data"]
    writer.run("full", 4, result={"data": data | {"split_fingerprints": {"train": "a", "val": "b", "test": "c"}}})
    first, second = tables(writer)
    assert (len(first.runs), len(second.runs)) == (5, 1)
    assert "other splits" in second.reason
