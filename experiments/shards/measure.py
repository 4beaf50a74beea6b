"""Many images in tar files through training and prediction: is memory flat, and does a kill lose anything?

    python experiments/shards/measure.py        # writes memory.csv beside this; --images, --epochs, --workers

Synthetic images of 32 pixels are written into shards of 5,000. A small network is trained on them, with the images read
from the shards in every epoch (no cache); the process is killed (SIGKILL) in the second epoch and started again. Then
all images are predicted from the shards; that is killed half way and started again. A row is a second: memory of the
process and its workers, in megabytes.
"""

import argparse
import csv
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.runs.result import read_result

CLASSES, PER_SHARD, SIDE = 10, 5_000, 32
TEST_SHARE = 0.1
Samples = list[tuple[int, float]]


def write(root: Path, images: int) -> None:
    """Shards of noise whose colour depends on the class; a tenth are for testing."""
    generator = np.random.default_rng(0)
    for shard in range(-(-images // PER_SHARD)):
        split = "test" if shard < TEST_SHARE * images / PER_SHARD else "train"
        with tarfile.open(root / f"{split}-{shard:06d}.tar", "w") as file:
            for number in range(shard * PER_SHARD, min(images, (shard + 1) * PER_SHARD)):
                label = number % CLASSES
                pixels = generator.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., label % 3] += np.uint8(15 * label)
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "JPEG", quality=80)
                for suffix, data in (("jpg", content.getvalue()), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{number:07d}.{suffix}")
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))


def memory(process: int) -> float:
    """Resident megabytes of a process and those it started."""
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for one in [process, *_children(process)]:
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * page
        except OSError:
            continue
    return total / 2**20


def _children(process: int) -> list[int]:
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(one) for one in listed.split()]


def watched(arguments: Sequence[str], folder: Path, far_enough: Callable[[], bool] | None = None) -> Samples:
    """Run ``headstart`` and look at its memory every second; SIGKILL as soon as it is far enough.

    Returns: seconds since the start with megabytes.
    """
    samples: Samples = []
    started = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen([sys.executable, "-m", "headstart", *arguments], stdout=log, stderr=log)
        while process.poll() is None:
            samples.append((round(time.monotonic() - started), memory(process.pid)))
            if far_enough is not None and far_enough():
                process.kill()
            time.sleep(1)
    if process.returncode != (0 if far_enough is None else -9):
        raise SystemExit(f"ended with {process.returncode}:\n{(folder / 'log.txt').read_text()[-2000:]}")
    return samples


def train(root: Path, folder: Path, *, epochs: int, workers: int) -> tuple[Path, Samples, Samples]:
    """Killed a while after the checkpoint of the first epoch, then to the end: the run, and both memories."""
    arguments = [
        "train", "datamodule=webdataset", f"datamodule.root={root}", "backbone=small_cnn", "strategy=scratch",
        "datamodule.image_size=32", "datamodule.augment=none", "datamodule.batch_size=256", "cache=off",
        f"datamodule.num_workers={workers}", f"trainer.max_epochs={epochs}", "trainer.precision=32-true",
        "callbacks.plots=false", f"paths.output_dir={folder}", f"paths.cache_dir={folder}",
    ]  # fmt: skip
    seen: list[float] = []

    def in_the_second_epoch() -> bool:
        if not seen and any(folder.rglob("checkpoints/*.ckpt")):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > 30

    killed = watched(arguments, folder, in_the_second_epoch)
    again = watched(arguments, folder)
    (result,) = folder.rglob("result.json")
    return result.parent, killed, again


def predict(run: Path, root: Path, folder: Path, *, images: int) -> tuple[list[str], Samples, Samples]:
    """Killed after half of the rows, then to the end: the paths in the output, and both memories."""
    output = folder / "predictions.csv"
    arguments = ["predict", str(run), str(root), "--output", str(output), "--batch-size", "256"]

    def half() -> bool:
        part = Path(f"{output}.part")
        return part.exists() and part.read_bytes().count(b"\n") > images // 2

    killed = watched(arguments, folder, half)
    again = watched(arguments, folder)
    with output.open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file)], killed, again


def told(what: str, samples: Samples) -> str:
    """The most of each half of a process's time, its start left out."""
    sizes = [size for _, size in samples]
    half = len(sizes) // 2
    return f"{what}: {len(sizes)} s, first half at most {max(sizes[:half]):.0f} MB, second {max(sizes[half:]):.0f} MB"


def main() -> None:
    """Write, train, predict, watch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("memory.csv"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "shards"
        root.mkdir()
        write(root, args.images)
        run, *trained = train(root, folder, epochs=args.epochs, workers=args.workers)
        result = read_result(run)
        with (run / "metrics.csv").open(newline="") as file:
            epochs = [row["epoch"] for row in csv.DictReader(file)]
        found, *predicted = predict(run, root, folder, images=args.images)
        log = (folder / "log.txt").read_text()
    parts = dict(
        zip(
            ("training, killed", "training, on", "prediction, killed", "prediction, on"),
            (*trained, *predicted),
            strict=True,
        )
    )
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["process", "second", "megabytes"])
        writer.writerows((part, second, round(size)) for part, samples in parts.items() for second, size in samples)
    print(f"{args.images} images, {args.epochs} epochs, test/acc {result.metrics['test/acc']:.3f}")
    print(f"epochs in metrics.csv: {', '.join(epochs)}; {result.cost.images_seen} images seen")
    for part, samples in parts.items():
        print(told(part, samples))
    print(f"{len(found)} rows of {len(set(found))} images")
    print("\n".join(line for line in log.splitlines() if "going on" in line or "resum" in line.lower()))


if __name__ == "__main__":
    main()
