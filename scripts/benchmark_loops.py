"""The other sides of scripts/benchmark.py: what one would write by hand, each a process of its own.

python scripts/benchmark_loops.py limit ROOT WEIGHTS     features once, a linear head: none is faster
python scripts/benchmark_loops.py bare ROOT WEIGHTS      fine-tuning with nothing around it; prints seconds an epoch
python scripts/benchmark_loops.py synthetic NAME SIZE    the same, compiled, on a GPU; images per second
python scripts/benchmark_loops.py predict RUN FOLDER OUT headstart predict, and the run's bare network; as JSON
python scripts/benchmark_loops.py passes ROOT NAME ...   each network once over the training images
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import headstart
from headstart.data.images import read_image
from headstart.inference.ensemble import Ensemble
from headstart.inference.predict import predict_to_file
from headstart.system.hardware import detect

BATCH = 32
PREDICT_BLOCKS, PREDICT_BLOCK = 16, 640
SYNTHETIC_BATCH, SYNTHETIC_STEPS = 128, 60


def fastest_type() -> torch.autocast:
    """bfloat16 on a CPU that is faster in it, as ``trainer.precision=auto`` has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=detect().cpu_bf16)


def images_of(root: str, split: str) -> ImageFolder:
    """A split at 224 pixels, decoded on access."""
    steps = [v2.Resize((224, 224), antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    normalise = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return ImageFolder(f"{root}/{split}", v2.Compose([*steps, normalise]))


def resnet18(weights: str, outputs: int) -> nn.Module:
    """The network with its pretrained weights, without their classifier."""
    model = timm.create_model("resnet18", num_classes=outputs)
    model.load_state_dict({k: v for k, v in load_file(weights).items() if not k.startswith("fc.")}, strict=False)
    return model.to(memory_format=torch.channels_last)


def in_memory(data: ImageFolder) -> tuple[Tensor, Tensor]:
    """All images ``(N, 3, 224, 224)``, channels last, and their targets, decoded in two threads."""
    with ThreadPoolExecutor(2) as pool:
        items = list(pool.map(data.__getitem__, range(len(data))))
    images = torch.stack([image for image, _ in items]).contiguous(memory_format=torch.channels_last)
    return images, torch.tensor([target for _, target in items])


def limit(root: str, weights: str) -> None:
    """Decode once, one forward pass, thirty epochs of a linear head on the features."""
    import pytorch_lightning  # noqa: F401 - the product cannot do without it

    model = resnet18(weights, 0).eval()
    found = {}
    for split in ("train", "val"):
        images, targets = in_memory(images_of(root, split))
        with torch.inference_mode(), fastest_type():
            features = torch.cat([model(batch) for batch in images.split(BATCH)])
        found[split] = features.float().clone(), targets
    (x, y), (v, t) = found["train"], found["val"]
    head = nn.Linear(x.shape[1], int(y.max()) + 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    accuracy = 0.0
    for _ in range(30):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(head(x[batch]), y[batch]).backward()
            optimizer.step()
        accuracy = float((head(v).argmax(1) == t).float().mean())
    print(accuracy)


def bare(root: str, weights: str) -> None:
    """Fine-tune on images in memory, channels last; the median epoch after the first."""
    images, targets = in_memory(images_of(root, "train"))
    model = resnet18(weights, 2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            with fastest_type():
                loss = F.cross_entropy(model(images[batch]), targets[batch])
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(statistics.median(seconds[1:]))


def synthetic(name: str, size: str) -> None:
    """Compiled fine-tuning on one batch of random images that never leaves the GPU; images per second."""
    torch.set_float32_matmul_precision("high")
    images = torch.randn(SYNTHETIC_BATCH, 3, int(size), int(size), device="cuda")
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(2, (SYNTHETIC_BATCH,), device="cuda")
    network = timm.create_model(name, num_classes=2).cuda().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    model = torch.compile(network)
    start = 0.0
    for step in range(SYNTHETIC_STEPS + 20):
        if step == 20:
            torch.cuda.synchronize()
            start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    print(SYNTHETIC_STEPS * SYNTHETIC_BATCH / (time.perf_counter() - start))


def predict(run: str, folder: str, output: str) -> None:
    """Images a second of ``headstart predict`` and of the network alone, block by block on the same files, in turn.

    A block is 640 files in batches of 32, on the CPU; the network gets them as tensors that are already in memory.
    Prints ``{"seconds": [ours, theirs], "CPU seconds": [ours, theirs]}``, one number a block.
    """
    model, path = headstart.load(run), Path(output)
    names = sorted(str(file) for file in Path(folder).iterdir())[: PREDICT_BLOCKS * PREDICT_BLOCK]

    def ours(block: list[str]) -> None:
        predict_to_file(Ensemble([model]), iter(block), path, about={}, batch_size=BATCH, device="cpu")

    @torch.inference_mode()
    def theirs(pixels: Tensor) -> None:
        for batch in pixels.split(BATCH):
            model.network(batch)

    found: dict[str, tuple[list[float], list[float]]] = {"seconds": ([], []), "CPU seconds": ([], [])}
    for number in range(-1, PREDICT_BLOCKS):  # the first one warms up
        block = names[max(number, 0) * PREDICT_BLOCK :][:PREDICT_BLOCK]
        pixels = torch.stack([model.transform(read_image(name)) for name in block])
        sides: list[tuple[int, Callable[[], None]]] = [(0, partial(ours, block)), (1, partial(theirs, pixels))]
        for side, work in sides if number % 2 else reversed(sides):
            wall, busy = time.perf_counter(), time.process_time()
            work()
            passed = time.perf_counter() - wall, time.process_time() - busy
            for rates, seconds in zip(found.values(), passed, strict=True):
                rates[side].extend([len(block) / seconds] * (number >= 0))
    print(json.dumps(found))


def passes(root: str, *names: str) -> None:
    """Decode the training images and compute features, for each of timm's networks, channels last."""
    import pytorch_lightning  # noqa: F401 - the product cannot do without it

    for name in names:
        model = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
        images, _ = in_memory(images_of(root, "train"))
        with torch.inference_mode(), fastest_type():
            print(name, torch.cat([model(batch) for batch in images.split(BATCH)]).shape)


if __name__ == "__main__":
    loops: dict[str, Callable[..., None]] = {
        "limit": limit, "bare": bare, "synthetic": synthetic, "predict": predict, "passes": passes
    }  # fmt: skip
    loops[sys.argv[1]](*sys.argv[2:])
