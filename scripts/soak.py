"""Faults on purpose, many and at random: kills, damaged files, hostile inputs. Nothing may be lost, run or hang.

python scripts/soak.py [--only kills damage hostile] [--kills 100] [--damaged 200] [--hostile 200] [--out FILE]

Every command runs in a fork of this process, which has imported everything. A try ends well when the command gives
what it gives without the fault, or says in a line what is wrong and exits with 1. Everything else is counted by name:

    lost         a finished result is gone, or the command does not get to its end any more
    executed     something that a foreign file named was called
    hang         no end within 30 s, not counting time spent waiting for a processor (a sweep: 120 s), and of commands
                 that are killed within three times what they take undisturbed
    traceback    a traceback instead of a line
    different    another result, without a word
    left behind  a process that goes on after the one that was killed
    without a word  an exit code other than 0, and no error

The parts run beside each other; ``soak_kills.py``, ``soak_damage.py`` and ``soak_hostile.py`` say what they try.
The exit code is 0 only without any of these.
"""

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import soak_damage
import soak_hostile
import soak_kills
import yaml
from soak_process import Tally

GOOD = ("same", "told")
BAD = ("lost", "executed", "hang", "traceback", "different", "left behind", "without a word")
PARTS: dict[str, Callable[[Tally, Path, random.Random, int], None]] = {
    "kills": soak_kills.first_half,
    "more kills": soak_kills.second_half,
    "damage": soak_damage.run,
    "more damage": soak_damage.run,
    "hostile": soak_hostile.run,
}


def table(rows: dict[str, Counter[str]]) -> str:
    """Tries and outcomes by fault, as Markdown."""
    total: Counter[str] = sum(rows.values(), Counter())
    lines = [
        "| fault | tries | as without it | told in a line | " + " | ".join(BAD) + " |",
        "|---" + "|--:" * (3 + len(BAD)) + "|",
    ]
    for fault, row in [*rows.items(), ("**all**", total)]:
        cells = [str(row[name]) for name in ("same", "told", *BAD)]
        lines.append(f"| {fault} | {row.total()} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def part(name: str, count: int, seed: int, notes: Path) -> None:
    """Run one part in a process of its own."""
    if os.fork():
        return
    code = 1
    try:
        with tempfile.TemporaryDirectory(prefix=f"soak-{'-'.join(name.split())}-") as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            PARTS[name](Tally(notes), Path(folder), random.Random(f"{name} {seed}"), count)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Kills, damaged files and hostile inputs; a table at the end.")
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS], metavar="PART")
    parser.add_argument("--kills", type=int, default=100, help="signals sent to commands, at least (default: 100)")
    parser.add_argument("--damaged", type=int, default=200, help="files damaged (default: 200)")
    parser.add_argument("--hostile", type=int, default=1000, help="hostile inputs at most (default: all there are)")
    parser.add_argument("--processes", type=int, default=2, help="parts that run at once (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table there, as Markdown")
    choices = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    from headstart.launch.server import preload

    # OmegaConf asks for this name; LibYAML reads the same in a tenth of the time.
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    preload("headstart.commands.cli")
    gc.disable()  # each fork would look through a million objects that stay, and copy their pages
    kills, damaged = (choices.kills + 1) // 2, (choices.damaged + 1) // 2
    counts = {
        "kills": kills,
        "more kills": choices.kills - kills,
        "damage": damaged,
        "more damage": choices.damaged - damaged,
        "hostile": choices.hostile,
    }
    rows: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        notes = {name: Path(folder) / f"{name}.jsonl" for name in choices.only}
        codes, running = [], 0
        for name, path in notes.items():
            if running == choices.processes:
                codes.append(os.wait()[1])
                running -= 1
            part(name, counts[name], choices.seed, path)
            running += 1
        codes += [os.wait()[1] for _ in range(running)]
        for path in notes.values():
            for line in path.read_text().splitlines() if path.exists() else ():
                fault, outcome = json.loads(line)
                rows.setdefault(fault, Counter())[outcome] += 1
    print(table(rows))
    if choices.out:
        choices.out.write_text(table(rows))
    bad = sum(row.total() - sum(row[name] for name in GOOD) for row in rows.values())
    return 0 if not any(codes) and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
