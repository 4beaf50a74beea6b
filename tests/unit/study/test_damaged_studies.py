"""A report of a study of which half is damaged: nothing ends it, and what is whole says what it said."""

import csv
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headstart.commands.cli import main

if TYPE_CHECKING:
    from conftest import StudyWriter

FILES_DAMAGED = 10
ODD = ["NaN", "1e999", "-1", "null", '"x"', "[]", "{}", "true", "0.5", "10" * 30, '"\\ud800"', '"\\u001b[31m"']


def damaged(data: bytes, chance: random.Random) -> bytes | None:
    """The content of a file after something happened to it; None: there is no file any more."""
    place = chance.randrange(len(data))
    kind = chance.randrange(8)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return chance.randbytes(len(data))
    if kind == 2:
        return data.decode("latin-1").encode("utf-16")
    if kind == 3:
        return None
    values = list(re.finditer(rb'(?<=[:,\[ ])-?\d[\d.e-]*|"[^"]*"', data))
    if kind < 7 and values:
        found = chance.choice(values)
        return data[: found.start()] + chance.choice(ODD).encode() + data[found.end() :]
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def rows(study: Path) -> dict[str, dict[str, str]]:
    with (study / "runs.csv").open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed > 0 else []) for seed in range(22)]
)
def test_220_damaged_files(seed: int, writer: "StudyWriter", capsys: pytest.CaptureFixture[str]) -> None:
    study = writer.study(["freeze", "full", "scratch"], [1, 2], [5, 10])
    assert main(["report", str(study)]) == 0
    whole = rows(study)
    chance = random.Random(seed)
    files = sorted(path for path in study.rglob("*") if path.is_file() and path.parent.name != "report")
    # Half of the blows fall where every number comes from.
    results = [path for path in files if path.name == "result.json"]
    hit = {*chance.sample(results, 5), *chance.sample([path for path in files if path not in results], 5)}
    for path in sorted(hit):
        content = damaged(path.read_bytes(), chance)
        path.unlink() if content is None else path.write_bytes(content)
    assert len(hit) == FILES_DAMAGED
    assert main(["report", str(study)]) == 0
    assert main(["runs", str(study), "--json"]) == 0
    assert "Traceback" not in capsys.readouterr().err
    found = rows(study)
    untouched = {name for name in whole if (study / name / "result.json") not in hit}
    assert {name: found[name]["status"] for name in untouched} == dict.fromkeys(untouched, "done")
    for name in untouched:
        assert {key: found[name][key] for key in ("test/acc", "strategy", "seed")} == {
            key: whole[name][key] for key in ("test/acc", "strategy", "seed")
        }
