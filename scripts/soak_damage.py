"""Every file of a run, a study and a store, damaged in every way; then a command that reads it."""

import contextlib
import csv
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from soak_kills import SOURCE, STUDY, digests, prepare
from soak_process import LIMIT_S, Tally, command

Change = Callable[[bytes, random.Random], bytes | None]


def _flipped(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def _odd(data: bytes, chance: random.Random) -> bytes | None:
    """One number of a text becomes something else; of what is no text, eight bytes."""
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode()
        places = list(re.finditer(r"(?<![\w.])-?\d+(\.\d+)?(e-?\d+)?(?![\w.])", text))
        if places:
            found = chance.choice(places)
            other = chance.choice(["NaN", "1e999", "-1", "null", '"x"', "[]", "{}", "true", "0.5", "10" * 30])
            return (text[: found.start()] + other + text[found.end() :]).encode()
    place = chance.randrange(len(data))
    return data[:place] + chance.randbytes(8) + data[place + 8 :]


DAMAGES: dict[str, Change] = {
    "one bit flipped": lambda data, chance: _flipped(data, chance) if data else None,
    "cut off": lambda data, chance: data[: chance.randrange(len(data))] if data else None,
    "emptied": lambda data, chance: b"",
    "removed": lambda data, chance: None,
    "overwritten": lambda data, chance: chance.randbytes(len(data)),
    "written in UTF-16": lambda data, chance: data.decode("latin-1").encode("utf-16"),
    "with an odd value": lambda data, chance: _odd(data, chance) if data else None,
    "a folder of its name": lambda data, chance: None,
}


class Damage:
    """The folder that is damaged and restored, with what each command gives where nothing is damaged."""

    def __init__(self, folder: Path) -> None:
        self.at, self.kept = folder / "given", folder / "kept"
        prepare(self.at)
        command(self.at, "report", STUDY)
        shutil.copytree(self.at, self.kept)
        self.runs = sorted(path.parent.relative_to(self.at) for path in (self.at / STUDY).glob("*/result.json"))
        self.results = {run: json.loads((self.at / run / "result.json").read_text()) for run in self.runs}
        self.rows = self._rows()
        self.predicted = {run: self._predict(run)[1] for run in self.runs}
        self.exported = {run: self._export(run)[1] for run in self.runs}
        self.uses: dict[str, Callable[[Path], str]] = {
            "predict": self.predict,
            "export": self.export,
            "report": self.report,
            "runs": self.list,
            "train": self.train,
        }

    def targets(self) -> list[Path]:
        """The files: each of the study's, those of two runs more than once, and all of the store."""
        found = [path for path in (self.at / STUDY).rglob("*") if path.is_file()]
        found += [path for name in ("cache", SOURCE) for path in (self.at / name).rglob("*") if path.is_file()]
        return sorted(path.relative_to(self.at) for path in found if path.name != ".lock")

    def restore(self) -> None:
        """As it was."""
        shutil.rmtree(self.at)
        shutil.copytree(self.kept, self.at)

    def predict(self, run: Path) -> str:
        """The same labels and probabilities, or an error."""
        outcome, found = self._predict(run)
        return "different" if outcome == "same" and found != self.predicted[run] else outcome

    def export(self, run: Path) -> str:
        """The same bytes, or an error."""
        outcome, found = self._export(run)
        return "different" if outcome == "same" and found != self.exported[run] else outcome

    def report(self, run: Path) -> str:
        """Each run as before, or not among the finished ones."""
        outcome = command(self.at, "report", STUDY).outcome
        rows = self._rows() if outcome == "same" else {}
        wrong = [name for name, row in rows.items() if row["status"] == "done" and row != self.rows.get(name)]
        return "different" if wrong else outcome

    def list(self, run: Path) -> str:
        """It ends well."""
        return command(self.at, "runs", "outputs").outcome

    def train(self, run: Path) -> str:
        """The same metrics, or an error."""
        given = self.results[run]["config"]["overrides"]
        chosen = [item for item in given if not item.startswith(("hydra", "name=", "paths."))]
        done = command(self.at, "train", *chosen, "name=study", "paths.cache_dir=cache", limit_s=2 * LIMIT_S)
        if done.outcome != "same":
            return done.outcome
        found = json.loads((self.at / run / "result.json").read_text())
        return "same" if found["metrics"] == self.results[run]["metrics"] else "different"

    def _rows(self) -> dict[str, dict[str, str]]:
        with (self.at / STUDY / "runs.csv").open(newline="") as file:
            return {row["run"]: row for row in csv.DictReader(file)}

    def _predict(self, run: Path) -> tuple[str, dict[str, str]]:
        done = command(self.at, "predict", str(run), "new", "--output", "new.csv")
        return done.outcome, digests(self.at, "new.csv")

    def _export(self, run: Path) -> tuple[str, dict[str, str]]:
        done = command(self.at, "export", str(run), "--output", "out")
        found = digests(self.at / "out")
        shutil.rmtree(self.at / "out", ignore_errors=True)
        return done.outcome, found


def run(tally: Tally, folder: Path, chance: random.Random, count: int) -> None:
    """Damage ``count`` files, one at a time."""
    damage = Damage(folder)
    targets = damage.targets()
    chance.shuffle(targets)
    for trial in range(count):
        path, how = targets[trial % len(targets)], list(DAMAGES)[trial % len(DAMAGES)]
        use = chance.choice(["predict", "predict", "export", "report", "runs", "train", "train"])
        chosen = next((run for run in damage.runs if run in path.parents), chance.choice(damage.runs))
        content = (damage.at / path).read_bytes()
        (damage.at / path).unlink()
        changed = DAMAGES[how](content, chance)
        if how == "a folder of its name":
            (damage.at / path).mkdir()
        elif changed is not None:
            (damage.at / path).write_bytes(changed)
        tally.add(f"a file {how}", damage.uses[use](chosen), f"{path}, then {use} {chosen}")
        damage.restore()
