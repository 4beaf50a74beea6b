"""The key changes with everything that changes the activations, and with nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from headstart_testing import tiny_model

from headstart.data.input_spec import InputSpec
from headstart.model.transfer_model import TransferModel
from headstart.store import key as key_module
from headstart.store.key import Arithmetic, activations_key, describe_images, describe_prefix, prefix_tensors

RESNET = {"name": "resnet18"}
SPEC = InputSpec(height=32, width=32)
ARITHMETIC = Arithmetic("32-true", "cpu", channels_last=True)
DIGESTS = ("a", "b", "c")


@pytest.fixture(scope="module")
def model() -> TransferModel:
    return tiny_model(RESNET)


def key(model: TransferModel, *, stages: int = 3, pool: Any = None, **changes: Any) -> str:
    values = {"spec": SPEC, "view": None, "arithmetic": ARITHMETIC, "digests": DIGESTS} | changes
    return activations_key(
        describe_prefix(model.backbone, stages, pool),
        describe_images(values["spec"], values["view"]),
        values["arithmetic"],
        values["digests"],
    )


def test_equal_choices_have_equal_keys(model: TransferModel):
    assert key(model) == key(tiny_model(RESNET))
    assert len(key(model)) == 40


@pytest.mark.parametrize(
    "change",
    [
        {"stages": 2},
        {"stages": 4},
        {"spec": replace(SPEC, height=33)},
        {"spec": replace(SPEC, mean=(0.5, 0.5, 0.5))},
        {"spec": replace(SPEC, interpolation="bicubic")},
        {"spec": replace(SPEC, crop_pct=1.0)},
        {"view": {"augment": "light", "seed": 0, "view": 0}},
        {"arithmetic": replace(ARITHMETIC, precision="bf16-mixed")},
        {"arithmetic": replace(ARITHMETIC, device="cuda")},
        {"arithmetic": replace(ARITHMETIC, channels_last=False)},
        {"arithmetic": replace(ARITHMETIC, dtype="half")},
        {"digests": ("a", "b", "d")},
        {"digests": ("b", "a", "c")},
        {"digests": ("a", "b")},
    ],
    ids=str,
)
def test_each_choice_changes_the_key(model: TransferModel, change: dict[str, Any]):
    assert key(model, **change) != key(model)


def test_pooling_changes_the_key(model: TransferModel):
    assert key(model, stages=5, pool=model.head.pool) != key(model, stages=5)


def test_views_differ(model: TransferModel):
    assert key(model, view={"view": 0}) != key(model, view={"view": 1})


@pytest.mark.parametrize("name", ["torch", "torchvision", "timm", "pillow", "jpeg"])
def test_another_version_of_a_library_changes_the_key(model: TransferModel, name: str, monkeypatch: pytest.MonkeyPatch):
    before, versions = key(model), key_module.versions()
    assert versions[name]
    monkeypatch.setattr(key_module, "versions", lambda: {**versions, name: "0.0.1"})
    assert key(model) != before


@pytest.mark.parametrize("constant", ["FORMAT", "PREPROCESSING"])
def test_another_format_changes_the_key(model: TransferModel, constant: str, monkeypatch: pytest.MonkeyPatch):
    before = key(model)
    monkeypatch.setattr(key_module, constant, 99)
    assert key(model) != before


def change_tensor(name: str) -> Callable[[TransferModel], None]:
    def change(model: TransferModel) -> None:
        with torch.no_grad():
            model.backbone.get_parameter(name).view(-1)[3] += 1e-3

    return change


def change_buffer(model: TransferModel) -> None:
    model.backbone.get_buffer("network.bn1.running_mean")[0] += 1


def change_structure(model: TransferModel) -> None:
    model.backbone.network.layer1[0].act1 = torch.nn.GELU()


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (change_tensor("network.conv1.weight"), True),
        (change_tensor("network.layer2.0.conv1.weight"), True),
        (change_buffer, True),
        (change_structure, True),
        (change_tensor("network.layer3.0.conv1.weight"), False),
        (lambda model: torch.nn.init.ones_(model.head.linear.weight), False),
    ],
    ids=["first stage", "last frozen stage", "buffer", "structure", "later stage", "head"],
)
def test_what_the_prefix_computes_with_changes_the_key_and_nothing_else(
    change: Callable[[TransferModel], None], matters: bool
):
    model = tiny_model(RESNET)
    before = key(model)
    change(model)
    assert (key(model) != before) is matters


def test_what_no_stage_owns_counts_as_prefix(model: TransferModel):
    other = tiny_model(RESNET)
    other.backbone.network.layer3.adapter = torch.nn.Linear(2, 2)
    names = prefix_tensors(other.backbone, 3).keys() - prefix_tensors(model.backbone, 3).keys()
    assert names == {"network.layer3.adapter.weight", "network.layer3.adapter.bias"}
