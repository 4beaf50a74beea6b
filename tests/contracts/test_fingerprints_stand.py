"""Fingerprints and directory names do not move, so that a finished run is found again by the same command.

``python tests/contracts/test_fingerprints_stand.py`` records them anew, where choices change their meaning.
"""

import json
from pathlib import Path

import pytest

from headstart.config import compose, resolve_run

CONF = Path(__file__).parents[2] / "conf"
RECORD = Path(__file__).with_name("standing_fingerprints.json")
#: What does not depend on the machine.
FIXED = ("backbone.weights=bundled", "trainer=cpu", "trainer.precision=32-true")
#: Need another run, a folder or a name of the user's.
LEFT_OUT = {
    "strategy=distill",
    "strategy=share",
    "datamodule=folder",
    "datamodule=csv",
    "datamodule=hf",
    "datamodule=webdataset",
    "datamodule=masks",
    "datamodule=masks_csv",
    "datamodule=shapes",
    "head=dense",
}
CHOICES = (
    "backbone=resnet18",
    *(
        f"{group}={path.stem}"
        for group in ("datamodule", "head", "optimizer", "scheduler", "strategy")
        for path in sorted((CONF / group).glob("[!_]*.yaml"))
        if f"{group}={path.stem}" not in LEFT_OUT and path.stem not in ("scratch", "small_cnn")
    ),
    "experiment=freeze_vs_full",
    "experiment=smoke",
    "experiment=transfer",
    "batchnorm=eval",
    "ema.decay=0.9",
    "batch_transform=mixup",
    "head_init=probe",
    "loss.label_smoothing=0.1",
    "datamodule.shots=5",
    "datamodule.augment=light",
    "callbacks.early_stopping.enabled=true",
)
#: These change nothing in the result.
WITHOUT_EFFECT = ("datamodule.num_workers=0", "callbacks.progress=none", "cache=off", "paths.output_dir=x")


def found(*overrides: str) -> list[str]:
    resolved = resolve_run(compose([*FIXED, *overrides]))
    return [resolved.fingerprint, resolved.key]


@pytest.mark.parametrize("choice", CHOICES)
def test_fingerprints_stand(choice: str):
    assert found(choice) == json.loads(RECORD.read_text())[choice]


@pytest.mark.parametrize("choice", WITHOUT_EFFECT)
def test_what_changes_no_result_changes_no_fingerprint(choice: str):
    assert found(choice) == found()


if __name__ == "__main__":
    RECORD.write_text(json.dumps({choice: found(choice) for choice in CHOICES}, indent=1) + "\n")
