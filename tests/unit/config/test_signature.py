"""The class says what it takes: an option of a user's own datamodule is checked with no list anywhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

from headstart.config import ResolvedRun, compose, resolve_run
from headstart.config.schema import marked, not_in_result
from headstart.config.signature import signature
from headstart.errors import ConfigError
from headstart.system.options import Later, StepsOnly

MODULE = """
from __future__ import annotations
from typing import Annotated, Any, Literal
from headstart.data import Digits
from headstart.system.options import AtLeast, Below, Later, NotInResult, OnlyWith, StepsOnly, checked

Noise = Literal["white", "pink"]

class Noisy(Digits):
    @checked("datamodule")
    def __init__(
        self,
        *,
        noise: Noise = "white",
        level: Annotated[
            float | None, AtLeast(0), Below(1), OnlyWith("noise", ("pink",)), Later, StepsOnly(None)
        ] = None,
        readers: Annotated[int, AtLeast(1), NotInResult] = 1,
        loose=None,
        **choices: Any,
    ) -> None:
        super().__init__(**choices)
        self.noise, self.level = noise, level
"""
YAML = """# Digits with noise.
defaults: [digits, _self_]
_target_: noisy_digits.Noisy
noise: white
level: null
readers: 1
loose: 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "noisy_digits.py").write_text(MODULE)
    (tmp_path / "conf" / "datamodule").mkdir(parents=True)
    (tmp_path / "conf" / "datamodule" / "noisy.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    signature.cache_clear()
    return tmp_path / "conf"


def resolve(own: Path, *overrides: str) -> ResolvedRun:
    return resolve_run(
        compose(["datamodule=noisy", "backbone.weights=bundled", "trainer=cpu", *overrides], config_dir=own)
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datamodule.noise=blue", "datamodule.noise=blue: must be white or pink"),
        ("datamodule.noise=pnik", "must be white or pink; did you mean pink?"),
        ("datamodule.level=1", "datamodule.level=1: must be a number of at least 0 and below 1 or null"),
        ("datamodule.level=loud", "datamodule.level=loud: must be a number"),
        ("datamodule.level=0.5", "datamodule.level=0.5 has an effect with datamodule.noise=pink only"),
        ("datamodule.readers=0", "datamodule.readers=0: must be a whole number of at least 1"),
        ("datamodule.loose=x", "datamodule.loose=x: must be a whole number"),
        ("+datamodule.nois=white", "datamodule.nois is unknown; did you mean datamodule.noise?"),
        ("+datamodule.task=binary", "datamodule.task is unknown"),
        ("datamodule.zoom_range=2", "datamodule.zoom_range=2: must be a number of at least 0 and below 1"),
    ],
)
def test_an_option_is_checked_by_its_annotation_alone(own: Path, override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        resolve(own, override)
    assert message in str(caught.value)
    assert "torch" not in str(caught.value)


def test_marks_decide_what_a_fingerprint_covers(own: Path):
    usual = resolve(own)
    assert resolve(own, "datamodule.readers=4").fingerprint == usual.fingerprint
    louder = resolve(own, "datamodule.noise=pink", "datamodule.level=0.5")
    assert len({usual.fingerprint, resolve(own, "datamodule.noise=pink").fingerprint, louder.fingerprint}) == 3
    assert "datamodule.level" in marked(Later, usual.config)
    assert "datamodule.readers" in not_in_result(usual.config)
    assert not {"datamodule.readers", "datamodule.level"} & set(marked(StepsOnly, {}))
    assert resolve(own, "head=ncm", "datamodule.level=null").config["datamodule"]["level"] is None
    with pytest.raises(ConfigError, match=r"datamodule\.level has no effect on a head in closed form"):
        resolve(own, "head=ncm", "datamodule.noise=pink", "datamodule.level=0.5")


def test_the_class_checks_the_same_in_a_notebook(own: Path):
    from noisy_digits import Noisy  # type: ignore[import-not-found]

    assert Noisy(batch_size=4, seed=0, noise="pink", level=0.5).level == 0.5
    with pytest.raises(ConfigError, match=r"datamodule\.level=1: must be a number"):
        Noisy(batch_size=4, seed=0, level=1)
    with pytest.raises(ConfigError, match=r"with datamodule\.noise=pink only"):
        Noisy(batch_size=4, seed=0, level=0.5)


def test_reading_a_signature_imports_neither_the_class_nor_torch():
    code = (
        "import sys; from headstart.config.signature import signature; found = signature('headstart.data.CIFAR10');"
        "print('zoom_range' in found.options, 'data_dir' in found.options, found.open, 'torch' in sys.modules,"
        "'headstart.data.sources.torchvision_sets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False", "False", "False"]


def test_the_long_file_of_torchs_tensor_is_not_read():
    code = (
        "from headstart.config import signature; read, parsed = [], signature._parsed;"
        "signature._parsed = lambda module: read.append(module) or parsed(module);"
        "options = signature.signature('torch.optim.AdamW').options;"
        "print(sorted({name for name in read if name.startswith('torch')}), options['amsgrad'], options['lr'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['torch.optim', 'torch.optim.adamw'] <class 'bool'> typing.Any"


def test_what_cannot_be_read_is_not_checked():
    assert signature("nowhere.at.all.Class") is None
    assert signature("json.dumps") is None
    assert signature("__main__.Class") is None


def test_a_class_that_the_package_lacks_is_told(own: Path):
    with pytest.raises(ConfigError, match=r"_target_=headstart\.data\.Digitz: there is no such datamodule"):
        resolve(own, "datamodule._target_=headstart.data.Digitz")


def test_the_data_of_another_task_are_checked_too(own: Path):
    source = ["strategy=share", "+datamodule@sources.more.datamodule=digits"]
    with pytest.raises(ConfigError, match=r"sources\.more\.datamodule\.shots=0: must be a whole number of at least 1"):
        resolve(own, *source, "sources.more.datamodule.shots=0")
    workers = resolve(own, *source, "sources.more.datamodule.num_workers=2")
    assert workers.fingerprint == resolve(own, *source).fingerprint
