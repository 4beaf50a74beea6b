"""Copies planted among 10,000 images: how many does ``headstart inspect`` find, what else does it name, how long?

    python experiments/duplicates/measure.py PATH...      # folders of photographs; writes planted.csv beside this

The images are split in two; of some of the first half a changed copy is put into the second half under another name.
Then the data set is looked at as ``headstart inspect`` does it, with nothing remembered from an earlier look.
"""

import argparse
import csv
import hashlib
import io
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from headstart.data import Folder
from headstart.data.scan import IMG_EXTENSIONS
from headstart.inspection.facts import Pair, inspect_data
from headstart.system.hardware import usable_cores


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """Both sides by a factor."""
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int) -> Image.Image:
    """As JPEG of this quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Without this share at each side."""
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


KINDS: dict[str, Callable[[Image.Image], Image.Image] | None] = {
    "the same file": None,
    "half the size": lambda image: scaled(image, 0.5),
    "1.7 times the size": lambda image: scaled(image, 1.7),
    "JPEG of quality 40": lambda image: encoded(image, 40),
    "mirrored": ImageOps.mirror,
    "mirrored, 0.7 times the size, quality 60": lambda image: encoded(scaled(ImageOps.mirror(image), 0.7), 60),
    "a fifth lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "2 % off each side": lambda image: cropped(image, 0.02),
    "5 % off each side": lambda image: cropped(image, 0.05),
}


def plant(folders: list[Path], root: Path, images: int, planted: int) -> dict[tuple[str, str], str]:
    """Write ``root/{train,val}/{0,1}/*`` of so many images; the planted pairs of names, with their kind."""
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS]
    content = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in sorted(found)}
    copies = planted * len(KINDS)
    chosen = [content[digest] for digest in sorted(content)[: images - copies]]
    if len(chosen) < images - copies:
        raise SystemExit(f"{len(content)} different images there; it takes {images - copies}")
    for split in ("train", "val"):
        for name in ("0", "1"):
            (root / split / name).mkdir(parents=True)
    names = [f"{'train' if 2 * n < images else 'val'}/{n % 2}/{n:05d}{path.suffix}" for n, path in enumerate(chosen)]
    for name, path in zip(names, chosen, strict=True):
        shutil.copyfile(path, root / name)
    pairs = {}
    for number in range(copies):
        kind, change = list(KINDS.items())[number % len(KINDS)]
        name = f"val/{number % 2}/copy{number:05d}{'.jpg' if change else chosen[number].suffix}"
        if change is None:
            shutil.copyfile(chosen[number], root / name)
        else:
            with Image.open(chosen[number]) as image:
                change(ImageOps.exif_transpose(image).convert("RGB")).save(root / name, quality=90)
        pairs[names[number], name] = kind
    return pairs


def main() -> None:
    """Plant, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--planted", type=int, default=50, help="copies of each kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("planted.csv"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        pairs = plant(args.folders, root, args.images, args.planted)
        data = Folder(root=root, batch_size=1, seed=0, on_leak="ignore", memory_path=Path(folder) / "memory")
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        data.prepare()
        found = inspect_data(data)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        cpu = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    ids = {split: data.records(split).ids for split in data.sizes}

    def names(pair: Pair) -> tuple[str, str]:
        return ids[pair.first.split][pair.first.index], ids[pair.second.split][pair.second.index]

    named = {names(pair): pair for pair in found.pairs}
    hits = Counter(kind for pair, kind in pairs.items() if pair in named)
    others = [pair for pair in named if pair not in pairs]
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "count", "of"])
        for kind in KINDS:
            writer.writerow([kind, hits[kind], args.planted])
        total = args.images * (args.images - 1) // 2
        writer.writerow(["other pairs named", len(others), total - len(pairs)])
        writer.writerow([f"seconds ({usable_cores()} cores)", round(seconds, 1), ""])
        writer.writerow(["seconds of computing", round(cpu, 1), ""])
    print(args.out.read_text())
    for first, second in others:
        print(f"not planted: {first} {second} {named[first, second].correlation:.3f}")


if __name__ == "__main__":
    main()
