"""A fixed list of small runs whose results must not move: every strategy, several heads, a resume, a sweep.

``python tests/contracts/standing_runs.py`` records them anew into ``standing_results.json``; do that only with a
higher ``RESULTS_VERSION``.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("standing_results.json")

#: ResNet-18 with the weights of the package, at 32 pixels, on five images a class.
TINY = (
    "backbone=resnet18",
    "backbone.weights=bundled",
    "datamodule=digits",
    "datamodule.shots=5",
    "datamodule.val_fraction=0.1",
    "datamodule.test_fraction=0.1",
    "datamodule.image_size=32",
    "datamodule.num_workers=0",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=2",
    "callbacks.progress=none",
    "callbacks.plots=false",
)

#: Name to overrides. ``{}`` is the folder of the outputs.
SINGLE: dict[str, tuple[str, ...]] = {
    "freeze": ("strategy=freeze",),
    "freeze light": ("strategy=freeze", "datamodule.augment=light", "cache.views=0"),
    "freeze mlp": ("strategy=freeze", "head=mlp", "head.hidden=[32]"),
    "freeze logreg": ("strategy=freeze", "head=logreg", "head.refit=true"),
    "full": ("strategy=full",),
    "scratch": ("strategy=scratch", "backbone.weights=auto"),
    "partial": ("strategy=partial", "strategy.k=2", "optimizer=sgd", "optimizer.lr=0.01"),
    "gradual": ("strategy=gradual", "trainer.max_epochs=6", "strategy.full_by=0.7", "strategy.head_epochs=2"),
    "layerwise": ("strategy=layerwise", "head_epochs=1"),
    "lp_ft": ("strategy=lp_ft", "trainer.max_epochs=4", "batchnorm=train"),
    "norm_only": ("strategy=norm_only",),
    "bitfit": ("strategy=bitfit",),
    "lora": ("strategy=lora", "strategy.rank=2"),
    "l2sp": ("strategy=l2sp", "strategy.alpha=0.1", "ema.decay=0.9"),
    "delta": ("strategy=delta",),
    "bss": ("strategy=bss", "batch_transform=mixup"),
    "cotuning": ("strategy=cotuning", "strategy.weight=2.3"),
    "wise_ft": ("strategy=wise_ft", "head_init=class_means"),
    "distill": ("strategy=distill", "strategy.teacher={}/full/*"),
    "share": ("strategy=share", "+datamodule@sources.other.datamodule=digits", "sources.other.datamodule.shots=3"),
    "two processes": ("strategy=full", "trainer=ddp_cpu"),
}
RESUMED = ("strategy=full", "trainer.max_epochs=6", "callbacks.checkpoint.every_n_epochs=1")
SWEEP = ("-m", "strategy=freeze", "seed=1,2", "head=linear,mlp")


def train(output: Path, study: str, *overrides: str) -> None:
    """One command of a user's, in a process of its own."""
    choices = [override.format(output) for override in (*TINY, *overrides)]
    switches = [item for item in choices if item.startswith("-")]
    command = [sys.executable, str(REPOSITORY / "train.py"), *switches]
    command += [item for item in choices if item not in switches]
    place = [f"name={study}", f"paths.output_dir={output}", f"paths.cache_dir={output / 'cache'}"]
    done = subprocess.run([*command, *place], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]


def train_killed(output: Path, study: str, *overrides: str) -> None:
    """The same, killed after the second epoch and asked for again."""
    place = [f"name={study}", f"paths.output_dir={output}", f"paths.cache_dir={output / 'cache'}"]
    command = [sys.executable, str(REPOSITORY / "train.py"), *TINY, *overrides, *place]
    code = 0
    while code == 0:  # where the run ended before it could be killed, once more
        shutil.rmtree(output / study, ignore_errors=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        while process.poll() is None:
            rows = [path.read_text().count("\n") for path in (output / study).glob("*/metrics.csv")]
            if rows and max(rows) > 2:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        code = process.returncode
    assert code == -signal.SIGKILL
    train(output, study, *overrides)


def environment() -> dict[str, str]:
    """Of the commands: one thread, nothing outside."""
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


def outcomes(output: Path, study: str) -> dict[str, dict[str, float]]:
    """Metrics of a study's runs by head and seed."""
    found = {}
    for path in sorted((output / study).glob("*/result.json")):
        result = json.loads(path.read_text())
        assert result["status"] == "done", path
        found[f"{result['config']['head']} {result['config']['seed']}"] = result["metrics"]
    return found


def record(output: Path, name: str) -> dict[str, dict[str, float]]:
    """Train one entry of the list and return its metrics."""
    study = name.replace(" ", "_")
    if name == "resumed":
        train_killed(output, study, *RESUMED)
    elif name in ("sweep", "fused sweep"):
        train(output, study, *SWEEP, *(["hydra/launcher=fused"] if name == "fused sweep" else []))
    else:
        train(output, study, *SINGLE[name])
    return outcomes(output, study)


NAMES = (*SINGLE, "resumed", "sweep", "fused sweep")


def machine() -> dict[str, str]:
    """What decides the last bits: where it differs from the record, numbers are equal within a tolerance only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return {"processor": model, "torch": metadata.version("torch"), "timm": metadata.version("timm")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        results = {name: record(Path(folder), name) for name in NAMES}
    RECORD.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
