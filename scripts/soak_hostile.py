"""Run directories, weights, images and tables that want to run something, fill the memory or never end."""

import itertools
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from PIL import Image
from soak_process import TINY, Tally, command

Trial = tuple[str, list[str]]


def run(tally: Tally, folder: Path, chance: random.Random, count: int) -> None:
    """Give commands ``count`` hostile inputs, or all there are."""
    done = command(folder, *TINY, "trainer.max_epochs=1", "name=good")
    if done.code != 0:
        raise RuntimeError(done.text[-3000:])
    (good,) = (path.parent for path in (folder / "outputs" / "good").glob("*/result.json"))
    (folder / "new").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "new" / "a.png")
    mark = folder / "executed"
    kinds = {
        "run directory": _runs(good),
        "weights": _weights(folder),
        "images": _images(folder),
        "table": _tables(folder),
    }
    for kind, trials in kinds.items():
        for name, arguments in itertools.islice(trials, max(1, count // len(kinds)) if count < 100 else None):
            done = command(folder, *arguments)
            outcome = "executed" if mark.exists() else done.outcome
            tally.add(f"hostile {kind}", outcome, f"{name} {done.text[-2000:]}")
            shutil.rmtree(mark) if mark.is_dir() else mark.unlink(missing_ok=True)


def _runs(run: Path) -> Iterator[Trial]:
    """A foreign ``config.yaml`` that names what is no component of this package."""
    mark, traps = str(run.parents[2] / "executed"), _traps(run.parents[2])
    calls: dict[str, dict] = {
        "write_text": {"_target_": "pathlib.Path.write_text", "self": mark, "data": "x"},
        "system": {"_target_": "os.system", "command": f"touch {mark}"},
        "run": {"_target_": "subprocess.check_call", "args": ["touch", mark]},
        "joblib": {"_target_": "joblib.load", "filename": f"{traps}/pickle"},
        "hub": {"_target_": "torch.hub.load", "repo_or_dir": str(traps), "model": "x", "source": "local"},
        "site": {"_target_": "site.addsitedir", "sitedir": str(traps)},
        "numpy": {"_target_": "numpy.load", "file": f"{traps}/pickle", "allow_pickle": True},
        "torch": {"_target_": "torch.load", "f": f"{traps}/pickle", "weights_only": False},
        "exec": {"_target_": "builtins.exec", "_args_": [f"open({mark!r}, 'w')"]},
        "hydra": {"_target_": "hydra.utils.call", "config": {"_target_": "os.mkdir", "path": mark}},
        "internal": {"_target_": "headstart.system.atomic.atomic_write", "path": mark},
    }
    original = yaml.safe_load((run / "config.yaml").read_text())
    # Whoever makes a run directory makes its digests, or leaves them out.
    result = json.loads((run / "result.json").read_text())
    unsigned = json.dumps({name: value for name, value in result.items() if name not in ("digest", "files")})
    for key in ("strategy", "head", "backbone", "datamodule", "optimizer"):
        for name, call in calls.items():
            for place in ("itself", "nested"):
                changed = json.loads(json.dumps(original))
                changed[key] = call if place == "itself" else {**changed[key], "extra": call}
                copy = run.parents[1] / "hostile" / f"{key}-{name}-{place}"
                shutil.copytree(run, copy)
                (copy / "config.yaml").write_text(yaml.safe_dump(changed))
                (copy / "result.json").write_text(unsigned)
                verb = (
                    ["predict", str(copy), "new"]
                    if name < "m"
                    else ["export", str(copy), "--output", str(copy / "out")]
                )
                yield f"{key} {name} {place}", verb


def _pickle(folder: Path) -> bytes:
    """What leaves its mark when it is unpickled."""

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (folder / "executed",)

    return pickle.dumps(Evil())


def _traps(folder: Path) -> Path:
    """A folder whose every file leaves the mark when it is loaded."""
    traps = folder / "traps"
    traps.mkdir()
    code = f"import pathlib; pathlib.Path({str(folder / 'executed')!r}).touch()\n"
    (traps / "pickle").write_bytes(_pickle(folder))
    for name in ("hubconf.py", "trap.pth"):
        (traps / name).write_text(code)
    return traps


def _weights(folder: Path) -> Iterator[Trial]:
    files = {"pickle.pth": _pickle(folder), "text.safetensors": b"x" * 100, "empty.pth": b""}
    files["huge.safetensors"] = (2**62).to_bytes(8, "little") + b"{}"
    files["header.safetensors"] = (16).to_bytes(8, "little") + b'{"a": {"x": 1}} '
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("archive/data.pkl", _pickle(folder))
    os.mkfifo(folder / "pipe.pth")
    for name in (*files, "zip.pth", "pipe.pth"):
        yield name, [*TINY, "backbone=resnet18", f"backbone.weights={folder / name}", "trainer.max_epochs=1"]


def _images(folder: Path) -> Iterator[Trial]:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n(" + str(folder / "executed").encode() + b") (w) file\n"
    bomb = folder / "bomb.png"
    Image.new("1", (13000, 13000)).save(bomb)
    content = {"eps.jpg": eps, "text.png": b"P1\n" + b"# text\n" * 100_000, "svg.png": b"<svg/>", "empty.jpg": b""}
    for name in (*content, "bomb.png", "pipe.png", "zero.png", "loop.png", "b\udce4r.png", "class.png"):
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
        elif name == "class.png":
            os.mkfifo(root / "c")
            (root / "d").symlink_to(root / "d")
            (root / "e").touch()
        else:
            shutil.copy(root / "a" / "0.png", place)
        yield (
            f"train on {name!a}",
            [
                *TINY,
                "datamodule=folder",
                f"datamodule.root={root}",
                "trainer.max_epochs=1",
                "datamodule.shots=null",
            ],
        )
        (run,) = (path.parent for path in (folder / "outputs" / "good").glob("*/result.json"))
        yield f"predict {name!a}", ["predict", str(run), str(root), "--output", str(folder / "out.csv")]


def _tables(folder: Path) -> Iterator[Trial]:
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
    common = [*TINY, "datamodule=csv", "trainer.max_epochs=1", "datamodule.shots=null"]
    for name, data in contents.items():
        (root / f"{name}.csv").write_bytes(data)
        task = ["task=regression"] if name == "infinite" else []
        yield name, [*common, f"datamodule.manifest={root / name}.csv", *task]
