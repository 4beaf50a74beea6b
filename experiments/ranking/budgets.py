"""Does `headstart advise` end in its time, and how far is its choice from the best that is known?

    python experiments/ranking/budgets.py DATA OUT 2 5 10 [NAME ...]   minutes, and data sets; all without NAME
    python experiments/ranking/budgets.py OUT                         only the comparison, of what is there

OUT is that of study.py, whose data it advises on and whose trainings it is compared with. A row a call in
OUT/budgets.csv; what is there is not made again.
"""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import study

from headstart.runs.reader import read_runs
from headstart.system.atomic import write_rows

_EXPECT = re.compile(r"Expect: ([\d.]+) % \(95 % interval ([\d.]+) to ([\d.]+)\)")


def main(data: Path, out: Path, minutes: Sequence[int], names: Sequence[str]) -> None:
    """One call after the other, the short ones first."""
    sets = study.data_sets(data, out)
    for budget in minutes:
        for name in names or sets:
            rows = study.read(out / "budgets.csv")
            if not any((row["data"], row["budget_s"]) == (name, str(60 * budget)) for row in rows):
                write_rows(out / "budgets.csv", [*rows, call(name, sets[name], budget, folder_of(out, name, budget))])
    compare(out)


def folder_of(out: Path, name: str, minutes: int) -> Path:
    """Of the runs of a call; it shares no stored features with others."""
    return out / "advice" / f"{name}-{minutes}min"


def call(name: str, choices: Sequence[str], minutes: int, folder: Path) -> dict[str, object]:
    """A whole process, timed from outside."""
    places = [f"paths.output_dir={folder / 'runs'}", f"paths.cache_dir={folder / 'cache'}"]
    command = [sys.executable, "-m", "headstart", "advise", *choices, *places, f"budget={minutes}min"]
    before, started = (busy_seconds(), own_seconds()), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "said.txt").open("w", encoding="utf-8") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    wall = time.monotonic() - started
    own = own_seconds() - before[1]
    others = busy_seconds() - before[0] - own
    text = (folder / "said.txt").read_text(encoding="utf-8")
    expected = _EXPECT.search(text)
    [journal] = folder.glob("runs/advise-*/advice.json")
    tried = json.loads(journal.read_text(encoding="utf-8"))["tried"].values()
    said = next((shlex.split(line) for line in text.splitlines() if line.startswith("python train.py")), [])
    chosen = next((one for one in tried if one["overrides"] == said[3:]), None)
    accuracies = [float(number) / 100 for number in expected.groups()] if expected else [""] * 3
    return {
        "data": name,
        "budget_s": 60 * minutes,
        "wall_s": round(wall, 1),
        "of_budget": round(wall / (60 * minutes), 3),
        "own_cores": round(own / wall, 2),
        "others_cores": round(others / wall, 2),
        "trainings": sum(one["score"] is not None for one in tried),
        "backbone": chosen["backbone"] if chosen else "",
        "recipe": chosen["arm"].partition(", ")[2] if chosen else "",
        "epochs": chosen["epochs"] if chosen else "",
        "val": chosen["score"] if chosen else "",
        **dict(zip(("test", "low", "high"), accuracies, strict=True)),
    }


def compare(out: Path) -> None:
    """Add the best test accuracy of the study's trainings, and of those of any call, whatever their validation said.

    From its first seed: advise repeats what is best, and the best of eight seeds is nobody's choice.
    """
    best: dict[str, tuple[float, str]] = {}
    for row in study.read(out / "trainings.csv"):
        found = float(row["test"]), f"{row['backbone']}, {row['recipe']}"
        best[row["data"]] = max(best.get(row["data"], (0.0, "")), found)
    of_study = dict(best)
    rows = study.read(out / "budgets.csv")
    for row in rows:
        for runs in folder_of(out, row["data"], int(row["budget_s"]) // 60).glob("runs/advise-*"):
            found_runs = read_runs(runs)
            first = min((run.seed for run in found_runs), default="")
            for run in found_runs:
                if "test/acc" in run.metrics and run.seed == first:
                    what = (
                        f"{run.result.config['backbone']}, {run.result.config['strategy']} in {runs.parent.parent.name}"
                    )
                    best[row["data"]] = max(best.get(row["data"], (0.0, "")), (run.metrics["test/acc"], what))
    for row in rows:
        for prefix, known in (("study_", of_study), ("", best)):
            if row["test"] and row["data"] in known:
                reached, what = known[row["data"]]
                gap = reached - float(row["test"])
                row |= {f"{prefix}best": f"{reached:.4f}", f"{prefix}best_by": what}
                row |= {f"{prefix}points_behind": f"{100 * gap:.1f}"}
                row[f"{prefix}holds"] = str(gap <= 0.01 or float(row["low"]) <= reached <= float(row["high"]))
    write_rows(out / "budgets.csv", rows)
    for row in rows:
        print(row)


def busy_seconds() -> float:
    """Of all processors, since the machine started."""
    user, nice, system, *_ = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:8])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Of processes started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    if len(sys.argv) == 2:
        compare(Path(sys.argv[1]))
    else:
        given = sys.argv[3:]
        main(
            Path(sys.argv[1]).resolve(),
            Path(sys.argv[2]).resolve(),
            [int(text) for text in given if text.isdigit()],
            [text for text in given if not text.isdigit()],
        )
