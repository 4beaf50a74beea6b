"""Run directories, weights, images and tables that want to run something, fill the memory or never end."""

import io
import itertools
import json
import os
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
        "tar files": _shards(folder),
        "masks": _masks(folder),
        "features": _features(folder, good),
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
        for shade, label in enumerate("ab"):
            (root / label).mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (32, 32), (number, shade, 0)).save(root / label / f"{number}.png")
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


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (number * 20, 0, 0)).save(file, "PNG")
    return file.getvalue()


def _shards(folder: Path) -> Iterator[Trial]:
    bomb = (folder / "bomb.png").read_bytes()
    members: dict[str, bytes] = {}
    for number in range(12):
        members |= {f"{number:02}.png": _png(number), f"{number:02}.cls": b"%d" % (number % 2)}
    changes: dict[str, dict[str, bytes]] = {
        "bomb": {"03.png": bomb},
        "eps": {"03.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n"},
        "pickle": {"03.cls": _pickle(folder)},
        "deep": {f"{n:02}.json": b"[" * 100_000 for n in range(12)},
        "outside": {"../../../outside.png": _png(1), "/absolute.png": _png(1)},
        "long": {"04.cls": b"x" * 200_000},
    }
    for name in (*changes, "link", "device", "backwards", "sparse", "pipe", "cut", "gz"):
        root = folder / f"shards-{name}"
        root.mkdir()
        _write_shard(root / "0.tar", members | changes.get(name, {}), name)
        choices = [f"datamodule.root={root}", "datamodule.shots=null"]
        choices += ["datamodule.target=json.label"] if name == "deep" else []
        yield name, [*TINY, "datamodule=webdataset", *choices, "trainer.max_epochs=1"]


def _write_shard(path: Path, members: dict[str, bytes], how: str) -> None:
    kinds = {"link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE, "sparse": tarfile.GNUTYPE_SPARSE}
    if how == "pipe":
        os.mkfifo(path.with_name("1.tar"))
    with tarfile.open(path, "w:gz" if how == "gz" else "w") as file:
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name == "03.png" and how in kinds:
                info.type, info.linkname = kinds[how], "/dev/zero"
            file.addfile(info, io.BytesIO(content))
    whole = bytearray(path.read_bytes())
    if how == "backwards":  # a member of less than no bytes leads back to itself
        whole[124:136] = (-1024).to_bytes(12, "big", signed=True)
        whole[148:156] = b" " * 8
        whole[148:156] = f"{sum(whole[:512]):06o}\0 ".encode()
    path.write_bytes(whole[: len(whole) // 2 + 100] if how == "cut" else whole)


def _masks(folder: Path) -> Iterator[Trial]:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n(" + str(folder / "executed").encode() + b") (w) file\n"
    for name in ("eps", "bomb", "pipe", "zero", "loop", "colours", "none", "text"):
        root = folder / f"masks-{name}"
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (32, 32), (number, 0, 0)).save(root / "images" / f"{number}.png")
            Image.new("L", (32, 32), number % 2).save(root / "masks" / f"{number}.png")
        place = root / "masks" / "3.png"
        place.unlink()
        if name in ("eps", "text"):
            place.write_bytes(eps if name == "eps" else b"P1\n" + b"# text\n" * 100_000)
        elif name == "bomb":
            shutil.copy(folder / "bomb.png", place)
        elif name == "pipe":
            os.mkfifo(place)
        elif name in ("zero", "loop"):
            place.symlink_to("/dev/zero" if name == "zero" else place)
        elif name == "colours":
            Image.new("RGB", (32, 32)).save(place)
        choices = [f"datamodule.root={root}", "datamodule.shots=null", "task=segmentation", "head=dense"]
        yield name, [*TINY, "datamodule=masks", *choices, "trainer.max_epochs=1"]


def _features(folder: Path, run: Path) -> Iterator[Trial]:
    """Files that `headstart similar` is to look through."""
    named = folder / "stored"
    named.mkdir()
    objects = np.array([{}], dtype=object)
    whole: dict[str, Any] = {"ids": np.array(["a"]), "features": np.ones((1, 8), np.float32), "source": np.array("x")}
    np.savez(named / "objects.npz", **(whole | {"ids": objects}))
    np.savez(named / "nan.npz", **(whole | {"features": np.full((1, 8), np.nan)}))
    np.savez(named / "names.npz", **(whole | {"ids": np.array(["/dev/zero\0"])}))
    (named / "pickle.npz").write_bytes(_pickle(folder))
    (named / "cut.npz").write_bytes((named / "nan.npz").read_bytes()[:300])
    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    header = b"\x93NUMPY\x01\x00v\x00" + shape.ljust(117) + b"\n"
    with zipfile.ZipFile(named / "huge.npz", "w") as archive:
        for name in whole:
            archive.writestr(f"{name}.npy", header)
    os.mkfifo(named / "pipe.npz")
    for path in sorted(named.iterdir()):
        yield path.stem, ["similar", str(run), "new", "--among", str(path), "--output", str(folder / "near.html")]
