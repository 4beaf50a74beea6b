"""What a report says of the trials before the comparison."""

import json
from pathlib import Path

import pytest

from headstart.study.tuning import TUNING_FILE, add_tuning, expected_best, read_tuning, tuning_section


def arm(name: str, *scores: float | None, edges: tuple[str, ...] = ()) -> dict:
    trials = [{"values": {"optimizer.lr": str(n)}, "score": s, "seconds": 30, "runs": []} for n, s in enumerate(scores)]
    known = expected_best([score for score in scores if score is not None])
    chosen = {"optimizer.lr": "1"} if scores else {}
    return {"arm": f"strategy={name}", "strategy": name, "chosen": chosen, "edges": list(edges), "trials": trials,
            "expected_best": known}  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Path:
    arms = [arm("<b>full", 0.5, 0.75, None, edges=("optimizer.lr",)), arm("ncm")]
    told = {"metric": "val/acc", "higher_is_better": True, "study": "mine-tuning", "arms": arms}
    (tmp_path / TUNING_FILE).write_text(json.dumps(told))
    return tmp_path


def test_the_section_says_what_was_tried_and_chosen(study: Path):
    section = tuning_section(study, study)
    assert section is not None
    for words in ("0.75", "1 min 30 s", "optimizer.lr=1", "nothing to tune", "study.tuning.space", "mine-tuning"):
        assert words in section.html, words
    assert "<b>full" not in section.html
    rows = (study / "tuning.csv").read_text().splitlines()
    assert rows[1:] == ["strategy=<b>full,1,0.625", "strategy=<b>full,2,0.6875"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arms": 3}', '{"metric": "m", "study": "s", "arms": [{}]}'])
def test_a_damaged_file_is_no_section(tmp_path: Path, text: str):
    assert tuning_section(tmp_path, tmp_path) is None
    (tmp_path / TUNING_FILE).write_text(text)
    assert read_tuning(tmp_path) == {}
    assert tuning_section(tmp_path, tmp_path) is None


def test_arms_of_an_earlier_command_stay(study: Path):
    later = {"metric": "val/acc", "higher_is_better": True, "study": "mine-tuning", "arms": [arm("mlp", 0.6, 0.7)]}
    add_tuning(study, later)
    assert [one["arm"] for one in read_tuning(study)["arms"]] == ["strategy=<b>full", "strategy=ncm", "strategy=mlp"]
    section = tuning_section(study, study)
    assert section is not None
    assert "another number of (see the table) trials" in section.html
    add_tuning(study, {**later, "metric": "val/f1"})
    assert [one["arm"] for one in read_tuning(study)["arms"]] == ["strategy=mlp"]
