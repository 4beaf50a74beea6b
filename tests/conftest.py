"""Shared fixtures: tiny generated image folders, and an environment that reaches no hub and no user's files."""

import logging
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headstart.runs.result import Result

# Set before torch, timm or huggingface_hub can be imported by a test module.
os.environ.update(
    HF_HUB_OFFLINE="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
    CUBLAS_WORKSPACE_CONFIG=":4096:8",
)
for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "PL_GLOBAL_SEED", "WANDB_API_KEY"):
    os.environ.pop(name, None)

REPOSITORY = Path(__file__).parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Between processes, xdist can pass no output with names that are not UTF-8."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, saying why."""
    if any("gpu" in item.keywords for item in items):
        import torch

        if not torch.cuda.is_available():
            for item in items:
                if "gpu" in item.keywords:
                    item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if os.environ.get("HEADSTART_TEST_NETWORK") != "1":
        for item in items:
            if "network" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs the internet; set HEADSTART_TEST_NETWORK=1"))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and the working folder are the test's own; paths given relative to the repository are not."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    cache.mkdir(exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("HEADSTART_CACHE_DIR", str(cache / "headstart"))
    monkeypatch.setenv("WANDB_DIR", str(cache))
    monkeypatch.setenv("HF_HOME", str(cache / "huggingface"))
    monkeypatch.setenv("TORCH_HOME", str(cache / "torch"))


@pytest.fixture(autouse=True)
def _no_handlers_of_other_tests() -> Iterator[None]:
    """What Hydra and others add to the root logger writes to a stream that is closed after the test."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(before):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@pytest.fixture
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes ``root/<split>/<class>/*.png`` of small images whose colour tells the class apart.

    Arguments: ``classes`` names, ``splits`` name to images per class (``{"": 6}`` for one folder without splits),
    ``size`` in pixels, ``name`` of the root.
    """
    return lambda **choices: write_image_folder(tmp_path, **choices)


def write_image_folder(
    parent: Path,
    *,
    classes: tuple[str, ...] = ("ant", "bee"),
    splits: dict[str, int] | None = None,
    size: int = 32,
    name: str = "images",
) -> Path:
    """See :func:`image_folder`."""
    import numpy as np
    from PIL import Image

    root = parent / name
    generator = np.random.default_rng(0)
    for split, count in (splits or {"train": 6, "val": 4}).items():
        for number, label in enumerate(classes):
            folder = root / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = generator.integers(0, 96, (size, size, 3))
                pixels[..., number % 3] += 64 + 90 * (number // 3 == 0)
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{index:03d}.png")
    return root


@pytest.fixture
def finished() -> Callable[..., "Result"]:
    """Makes a complete result; keyword arguments replace whole sections."""
    return finished_result


def finished_result(**changes: object) -> "Result":
    """See :func:`finished`."""
    import math

    from headstart.runs.result import Cost, Result

    sections: dict = {
        "status": "done",
        "fingerprint": "a" * 64,
        "metrics": {"val/acc": 0.5, "test/auroc": math.nan},
        "config": {
            "backbone": "resnet18",
            "head": "linear",
            "strategy": "freeze",
            "datamodule": "digits",
            "optimizer": "adamw",
            "scheduler": "cosine",
            "seed": 1,
            "max_epochs": 3,
        },
        "weights": {"source": "none", "sha256": "", "matched": 0, "missing": ()},
        "data": {"name": "digits", "fingerprint": "f", "classes": ("0", "1"), "sizes": {"train": 8}},
        "params": {"total": 10, "trainable": 2},
        "cost": Cost(fit_seconds=1.5, peak_memory_bytes=7, images_seen=8, device="cpu"),
        "cache": {"used": False, "key": None, "hit": False, "reason": "off"},
    }
    return Result(**(sections | changes))
