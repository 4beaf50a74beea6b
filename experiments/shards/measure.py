"""Memory while training on many images in tar files: does it stay where it is after the first steps?

    python experiments/shards/measure.py        # writes memory.csv beside this; --images, --epochs, --workers

Synthetic images of 32 pixels are written into shards of 5,000 and a small network is trained on them, with the images
read from the shards in every epoch (no cache). A row is a second: memory of the process and its workers, in megabytes.
"""

import argparse
import csv
import io
import os
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

import headstart

CLASSES, PER_SHARD, SIDE = 10, 5_000, 32
TEST_SHARE = 0.1


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


def memory(process: int) -> int:
    """Resident bytes of a process and those it started."""
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for one in [process, *_children(process)]:
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * page
        except OSError:
            continue
    return total


def _children(process: int) -> list[int]:
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(one) for one in listed.split()]


def main() -> None:
    """Write, train, watch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("memory.csv"))
    args = parser.parse_args()
    samples: list[tuple[float, int]] = []
    ended = threading.Event()

    def watch(started: float) -> None:
        while not ended.wait(1):
            samples.append((time.perf_counter() - started, memory(os.getpid())))

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shards"
        root.mkdir()
        write(root, args.images)
        watcher = threading.Thread(target=watch, args=(time.perf_counter(),), daemon=True)
        watcher.start()
        run = headstart.train(
            "datamodule=webdataset", f"datamodule.root={root}", "backbone=small_cnn", "strategy=scratch",
            "datamodule.image_size=32", "datamodule.augment=none", "datamodule.batch_size=256", "cache=off",
            f"datamodule.num_workers={args.workers}", f"trainer.max_epochs={args.epochs}", "trainer.precision=32-true",
            "callbacks.plots=false", "callbacks.progress=none", f"paths.output_dir={folder}",
            f"paths.cache_dir={folder}",
        )  # fmt: skip
        ended.set()
        watcher.join()
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["second", "megabytes"])
        writer.writerows((round(second), round(size / 2**20)) for second, size in samples)
    sizes = np.array([size for _, size in samples]) / 2**20
    half = len(sizes) // 2
    print(f"{args.images} images, {args.epochs} epochs, test/acc {run.result.metrics['test/acc']:.3f}")
    print(f"first half at most {sizes[:half].max():.0f} MB, second half at most {sizes[half:].max():.0f} MB")


if __name__ == "__main__":
    main()
