"""Faults on purpose, many and at random: kills, damaged files, hostile inputs. Nothing may be lost, run or hang.

python scripts/soak.py [--only kills damage hostile] [--kills 100] [--damaged 200] [--seed 0] [--out FILE]

Every command runs in a fork of this process, which has imported everything, with a time limit. A trial ends well when
the command gives what it gives without the fault, or says in a line what is wrong and exits with 1; everything else
is counted by name: ``lost``, ``executed``, ``hang``, ``traceback``, ``different``. The exit code is 0 only without any.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

LIMIT_S = 30.0
BAD = ("lost", "executed", "hang", "traceback", "different")
TINY = (
    "backbone=small_cnn",
    "backbone.weights=none",
    "datamodule.shots=3",
    "datamodule.val_fraction=0.05",
    "datamodule.test_fraction=0.05",
    "datamodule.image_size=32",
    "datamodule.batch_size=10",
    "datamodule.num_workers=0",
    "trainer=cpu",
    "trainer.precision=32-true",
    "callbacks.progress=none",
)
#: What is killed: phases, stored activations, averages, penalties, an export at the end.
KILLED: dict[str, tuple[str, ...]] = {
    "freeze": ("strategy=freeze", "trainer.max_epochs=4"),
    "full": ("strategy=full", "trainer.max_epochs=4"),
    "gradual": ("strategy=gradual", "trainer.max_epochs=6", "strategy.head_epochs=2"),
    "lp_ft": ("strategy=lp_ft", "trainer.max_epochs=4"),
    "l2sp": ("strategy=l2sp", "trainer.max_epochs=3"),
    "wise_ft": ("strategy=wise_ft", "trainer.max_epochs=3", "export=true"),
    "averaged": ("strategy=full", "ema.decay=0.9", "trainer.max_epochs=4"),
    "light": ("strategy=freeze", "datamodule.augment=light", "trainer.max_epochs=3"),
    "logreg": ("strategy=freeze", "head=logreg", "trainer.max_epochs=1"),
}


@dataclass
class Done:
    """How a command ended: its exit code (None: it did not), and everything that it printed."""

    code: int | None
    text: str

    @property
    def outcome(self) -> str:
        """``hang``, ``traceback``, ``ok`` or ``told``: one line of error and exit code 1."""
        if self.code is None:
            return "hang"
        if "Traceback (most recent call last)" in self.text:
            return "traceback"
        if self.code == 0:
            return "ok"
        return "told" if "error:" in self.text else f"exit code {self.code} without a word"


@dataclass
class Tally:
    """Tries and outcomes by fault."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, fault: str, outcome: str, note: str = "") -> None:
        """Count a trial; a bad one is told at once."""
        self.rows.setdefault(fault, Counter())[outcome] += 1
        if outcome not in ("ok", "told", "same"):
            self.notes.append(f"{fault}: {outcome}: {note}")
            print(self.notes[-1], flush=True)

    @property
    def bad(self) -> int:
        """Trials that ended as none may."""
        return sum(
            count for row in self.rows.values() for name, count in row.items() if name not in ("ok", "told", "same")
        )

    def table(self) -> str:
        """As Markdown."""
        lines = [
            "| fault | tries | as without it | told in a line | " + " | ".join(BAD) + " |",
            "|---" * (4 + len(BAD)) + "|",
        ]
        for fault, row in self.rows.items():
            fine, other = row["ok"] + row["same"], [str(row[name]) for name in BAD]
            lines.append(f"| {fault} | {row.total()} | {fine} | {row['told']} | " + " | ".join(other) + " |")
        return "\n".join(lines) + "\n"


def start(arguments: Sequence[str], folder: Path) -> tuple[int, Path]:
    """Fork a ``headstart`` command that works in ``folder``; returns its process and the file of its output."""
    output = folder / f".output-{time.monotonic_ns()}"
    pid = os.fork()
    if pid:
        return pid, output
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from headstart.commands.cli import main

        sys.argv = ["headstart", *arguments]
        code = main(list(arguments))
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(pid: int, output: Path, *, limit_s: float = LIMIT_S) -> Done:
    """Wait for a command, and end it where it does not end."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return Done(os.waitstatus_to_exitcode(status), _read(output))
        time.sleep(0.01)
    kill(pid)
    return Done(None, _read(output))


def kill(pid: int) -> None:
    """The process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def command(folder: Path, *arguments: str, limit_s: float = LIMIT_S) -> Done:
    """Run a command to its end."""
    return wait(*start(arguments, folder), limit_s=limit_s)


def _read(path: Path) -> str:
    text = path.read_text(errors="replace") if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


def outcome_of(folder: Path, study: str) -> dict | None:
    """Metrics and predictions of the only run of a study, or None where there is none that is done."""
    for path in (folder / "outputs" / study).glob("*/result.json"):
        result = json.loads(path.read_text())
        if result["status"] == "done":
            found = {"metrics": result["metrics"]}
            for file in sorted(path.parent.glob("predictions_*.npz")):
                with np.load(file) as arrays:
                    found[file.name] = arrays["probabilities"].tolist()
            return found
    return None


# Kills


def kills(tally: Tally, folder: Path, chance: random.Random, count: int) -> None:
    """SIGKILL (and now and then SIGTERM or SIGINT) at random moments, until the same command has ended by itself."""
    expected, lengths = {}, {}
    for name, choices in KILLED.items():
        began = time.monotonic()
        command(
            folder,
            "train",
            *TINY,
            *choices,
            f"name=whole_{name}",
            f"paths.cache_dir={folder}/cache_{name}",
            limit_s=120,
        )
        lengths[name] = time.monotonic() - began
        expected[name] = outcome_of(folder, f"whole_{name}")
        assert expected[name], name
    for trial in range(count):
        name = list(KILLED)[trial % len(KILLED)]
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        study = f"killed_{trial}"
        given = ("train", *TINY, *KILLED[name], f"name={study}", f"paths.cache_dir={folder}/cache_{study}")
        for _ in range(chance.choice([1, 1, 2, 3])):
            pid, output = start(given, folder)
            time.sleep(chance.uniform(0, lengths[name]))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            done = wait(pid, output, limit_s=10)
            if done.code is None:
                tally.add(f"{number.name} while training", "hang", name)
        done = command(folder, *given, limit_s=120)
        found = outcome_of(folder, study)
        outcome = "same" if found == expected[name] else "lost" if found is None else "different"
        if done.outcome in ("hang", "traceback"):
            outcome = done.outcome
        tally.add(
            f"{number.name} while training", outcome, f"{name} {study} {done.text[-300:] if outcome != 'same' else ''}"
        )
        shutil.rmtree(folder / "outputs" / study, ignore_errors=True)
        shutil.rmtree(folder / f"cache_{study}", ignore_errors=True)


# Damage


def _flipped(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "one bit flipped": lambda data, chance: _flipped(data, chance) if data else None,
    "cut off": lambda data, chance: data[: chance.randrange(len(data))] if data else None,
    "emptied": lambda data, chance: b"",
    "removed": lambda data, chance: None,
    "overwritten": lambda data, chance: chance.randbytes(len(data)),
    "in UTF-16": lambda data, chance: data.decode("latin-1").encode("utf-16"),
}


def damage(tally: Tally, folder: Path, chance: random.Random, count: int) -> None:
    """Every file of a run, a study and a store, damaged in every way; then each command that reads it."""
    study = ("train", "-m", *TINY, "backbone=resnet18", "backbone.weights=bundled", "strategy=freeze,full", "seed=1,2")
    given = (*study, "trainer.max_epochs=2", "name=study", "hydra/launcher=basic", "rerun=failed")
    done = command(folder, *given, f"paths.cache_dir={folder}/cache", limit_s=300)
    assert done.code == 0, done.text[-2000:]
    images = folder / "new"
    images.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    runs = sorted(path.parent for path in (folder / "outputs" / "study").glob("*/result.json"))
    run = next(path for path in runs if "-full-" in path.name)
    right = _predicted(folder, run)
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    keep = folder / "kept"
    for name in ("outputs", "cache"):
        shutil.copytree(folder / name, keep / name, symlinks=True)
    single = [*_overrides(run), "name=study", f"paths.cache_dir={folder}/cache"]
    targets = [path for path in sorted((folder / "outputs").rglob("*")) if path.is_file() and run.name in str(path)]
    targets += [path for path in sorted((folder / "outputs" / "study").iterdir()) if path.is_file()]
    targets += [path for path in sorted((folder / "cache").rglob("*")) if path.is_file()]
    targets += [path for path in sorted((folder / "outputs" / "study" / ".frozen").glob("*")) if path.is_file()]
    for trial in range(count):
        path = targets[trial % len(targets)]
        name = list(DAMAGES)[(trial // len(targets) + trial) % len(DAMAGES)]
        _break(path, DAMAGES[name], chance)
        note = f"{path.relative_to(folder)} {name}"
        uses: dict[str, Callable[[], str]] = {
            "predict": lambda: _use_predict(folder, run, right),
            "report": lambda: command(folder, "report", "outputs/study").outcome,
            "runs": lambda: command(folder, "runs", "outputs").outcome,
            "train": lambda: _use_train(folder, single, run, metrics),
        }
        use = chance.choice(list(uses))
        tally.add(f"a file {name}", uses[use](), f"{note}, then {use}")
        for kept in ("outputs", "cache"):
            shutil.rmtree(folder / kept)
            shutil.copytree(keep / kept, folder / kept, symlinks=True)


def _overrides(run: Path) -> list[str]:
    given = json.loads((run / "result.json").read_text())["config"]["overrides"]
    return [item for item in given if not item.startswith(("name=", "paths.", "hydra"))]


def _break(path: Path, how: Callable[[bytes, random.Random], bytes | None], chance: random.Random) -> None:
    changed = how(path.read_bytes(), chance)
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)


def _predicted(folder: Path, run: Path) -> tuple[Done, str]:
    output = folder / "predicted.csv"
    output.unlink(missing_ok=True)
    done = command(folder, "predict", str(run), "new", "--output", str(output))
    return done, output.read_text() if output.exists() else ""


def _use_predict(folder: Path, run: Path, right: tuple[Done, str]) -> str:
    done, text = _predicted(folder, run)
    return "different" if done.outcome == "ok" and text != right[1] else done.outcome


def _use_train(folder: Path, overrides: list[str], run: Path, metrics: dict) -> str:
    done = command(folder, "train", *overrides, limit_s=60)
    if done.outcome != "ok":
        return done.outcome
    found = json.loads((run / "result.json").read_text())
    return "ok" if found["status"] == "done" and found["metrics"] == metrics else "different"


# Hostile inputs


def hostile(tally: Tally, folder: Path, chance: random.Random) -> None:
    """Run directories, weights, images and tables that want to run something, fill the memory or never end."""
    done = command(folder, "train", *TINY, "trainer.max_epochs=1", "name=good", limit_s=120)
    assert done.code == 0, done.text[-2000:]
    (run,) = (path.parent for path in (folder / "outputs" / "good").glob("*/result.json"))
    (folder / "new").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "new" / "a.png")
    for kind, trials in (
        ("run directory", _runs(run)),
        ("weights", _weights(folder)),
        ("images", _images(folder)),
        ("table", _tables(folder)),
    ):
        for name, arguments in trials:
            mark = folder / "executed"
            done = command(folder, *arguments)
            outcome = "executed" if mark.exists() else done.outcome
            shutil.rmtree(mark) if mark.is_dir() else mark.unlink(missing_ok=True)
            tally.add(f"hostile {kind}", outcome, f"{name} {done.text[-400:]}")


def _runs(run: Path) -> Iterator[tuple[str, list[str]]]:
    """A foreign ``config.yaml`` that names what is no component of this package."""
    import yaml

    mark = str(run.parents[2] / "executed")
    calls: dict[str, dict] = {
        "write_text": {"_target_": "pathlib.Path.write_text", "self": mark, "data": "x"},
        "system": {"_target_": "os.system", "command": f"touch {mark}"},
        "run": {"_target_": "subprocess.check_call", "args": ["touch", mark]},
        "joblib": {"_target_": "joblib.load", "filename": f"{mark}.joblib"},
        "hub": {"_target_": "torch.hub.load", "repo_or_dir": str(run), "model": "x", "source": "local"},
        "site": {"_target_": "site.addsitedir", "sitedir": str(run)},
        "numpy": {"_target_": "numpy.load", "file": f"{mark}.npy", "allow_pickle": True},
        "exec": {"_target_": "builtins.exec", "_args_": [f"open({mark!r}, 'w')"]},
        "hydra": {"_target_": "hydra.utils.call", "config": {"_target_": "os.mkdir", "path": mark}},
        "internal": {"_target_": "headstart.system.atomic.atomic_write", "path": mark},
    }
    original = yaml.safe_load((run / "config.yaml").read_text())
    for key in ("strategy", "head", "backbone", "datamodule", "optimizer"):
        for name, call in calls.items():
            for place in ("itself", "nested"):
                changed = json.loads(json.dumps(original))
                changed[key] = call if place == "itself" else {**changed[key], "extra": call}
                copy = run.parents[1] / "hostile" / f"{key}-{name}-{place}"
                shutil.copytree(run, copy)
                (copy / "config.yaml").write_text(yaml.safe_dump(changed))
                verb = (
                    ["predict", str(copy), "new"]
                    if name < "m"
                    else ["export", str(copy), "--output", str(copy / "out")]
                )
                yield f"{key} {name} {place}", verb


def _weights(folder: Path) -> Iterator[tuple[str, list[str]]]:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (folder / "executed",)

    files = {"pickle.pth": pickle.dumps(Evil()), "text.safetensors": b"x" * 100, "empty.pth": b""}
    files["huge.safetensors"] = (2**62).to_bytes(8, "little") + b"{}"
    files["header.safetensors"] = (16).to_bytes(8, "little") + b'{"a": {"x": 1}} '
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil()))
    os.mkfifo(folder / "pipe.pth")
    for name in (*files, "zip.pth", "pipe.pth"):
        yield name, ["train", *TINY, "backbone=resnet18", f"backbone.weights={folder / name}", "trainer.max_epochs=1"]


def _images(folder: Path) -> Iterator[tuple[str, list[str]]]:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n(" + str(folder / "executed").encode() + b") (w) file\n"
    bomb = folder / "bomb.png"
    Image.new("1", (13000, 13000)).save(bomb)
    content = {"eps.jpg": eps, "text.png": b"P1\n" + b"# text\n" * 100_000, "svg.png": b"<svg/>", "empty.jpg": b""}
    for name in (*content, "bomb.png", "pipe.png", "zero.png", "loop.png", "b\udce4r.png"):
        root = folder / f"images-{len(list(folder.glob('images-*')))}"
        for label in ("a", "b"):
            (root / label).mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (32, 32), (number, 0, 0)).save(root / label / f"{number}.png")
        place = root / "a" / name
        if name in content:
            place.write_bytes(content[name])
        elif name == "bomb.png":
            shutil.copy(bomb, place)
        elif name == "pipe.png":
            os.mkfifo(place)
        elif name == "zero.png":
            place.symlink_to("/dev/zero")
        elif name == "loop.png":
            place.symlink_to(place)
        else:
            shutil.copy(root / "a" / "0.png", place)
        yield (
            f"train on {name!a}",
            [
                "train",
                *TINY,
                "datamodule=folder",
                f"datamodule.root={root}",
                "trainer.max_epochs=1",
                "datamodule.shots=null",
            ],
        )
        (run,) = (path.parent for path in (folder / "outputs" / "good").glob("*/result.json"))
        yield f"predict {name!a}", ["predict", str(run), str(root), "--output", str(folder / "out.csv")]


def _tables(folder: Path) -> Iterator[tuple[str, list[str]]]:
    root = folder / "listed"
    root.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (number * 20, 0, 0)).save(root / f"{number}.png")
    lines = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(12))
    tables = {
        "nul": "path,label\n" + lines.replace("a", "\0"),
        "outside": "path,label\n" + lines + "../../../../etc/passwd,a\n",
        "absolute": "path,label\n" + lines + "/dev/zero,a\n",
        "ragged": "path,label\n" + lines + "x\n",
        "long": "path,label\n" + lines + "y" * 200_000 + ",a\n",
        "wide": "path," + ",".join(f"c{number}" for number in range(5000)) + "\n" + lines,
        "formula": "path,label\n" + lines.replace("a", "=cmd|' /C calc'!A0"),
        "escape": "path,label\n" + lines.replace("a", "\x1b[31mred"),
        "quotes": 'path,label\n"' + lines,
        "infinite": "path,label\n" + lines.replace("a", "inf").replace("b", "1e999"),
    }
    contents = {name: text.encode() for name, text in tables.items()}
    contents["binary"] = random.Random(0).randbytes(5000)
    contents["latin"] = ("path,label\n" + lines + "ä,a\n").encode("latin-1")
    common = ["train", *TINY, "datamodule=csv", "trainer.max_epochs=1", "datamodule.shots=null"]
    for name, data in contents.items():
        (root / f"{name}.csv").write_bytes(data)
        task = ["task=regression"] if name == "infinite" else []
        yield name, [*common, f"datamodule.manifest={root / name}.csv", *task]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Kills, damaged files and hostile inputs, at random; a table at the end."
    )
    parser.add_argument(
        "--only", nargs="+", choices=["kills", "damage", "hostile"], default=["kills", "damage", "hostile"]
    )
    parser.add_argument("--kills", type=int, default=100, help="processes killed (default: 100)")
    parser.add_argument("--damaged", type=int, default=200, help="files damaged (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table there, as Markdown")
    choices = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    from headstart.launch.server import preload

    preload("headstart.commands.cli")
    tally, chance = Tally(), random.Random(choices.seed)
    parts: dict[str, Callable[[Path], None]] = {
        "kills": lambda folder: kills(tally, folder, chance, choices.kills),
        "damage": lambda folder: damage(tally, folder, chance, choices.damaged),
        "hostile": lambda folder: hostile(tally, folder, chance),
    }
    for name in choices.only:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            parts[name](Path(folder))
    print(tally.table())
    if choices.out:
        choices.out.write_text(tally.table())
    return 1 if tally.bad else 0


if __name__ == "__main__":
    sys.exit(main())
