"""Synthetic run directories: what a study leaves on disk, without training anything."""

import csv
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

SKILL = {"scratch": 0.2, "freeze": 1.6, "full": 2.1, "lp_ft": 2.2}
SECONDS = {"scratch": 30.0, "freeze": 6.0, "full": 31.0, "lp_ft": 35.0}
TRAINABLE = {"scratch": 11_181_642, "freeze": 5_130, "full": 11_181_642, "lp_ft": 11_181_642}
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


class StudyWriter:
    """Writes run directories under a folder; every number is a function of the choices and the seed."""

    def __init__(self, root: Path, *, images: int = 90, classes: Iterable[str] = ("cat", "dog", "fox", "owl")) -> None:
        self.root = root
        self.images = images
        self.classes = tuple(classes)

    def run(
        self,
        strategy: str,
        seed: int,
        *,
        data: str = "animals",
        shots: int | None = None,
        skill: float | None = None,
        split_seed: int = 0,
        test: bool = True,
        config: dict[str, Any] | None = None,
        composed: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
    ) -> Path:
        """Write one finished run and return its directory."""
        choices = {
            "backbone": "resnet18", "head": "linear", "strategy": strategy, "datamodule": data, "optimizer": "adamw",
            "scheduler": "cosine", "seed": seed, "max_epochs": 8, "name": "study",
        } | ({"datamodule.shots": shots} if shots else {}) | (config or {})  # fmt: skip
        key = "-".join(f"{value}" for value in (strategy, data, shots or "all", seed))
        digest = f"{zlib.crc32(json.dumps([choices, split_seed], sort_keys=True).encode()):08x}"
        path = self.root / f"{key}-{digest}"
        path.mkdir(parents=True)
        ability = SKILL.get(strategy, 1.5) if skill is None else skill
        # Fine-tuning gains more from images than a frozen backbone does.
        ability += 0.0 if shots is None else (0.5 if strategy == "freeze" else 0.9) * np.log(shots / 10)
        metrics: dict[str, float] = {}
        where = data if split_seed == 0 else f"{data}-{split_seed}"
        for split in ("val", "test") if test else ("val",):
            metrics |= self._predictions(path, split, where, strategy, seed, ability)
        self._history(path, metrics["val/acc"], seed)
        stages = [
            {"name": name, "parameters": 1000, "trainable": 0 if strategy == "freeze" else 1000,
             "drift_relative": 0.0 if strategy == "freeze" else 0.02 * (place + 1) + 0.001 * seed}
            for place, name in enumerate(STAGES)
        ]  # fmt: skip
        (path / "audit.json").write_text(json.dumps({"stages": stages}))
        (path / "config.yaml").write_text(yaml.safe_dump(composed or {"trainer": {"max_epochs": 8}, "seed": seed}))
        seconds = SECONDS.get(strategy, 20.0) * (1 + 0.02 * seed) * (1 if shots is None else 0.3 + 0.02 * shots)
        whole = {
            "format": 1, "status": "done", "fingerprint": digest * 8, "metrics": metrics, "config": choices,
            "weights": {"source": "none" if strategy == "scratch" else "bundled", "sha256": "ab" * 32, "matched": 120,
                        "missing": []},
            "data": {"name": data, "fingerprint": f"{zlib.crc32(data.encode()):08x}", "classes": list(self.classes),
                     "split_fingerprints": {"train": f"train {where} {shots}", "val": f"val {where}"}
                     | ({"test": f"test {where}"} if test else {}),
                     "content": f"content {data}", "carved": ["val", "test"] if test else ["val"],
                     "split_seed": split_seed, "shots": shots, "fraction": None,
                     "sizes": {"train": 400, "val": self.images} | ({"test": self.images} if test else {})},
            "params": {"total": 11_181_642, "trainable": TRAINABLE.get(strategy, 1_000_000)},
            "cost": {"fit_seconds": seconds, "extract_seconds": 0.0, "total_seconds": seconds + 1,
                     "peak_memory_bytes": 700_000_000 + 10_000_000 * seed, "images_seen": 3200, "device": "cpu"},
            "cache": {"used": False, "key": None, "hit": False, "reason": "off"}, "versions": {"torch": "2.15.0"},
            "details": {"task": "multiclass", "monitor": "val/acc"},
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(whole | (result or {})))
        return path

    def failed(self, name: str, error: str) -> Path:
        """Write one run that failed."""
        path = self.root / f"{name}-0badf00d"
        path.mkdir(parents=True)
        choices = {"strategy": name, "seed": 1}
        result = {"format": 1, "status": "failed", "fingerprint": "0badf00d", "error": error, "config": choices}
        (path / "result.json").write_text(json.dumps(result))
        return path

    def partial(self, name: str, epochs: int) -> Path:
        """Write one run that was interrupted."""
        path = self.root / f"{name}-0badcafe"
        path.mkdir(parents=True)
        (path / "attempts.json").write_text("{}")
        (path / "metrics.csv").write_text("epoch,val/acc\n" + "".join(f"{epoch},0.5\n" for epoch in range(epochs)))
        return path

    def study(self, strategies: Iterable[str], seeds: Iterable[int], shots: Iterable[int | None] = (None,)) -> Path:
        """Write every combination."""
        seeds, shots = list(seeds), list(shots)
        for strategy in strategies:
            for seed in seeds:
                for count in shots:
                    self.run(strategy, seed, shots=count)
        return self.root

    def _predictions(
        self, path: Path, split: str, data: str, strategy: str, seed: int, ability: float
    ) -> dict[str, float]:
        images = np.random.default_rng(zlib.crc32(f"{data}{split}".encode()))
        targets = images.integers(len(self.classes), size=self.images)
        hardness = images.normal(1.0, 1.0, size=self.images)
        noise = np.random.default_rng([seed, zlib.crc32(strategy.encode())])
        shared = np.random.default_rng(seed).normal(size=(self.images, len(self.classes)))
        logits = 0.6 * shared + 0.5 * noise.normal(size=shared.shape)
        logits[np.arange(self.images), targets] += ability - 0.7 * hardness + 0.7
        chances = np.exp(2 * logits)
        chances /= chances.sum(axis=1, keepdims=True)
        np.savez(
            path / f"predictions_{split}.npz", index=np.arange(self.images), targets=targets,
            ids=np.array([f"{data}/{split}/{place:04d}.png" for place in range(self.images)]),
            probabilities=chances.astype(np.float32), classes=np.array(self.classes),
        )  # fmt: skip
        truth = chances[np.arange(self.images), targets]
        accuracy = float((chances.argmax(axis=1) == targets).mean())
        return {f"{split}/acc": accuracy, f"{split}/loss": float(-np.log(truth).mean())}

    def _history(self, path: Path, accuracy: float, seed: int) -> None:
        with (path / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            names = ["epoch", "step", "phase", "train/loss", "train/acc", "val/loss", "val/acc", "lr/head", "seconds"]
            writer.writerow(names)
            for epoch in range(8):
                reached = accuracy * (1 - np.exp(-(epoch + 1 + 0.1 * seed) / 2))
                row = [epoch, 13 * (epoch + 1), "all", 2 - reached, reached, 2.1 - reached, reached, 0.001, 0.5]
                writer.writerow(row)


@pytest.fixture
def writer(tmp_path: Path) -> StudyWriter:
    """A study writer under a temporary folder."""
    return StudyWriter(tmp_path / "study")


@pytest.fixture(scope="session")
def make_writer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., StudyWriter]:
    """A study writer with its own folder, images and classes."""

    def make(**options: Any) -> StudyWriter:
        return StudyWriter(tmp_path_factory.mktemp("made") / "study", **options)

    return make


@pytest.fixture
def loaded():
    """A model of two classes, ``bright`` and ``dark``: the mean pixel and its negative."""
    import torch
    from torch import nn

    from headstart.data.input_spec import InputSpec
    from headstart.data.transforms import EvalTransform
    from headstart.execution.load import Model
    from headstart.tasks import build_task

    class Brightness(nn.Module):
        """Dropout shows whether it runs in training mode."""

        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            mean = self.dropout(images.mean((1, 2, 3)))
            return torch.stack([mean, -mean], 1)

    spec = InputSpec(height=8, width=8, mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0)
    return Model(
        path=Path("run"),
        config={},
        result=None,
        network=Brightness(),
        task=build_task("multiclass", ("bright", "dark")),
        classes=("bright", "dark"),
        transform=EvalTransform(spec),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bright, a dark, a bright and a broken image, and what is none."""
    root = tmp_path / "new images"
    (root / "more").mkdir(parents=True)
    Image.new("RGB", (20, 10), (255, 255, 255)).save(root / "a.png")
    Image.new("L", (10, 10), 0).save(root / "b.jpg")
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(root / "more" / "c.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (root / "notes.txt").write_text("x")
    (root / ".DS_Store").write_bytes(b"x")
    return root


@pytest.fixture
def run_path(tmp_path: Path, finished, loaded, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run whose model is ``loaded``."""
    import headstart.execution.load
    from headstart.runs.directory import RunDirectory
    from headstart.runs.result import write_result

    monkeypatch.setattr(headstart.execution.load, "load", lambda path: loaded)
    run = RunDirectory.open(tmp_path / "outputs", "study", "a", "1" * 8)
    write_result(run.path, finished(fingerprint="1" * 8))
    return run.path
