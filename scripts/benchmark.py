"""Speed and memory against the obvious alternative, both measured in this call, printed as ratios.

python scripts/benchmark.py --root ROOT [--repeats 3] [--out FILE]
                            [--only help freeze lite0 hit heads partial full throughput memory predict rank gpu]

ROOT holds train/<class>/* and val/<class>/* (photographs; the numbers in experiments/speed were made with 244 and 153
of them). Whole processes are timed from outside, start-up included, the two sides in turn; absolute seconds depend on
the machine, so each row names what it is compared with (scripts/plain_loop.py and scripts/benchmark_loops.py).
``gpu`` needs one and is left out elsewhere.
"""

import argparse
import contextlib
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "train.py"
BUNDLED = HERE.parent / "src/headstart/weights/bundled/resnet18_tiny_imagenet_64.safetensors"
IMPORTS = "import torch, pytorch_lightning, timm"
SAVE_LITE0 = """
import sys, timm
from safetensors.torch import save_file
from headstart.weights.loading import load_file
from headstart.weights.sources import resolve_weights
name = "tf_efficientnet_lite0"
network = timm.create_model(name)
load_file(network, resolve_weights(name, "package"))
save_file(network.state_dict(), sys.argv[1])
"""
WRITE_JPEGS = """
import pathlib, sys, numpy
from PIL import Image
folder, count, side = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder.mkdir(parents=True)
rng = numpy.random.default_rng(0)
for number in range(count):
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=numpy.uint8))
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=90)
"""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what was measured, with its unit.
        against: the other side.
        ours: what was measured, one number a repeat.
        theirs: the other side's, measured right before or after.
        target: what is to be reached, in words.
        ratio: how the two of a repeat are put in relation.
    """

    work: str
    against: str
    ours: Sequence[float]
    theirs: Sequence[float]
    target: str
    ratio: "Ratio"

    def cells(self) -> list[str]:
        """As text: the median of each side and of the ratios of all repeats, from five repeats on with their range."""
        sides = [statistics.median(side) for side in (self.ours, self.theirs)]
        numbers = [f"{value:.2f}" if value < 100 else f"{value:.0f}" for value in sides]
        found = [self.ratio.of(ours, theirs) for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        told = self.ratio.words.format(statistics.median(found))
        if len(found) >= 5:
            told += f" ({min(found):.2f} to {max(found):.2f})"
        return [self.work, *numbers, told, self.target, self.against]


@dataclass(frozen=True)
class Ratio:
    """How two figures are put in relation: ``of(ours, theirs)``, and the words for it."""

    of: Callable[[float, float], float]
    words: str


HEADER = ["work", "here", "other", "ratio", "to reach", "compared with"]


FASTER = Ratio(lambda ours, theirs: theirs / ours, "{:.2f}x faster")
TIMES = Ratio(lambda ours, theirs: ours / theirs, "{:.2f}x")
LONGER = Ratio(lambda ours, theirs: ours - theirs, "{:+.2f} s")


class Bench:
    """Runs commands and keeps their times."""

    def __init__(self, root: Path, work: Path, repeats: int) -> None:
        self.root, self.work, self.repeats = root, work, repeats
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        self._run = 0

    def output(self, command: Sequence[str]) -> str:
        """What a whole process prints; its failure is an error."""
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.work, env=self.environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[:6])} … failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def seconds(self, command: Sequence[str]) -> float:
        """Wall-clock seconds of a whole process."""
        start = time.perf_counter()
        self.output(command)
        return time.perf_counter() - start

    def peak_mib(self, command: Sequence[str]) -> tuple[float, str]:
        """Highest anonymous memory of a process, and what it prints as errors."""
        highest = 0
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                command, cwd=self.work, env=self.environment, stdout=subprocess.DEVNULL, stderr=said
            )
            while process.poll() is None:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    highest = max(highest, int(status.partition("RssAnon:")[2].split()[0]))
                time.sleep(0.02)
            said.seek(0)
            text = said.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(command[:6])} … failed with exit code {process.returncode}:\n{text[-2000:]}")
        return highest / 1024, text

    def study(self, *overrides: str, cache: str) -> list[str]:
        """A training in a study of its own, so that nothing is returned from an earlier one."""
        self._run += 1
        places = [f"name=run{self._run}", f"paths.output_dir={self.work}/outputs"]
        return [sys.executable, str(TRAIN), *places, f"paths.cache_dir={self.work}/{cache}", *overrides]

    def train(self, *overrides: str, cache: str) -> list[str]:
        """Of ResNet-18 on the photographs."""
        network = ["backbone=resnet18", "backbone.weights=bundled"]
        data = ["datamodule=folder", f"datamodule.root={self.root}", "datamodule.augment=none"]
        return self.study(*network, *data, "datamodule.image_size=224", *overrides, cache=cache)

    def noise(self, images: int, side: int, *overrides: str, cache: str) -> list[str]:
        """On images without content."""
        data = ["datamodule=digits", "datamodule._target_=benchmark_noise.Noise", "datamodule.test_fraction=0"]
        sizes = [f"+datamodule.images={images}", f"+datamodule.side={side}", f"datamodule.image_size={side}"]
        return self.study(*data, *sizes, *overrides, "callbacks.plots=false", cache=cache)

    def result(self) -> dict:
        """``result.json`` of the last run."""
        (path,) = (self.work / "outputs" / f"run{self._run}").glob("*/result.json")
        return dict(json.loads(path.read_text()))

    def epoch_seconds(self) -> float:
        """The median epoch of the last run after its first."""
        (metrics,) = (self.work / "outputs" / f"run{self._run}").glob("*/metrics.csv")
        with metrics.open() as file:
            return statistics.median(float(row["seconds"]) for row in list(csv.DictReader(file))[1:])

    def plain(self, mode: str, epochs: int, *more: str, weights: Path = BUNDLED) -> list[str]:
        """The hand-written fp32 loop that decodes and runs the network in every epoch."""
        options = ["--mode", mode, "--size", "224", "--epochs", str(epochs), "--decode-every-epoch", *more]
        return [sys.executable, str(HERE / "plain_loop.py"), str(self.root), str(weights), *options]

    def plain_lite0(self, weights: Path, *more: str, epochs: int) -> float:
        """Seconds of that loop for EfficientNet-Lite0's head, from a training of 1 epoch and one of 3."""
        more = (*more, "--network", "tf_efficientnet_lite0")
        one, three = (self.seconds(self.plain("freeze", count, *more, weights=weights)) for count in (1, 3))
        return one + (epochs - 1) * (three - one) / 2

    def loop(self, name: str, *arguments: str | Path) -> list[str]:
        """One of scripts/benchmark_loops.py; by default on the photographs."""
        given = arguments or (str(self.root), str(BUNDLED))
        return [sys.executable, str(HERE / "benchmark_loops.py"), name, *map(str, given)]

    def pairs(
        self, ours: Callable[[int], float], theirs: Callable[[int], float], repeats: int | None = None
    ) -> tuple[list[float], list[float]]:
        """Both sides in turn, A B A B …, so that a drift of the machine hits both."""
        found = [(ours(i), theirs(i)) for i in range(repeats or self.repeats)]
        return [a for a, _ in found], [b for _, b in found]


def bench_help(bench: Bench) -> list[Row]:
    """Start-up of the help text."""
    ours, theirs = bench.pairs(
        lambda _: bench.seconds([sys.executable, str(TRAIN), "--help"]),
        lambda _: bench.seconds([sys.executable, "-c", "import hydra"]),
    )
    return [Row("train.py --help (s)", "import hydra", ours, theirs, "<= + 0.5 s", LONGER)]


def bench_freeze(bench: Bench) -> list[Row]:
    """Feature extraction for the first time, against the limit."""
    options = ("strategy=freeze", "trainer.max_epochs=30")
    first, limit = bench.pairs(
        lambda i: bench.seconds(bench.train(*options, cache=f"cold{i}")),
        lambda _: bench.seconds(bench.loop("limit")),
    )
    against = "decode once, one forward pass, linear head"
    return [Row("freeze, 30 epochs, first time (s)", against, first, limit, "<= 1.3x", TIMES)]


def bench_slow_way(bench: Bench) -> list[Row]:
    """Feature extraction for the first time, against the network in every epoch; the other side takes minutes."""
    first = [bench.seconds(bench.train("strategy=freeze", "trainer.max_epochs=30", cache="cold"))]
    slow = [bench.seconds(bench.plain("freeze", 30))]
    against = "plain fp32 loop, frozen backbone in each epoch"
    return [Row("freeze, 30 epochs, first time (s)", against, first, slow, ">= 20x", FASTER)]


def bench_lite0(bench: Bench) -> list[Row]:
    """Feature extraction on EfficientNet-Lite0 for the first time, with the default augmentation and without."""
    weights = bench.work / "lite0.safetensors"
    bench.output([sys.executable, "-c", SAVE_LITE0, str(weights)])
    folder = ["datamodule=folder", f"datamodule.root={bench.root}", "backbone=efficientnet_lite0"]
    rows = []
    for augment, target in (("light", ">= 10x"), ("none", ">= 20x")):
        choices = [*folder, "trainer.max_epochs=30", f"datamodule.augment={augment}", "backbone.weights=package"]
        options = ["--augment"] if augment == "light" else []

        def ours(i: int, augment: str = augment, choices: list[str] = choices) -> float:
            return bench.seconds(bench.study(*choices, cache=f"lite0-{augment}{i}"))

        def theirs(_: int, options: list[str] = options) -> float:
            return bench.plain_lite0(weights, *options, epochs=30)

        found = bench.pairs(ours, theirs)
        against = "plain fp32 loop, network in each epoch (of 30, from 3)"
        rows.append(Row(f"lite0, freeze, {augment}, 30 epochs, first time (s)", against, *found, target, FASTER))
    return rows


def bench_hit(bench: Bench) -> list[Row]:
    """Feature extraction from the cache."""
    options = ("strategy=freeze", "trainer.max_epochs=30")
    bench.seconds(bench.train(*options, cache="hit"))
    ours, theirs = bench.pairs(
        lambda _: bench.seconds(bench.train(*options, cache="hit")),
        lambda _: bench.seconds([sys.executable, "-c", IMPORTS]),
    )
    return [Row("the same, cache hit (s)", IMPORTS, ours, theirs, "<= + 2 s", LONGER)]


def bench_heads(bench: Bench) -> list[Row]:
    """Sixty-four configurations of the head in one sweep, against one of them; both for the first time."""
    rates = ",".join(f"{rate:g}" for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3))
    axes = [f"optimizer.lr={rates}", "optimizer.weight_decay=0,0.001,0.01,0.1", "seed=1,2"]
    options = ("strategy=freeze", "trainer.max_epochs=30")
    ours, theirs = bench.pairs(
        lambda i: bench.seconds(bench.train("-m", "hydra/launcher=fused", *options, *axes, cache=f"many{i}")),
        lambda i: bench.seconds(bench.train(*options, cache=f"one{i}")),
    )
    return [Row("64 heads by hydra/launcher=fused (s)", "one freeze run, first time", ours, theirs, "<= 2x", TIMES)]


def bench_partial(bench: Bench) -> list[Row]:
    """Training the last stage on stored activations; seconds of training alone, both sides on decoded images."""
    options = ("strategy=partial", "trainer.max_epochs=10")

    def fit(*more: str) -> float:
        bench.output(bench.train(*options, *more, cache="partial"))
        return float(bench.result()["cost"]["fit_seconds"])

    fit(), fit("cache=images")  # neither side's first time
    ours, theirs = bench.pairs(lambda _: fit(), lambda _: fit("cache=images"))
    return [Row("partial, last stage, 10 epochs, training (s)", "cache=images", ours, theirs, ">= 2x", FASTER)]


def bench_full(bench: Bench) -> list[Row]:
    """Fine-tuning everything, whole process."""
    ours, theirs = bench.pairs(
        lambda i: bench.seconds(bench.train("strategy=full", "trainer.max_epochs=5", cache=f"full{i}")),
        lambda _: bench.seconds(bench.plain("full", 5)),
    )
    return [Row("full, 5 epochs, first time (s)", "plain fp32 loop", ours, theirs, ">= 2.2x", FASTER)]


def bench_throughput(bench: Bench) -> list[Row]:
    """One epoch of fine-tuning on images in memory, evaluation left out; five interleaved pairs."""
    options = ("strategy=full", "trainer.max_epochs=4", "callbacks.progress=none")

    def ours(_: int) -> float:
        bench.output(bench.train(*options, "trainer.check_val_every_n_epoch=4", cache="throughput"))
        return bench.epoch_seconds()

    found = bench.pairs(ours, lambda _: float(bench.output(bench.loop("bare"))), repeats=max(5, bench.repeats))
    work, against = "full, one epoch of 244 images at 224 px (s)", "bare loop, channels_last, in memory"
    return [Row(work, against, *found, ">= 0.95x as fast", FASTER)]


def bench_memory(bench: Bench) -> list[Row]:
    """Peak anonymous memory while features are stored: it must not grow with the number of images."""
    short = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "cache=require", "datamodule.batch_size=256")

    def peak(images: int) -> float:
        return bench.peak_mib(bench.noise(images, 64, *short, cache="noise"))[0]

    work = "extraction of 100,000 64-px images, RssAnon (MiB)"
    return [Row(work, "of 1,000", [peak(100_000)], [peak(1_000)], "<= 1.2x", TIMES)]


def bench_predict(bench: Bench) -> list[Row]:
    """Classifying 20,000 images: speed, memory, and the same rows after a kill in the middle."""
    images, side = 20_000, 64
    photos = bench.work / "photos"
    for folder, count in (("few", 1_000), ("many", images)):
        bench.output([sys.executable, "-c", WRITE_JPEGS, str(photos / folder), str(count), str(side)])
    choices = ["backbone=resnet18", "backbone.weights=bundled", "trainer.max_epochs=1", "callbacks.plots=false"]
    bench.output(bench.study(*choices, "datamodule.shots=4", f"datamodule.image_size={side}", cache="digits"))
    (result,) = (bench.work / "outputs" / f"run{bench._run}").glob("*/result.json")

    def command(folder: str, name: str) -> list[str]:
        places = [str(result.parent), str(photos / folder), "--output", str(bench.work / name), "--device", "cpu"]
        return [sys.executable, "-m", "headstart", "predict", *places]

    measured = bench.output(bench.loop("predict", result.parent, photos / "many", bench.work / "pairs.csv"))
    speeds = json.loads(measured.splitlines()[-1])
    (ours, theirs), (busy, their_busy) = speeds["seconds"], speeds["CPU seconds"]
    few, many = bench.pairs(
        lambda _: bench.peak_mib(command("few", "few.csv"))[0],
        lambda _: bench.peak_mib(command("many", "whole.csv"))[0],
        repeats=1,
    )
    _kill_and_go_on(bench, command("many", "killed.csv"))
    rows = [(bench.work / name).read_bytes() for name in ("whole.csv", "killed.csv")]
    if rows[0] != rows[1] or len(set(rows[0].splitlines())) != images + 1:
        raise SystemExit("after a kill the predictions are not those of one whole call, or not one an image")
    work, against = f"predict, resnet18, JPEGs of {side} px", "bare fp32 forward pass of the same images in memory"
    return [
        Row(f"{work} (images/s)", against, ours, theirs, ">= 0.8x", TIMES),
        Row("the same (images a second of CPU time)", against, busy, their_busy, ">= 0.8x", TIMES),
        Row(f"the same, {images:,} of them, RssAnon (MiB)", "of 1,000", many, few, "<= 1.05x", TIMES),
    ]


def _kill_and_go_on(bench: Bench, command: Sequence[str]) -> None:
    """End a prediction by SIGKILL about half-way and give the same command again; says after how many images."""
    output = Path(command[command.index("--output") + 1])
    part = output.with_name(f"{output.name}.part")
    half = (bench.work / "whole.csv").stat().st_size // 2
    process = subprocess.Popen(command, cwd=bench.work, env=bench.environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (part.exists() and part.stat().st_size > half):
        time.sleep(0.1)
    process.kill()
    if process.wait() == 0 or output.exists():
        raise SystemExit("the prediction ended before it could be killed")
    done = subprocess.run(command, capture_output=True, text=True, cwd=bench.work, env=bench.environment, check=True)
    print(next(line for line in done.stderr.splitlines() if line.startswith("going on after")), file=sys.stderr)


def bench_rank(bench: Bench) -> list[Row]:
    """Scoring four networks on the training photographs, against their passes alone; and the same once more."""
    names = ("resnet18", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

    def command(cache: str) -> list[str]:
        places = [f"paths.output_dir={bench.work}/outputs", f"paths.cache_dir={bench.work}/{cache}", "trainer=cpu"]
        data = ["datamodule=folder", f"datamodule.root={bench.root}", "datamodule.image_size=224"]
        return [sys.executable, "-m", "headstart", "rank", *data, *places, f"backbones={','.join(names)}"]

    networks = [name.replace("efficientnet", "tf_efficientnet") for name in names]
    first = bench.pairs(
        lambda i: bench.seconds(command(f"rank{i}")),
        lambda _: bench.seconds(bench.loop("passes", bench.root, *networks)),
    )
    again = bench.pairs(
        lambda _: bench.seconds(command("rank0")), lambda _: bench.seconds([sys.executable, "-c", IMPORTS])
    )
    against = "decode and one forward pass of each network"
    return [
        Row("rank of 4 networks, first time (s)", against, *first, "<= 1.2x", TIMES),
        Row("the same, again (s)", IMPORTS, *again, "<= + a few s", LONGER),
    ]


def bench_gpu(bench: Bench) -> list[Row]:
    """Fine-tuning against a compiled loop on synthetic tensors, and extraction; images per second."""
    if "True" not in bench.output([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]):
        print("gpu: left out, there is none", file=sys.stderr)
        return []
    rows = []
    cases = (("resnet50", 224, 8192, 0.9), ("vit_small_patch16_224", 224, 8192, 0.9), ("resnet18", 64, 65_536, 0.85))
    for name, side, images, share in cases:
        options = ["strategy=full", f"backbone={name}", "backbone.weights=none", "trainer.compile=true"]
        options += ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4", "datamodule.batch_size=128"]

        def ours(_: int, side: int = side, images: int = images, options: list[str] = options) -> float:
            bench.output(bench.noise(images, side, *options, cache="gpu"))
            return bench.result()["data"]["sizes"]["train"] / bench.epoch_seconds()

        def bare(_: int, name: str = name, side: int = side) -> float:
            return float(bench.output(bench.loop("synthetic", name, str(side))))

        work = f"full, {name}, {side} px (images/s)"
        rows.append(Row(work, "bare compiled loop", *bench.pairs(ours, bare), f">= {share}x", TIMES))
        print(f"{name}: peak memory {bench.result()['cost']['peak_memory_bytes'] / 2**30:.2f} GiB", flush=True)
    bench.output(bench.noise(100_000, 64, "strategy=freeze", "trainer.max_epochs=1", cache="gpu_extract"))
    seconds = float(bench.result()["cost"]["extract_seconds"])
    rows.append(Row("extraction, 64-px images (images/s)", "seconds in all", [100_000 / seconds], [seconds], "", TIMES))
    return rows


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "help": bench_help,
    "freeze": bench_freeze,
    "slow-way": bench_slow_way,
    "lite0": bench_lite0,
    "hit": bench_hit,
    "heads": bench_heads,
    "partial": bench_partial,
    "full": bench_full,
    "throughput": bench_throughput,
    "memory": bench_memory,
    "predict": bench_predict,
    "rank": bench_rank,
    "gpu": bench_gpu,
}


def main() -> None:
    """Measure, print and, if asked, keep the chosen rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of photographs with train/ and val/")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="append the rows to this CSV file, every measurement included")
    args = parser.parse_args()
    print(_line(HEADER))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.root.resolve(), Path(folder), args.repeats)
        for name in args.only:
            for row in SECTIONS[name](bench):
                print(_line(row.cells()), flush=True)
                if args.out:
                    _keep(args.out, row)


def _line(cells: Sequence[str]) -> str:
    work, here, other, ratio, target, against = cells
    return f"{work:<52} {here:>9} {other:>9}  {ratio:<14} {target:<17} {against}"


def _keep(path: Path, row: Row) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow([*HEADER, "all here", "all other"])
        writer.writerow([*row.cells(), *(" ".join(f"{v:.2f}" for v in side) for side in (row.ours, row.theirs))])


if __name__ == "__main__":
    main()
