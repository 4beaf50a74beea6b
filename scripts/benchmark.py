"""Speed and memory against the obvious alternative, both measured in this call, printed as ratios.

python scripts/benchmark.py --root ROOT [--only help freeze hit partial full throughput memory] [--repeats 3]

ROOT holds train/<class>/* and val/<class>/* (photographs; the numbers in experiments/speed were made with 244 and 153
of them). Whole processes are timed from outside, start-up included; absolute seconds depend on the machine, so each row
names what it is compared with. Rows whose other side is a hand-written loop use scripts/plain_loop.py.
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
BUNDLED = HERE.parent / "src/headstart/backbones/bundled/resnet18_tiny_imagenet_64.safetensors"
IMPORTS = "import torch, pytorch_lightning, timm"
# Decode once, one bf16 forward pass, a linear head on the features: nothing that extracts features can be faster.
LIMIT = """
import sys, torch, timm, pytorch_lightning
from concurrent.futures import ThreadPoolExecutor
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
root, weights = sys.argv[1:3]
transform = v2.Compose([v2.Resize((224, 224), antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
model = timm.create_model("resnet18", num_classes=0)
model.load_state_dict({k: v for k, v in load_file(weights).items() if not k.startswith("fc.")})
model.eval().to(memory_format=torch.channels_last)
found = {}
for split in ("train", "val"):
    data = ImageFolder(f"{root}/{split}", transform)
    with ThreadPoolExecutor(2) as pool, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        images = list(pool.map(data.__getitem__, range(len(data))))
        batches = [torch.stack([x for x, _ in images[i:i + 32]]) for i in range(0, len(images), 32)]
        x = torch.cat([model(b.contiguous(memory_format=torch.channels_last)) for b in batches]).float().clone()
    found[split] = (x, torch.tensor([y for _, y in images]))
(x, y), (v, t) = found["train"], found["val"]
head = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
for _ in range(30):
    order = torch.randperm(len(x))
    for i in range(0, len(x), 32):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x[order[i:i + 32]]), y[order[i:i + 32]]).backward()
        optimizer.step()
    accuracy = float((head(v).argmax(1) == t).float().mean())
print("val/acc", accuracy)
"""

# Fine-tuning with nothing around it: bf16, channels last, all images decoded in memory. Prints an epoch's seconds.
BARE = """
import sys, time, statistics, torch, timm
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
root, weights = sys.argv[1:3]
transform = v2.Compose([v2.Resize((224, 224), antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
data = list(ImageFolder(f"{root}/train", transform))
images = torch.stack([x for x, _ in data]).contiguous(memory_format=torch.channels_last)
targets = torch.tensor([y for _, y in data])
model = timm.create_model("resnet18", num_classes=2)
model.load_state_dict({k: v for k, v in load_file(weights).items() if not k.startswith("fc.")}, strict=False)
model.train().to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
seconds = []
for _ in range(4):
    start = time.perf_counter()
    order = torch.randperm(len(images))
    for i in range(0, len(images), 32):
        batch = order[i:i + 32]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images[batch]), targets[batch])
        loss.backward()
        optimizer.step()
    seconds.append(time.perf_counter() - start)
print(statistics.median(seconds[1:]))
"""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what was measured.
        against: the other side.
        ours: its seconds (or the unit named in ``work``), one a repeat.
        theirs: the other side's.
        target: what is to be reached, in words.
        ratio: how the two are put in relation, in words.
    """

    work: str
    against: str
    ours: Sequence[float]
    theirs: Sequence[float]
    target: str
    ratio: Callable[[float, float], str]

    def line(self) -> str:
        """The row as text: medians and the ratio of medians."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        ratio = self.ratio(ours, theirs)
        return f"{self.work:<52} {ours:10.2f} {theirs:10.2f}  {ratio:<18} {self.target:<22} {self.against}"


def faster(ours: float, theirs: float) -> str:
    """How many times less time."""
    return f"{theirs / ours:.2f}x faster"


def times(ours: float, theirs: float) -> str:
    """How many times the other side's figure."""
    return f"{ours / theirs:.2f}x"


def longer(ours: float, theirs: float) -> str:
    """Seconds more."""
    return f"+{ours - theirs:.2f} s"


class Bench:
    """Runs commands and keeps their times."""

    def __init__(self, root: Path, work: Path, repeats: int) -> None:
        self.root, self.work, self.repeats = root, work, repeats
        self._run = 0

    def seconds(self, command: Sequence[str]) -> float:
        """Wall-clock seconds of a whole process; its failure is an error."""
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.work)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[:6])} … failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return time.perf_counter() - start

    def train(self, *overrides: str, cache: str) -> list[str]:
        """A training in a study of its own, so that nothing is returned from an earlier one."""
        self._run += 1
        folders = [
            f"name=run{self._run}",
            f"paths.output_dir={self.work}/outputs",
            f"paths.cache_dir={self.work}/{cache}",
        ]
        data = [
            "datamodule=folder",
            f"datamodule.root={self.root}",
            "datamodule.augment=none",
            "datamodule.image_size=224",
        ]
        return [
            sys.executable,
            str(TRAIN),
            "backbone=resnet18",
            "backbone.weights=bundled",
            *data,
            *folders,
            *overrides,
        ]

    def plain(self, mode: str, epochs: int) -> list[str]:
        """The hand-written fp32 loop that decodes and runs the network in every epoch."""
        options = ["--mode", mode, "--size", "224", "--epochs", str(epochs), "--decode-every-epoch"]
        return [sys.executable, str(HERE / "plain_loop.py"), str(self.root), str(BUNDLED), *options]

    def pairs(
        self, ours: Callable[[int], list[str]], theirs: Callable[[int], list[str]]
    ) -> tuple[list[float], list[float]]:
        """Both sides in turn, A B A B …, so that a drift of the machine hits both."""
        found = [(self.seconds(ours(i)), self.seconds(theirs(i))) for i in range(self.repeats)]
        return [a for a, _ in found], [b for _, b in found]


def bench_help(bench: Bench) -> list[Row]:
    """Start-up of the help text."""
    ours, theirs = bench.pairs(
        lambda _: [sys.executable, str(TRAIN), "--help"], lambda _: [sys.executable, "-c", "import hydra"]
    )
    return [Row("train.py --help (s)", "import hydra", ours, theirs, "<= + 0.5 s", longer)]


def bench_freeze(bench: Bench) -> list[Row]:
    """Feature extraction for the first time, against the slow way and against the limit."""
    options = ("strategy=freeze", "trainer.max_epochs=30")
    first = [bench.seconds(bench.train(*options, cache=f"cold{i}")) for i in range(bench.repeats)]
    limit = [bench.seconds([sys.executable, "-c", LIMIT, str(bench.root), str(BUNDLED)]) for _ in range(bench.repeats)]
    slow = [bench.seconds(bench.plain("freeze", 30))]
    return [
        Row(
            "freeze, 30 epochs, first time (s)",
            "plain fp32 loop, frozen backbone each epoch",
            first,
            slow,
            ">= 20x",
            faster,
        ),
        Row(
            "freeze, 30 epochs, first time (s)",
            "decode once, one bf16 forward, linear head",
            first,
            limit,
            "<= 1.3x",
            times,
        ),
    ]


def bench_hit(bench: Bench) -> list[Row]:
    """Feature extraction from the cache."""
    options = ("strategy=freeze", "trainer.max_epochs=30")
    bench.seconds(bench.train(*options, cache="hit"))
    ours, theirs = bench.pairs(lambda i: bench.train(*options, cache="hit"), lambda _: [sys.executable, "-c", IMPORTS])
    return [Row("the same, cache hit (s)", IMPORTS, ours, theirs, "<= + 2 s", longer)]


def bench_partial(bench: Bench) -> list[Row]:
    """Training the last stage on stored activations; seconds of training alone, as both sides decode once."""

    def fit(cache: str, *more: str) -> float:
        command = bench.train("strategy=partial", "trainer.max_epochs=10", *more, cache=cache)
        bench.seconds(command)
        (result,) = (bench.work / "outputs" / f"run{bench._run}").glob("*/result.json")
        return float(json.loads(result.read_text())["cost"]["fit_seconds"])

    cached = [fit("partial") for _ in range(bench.repeats + 1)][1:]
    uncached = [fit("partial", "cache=off") for _ in range(bench.repeats)]
    return [
        Row(
            "partial, last stage, 10 epochs, training (s)", "the same with cache=off", cached, uncached, ">= 2x", faster
        )
    ]


def bench_full(bench: Bench) -> list[Row]:
    """Fine-tuning everything, whole process."""
    ours, theirs = bench.pairs(
        lambda i: bench.train("strategy=full", "trainer.max_epochs=5", cache="full"), lambda _: bench.plain("full", 5)
    )
    return [Row("full, 5 epochs (s)", "plain fp32 loop", ours, theirs, ">= 2.2x", faster)]


def bench_throughput(bench: Bench) -> list[Row]:
    """One epoch of fine-tuning on images in memory, evaluation left out."""

    def ours() -> float:
        options = ("strategy=full", "trainer.max_epochs=4", "trainer.limit_val_batches=1", "cache=auto")
        bench.seconds(bench.train(*options, "callbacks.progress=none", cache="throughput"))
        (metrics,) = (bench.work / "outputs" / f"run{bench._run}").glob("*/metrics.csv")
        with metrics.open() as file:
            return statistics.median(float(row["seconds"]) for row in list(csv.DictReader(file))[1:])

    def bare() -> float:
        command = [sys.executable, "-c", BARE, str(bench.root), str(BUNDLED)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    found = [(ours(), bare()) for _ in range(bench.repeats)]
    work, against = "full, one epoch of 244 images at 224 px (s)", "bare loop, bf16, channels_last, in memory"
    return [Row(work, against, [a for a, _ in found], [b for _, b in found], ">= 0.95x as fast", faster)]


def bench_memory(bench: Bench) -> list[Row]:
    """Peak anonymous memory while features of noise images are stored: it must not grow with their number."""

    def peak(images: int) -> float:
        noise = ["datamodule=digits", "datamodule._target_=benchmark_noise.Noise", f"+datamodule.images={images}"]
        short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
        places = [
            f"name=noise{images}",
            f"paths.output_dir={bench.work}/outputs",
            f"paths.cache_dir={bench.work}/noise",
        ]
        command = [sys.executable, str(TRAIN), "cache=require", "callbacks.plots=false", *noise, *short, *places]
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        process = subprocess.Popen(command, cwd=bench.work, env=environment, stdout=subprocess.DEVNULL)
        highest = 0
        while process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                highest = max(highest, int(status.partition("RssAnon:")[2].split()[0]))
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"extraction of {images} noise images failed with exit code {process.returncode}")
        return highest / 1024

    return [
        Row(
            "extraction, 100,000 64-px images, RssAnon (MiB)", "1,000", [peak(100_000)], [peak(1_000)], "<= 1.2x", times
        )
    ]


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "help": bench_help,
    "freeze": bench_freeze,
    "hit": bench_hit,
    "partial": bench_partial,
    "full": bench_full,
    "throughput": bench_throughput,
    "memory": bench_memory,
}


def main() -> None:
    """Measure and print the chosen rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of photographs with train/ and val/")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"{'work':<52} {'here':>10} {'other':>10}  {'ratio':<18} {'to reach':<22} compared with")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.root.resolve(), Path(folder), args.repeats)
        for name in args.only:
            for row in SECTIONS[name](bench):
                print(row.line(), flush=True)


if __name__ == "__main__":
    main()
