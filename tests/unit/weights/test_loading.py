import contextlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional

from headstart.backbones import SmallCNN, TimmBackbone
from headstart.errors import WeightsError
from headstart.system.digest_memory import digest_file
from headstart.weights import cards
from headstart.weights.loading import classifier_beside
from headstart.weights.sources import NO_WEIGHTS, bundled_cards, resolve_weights

# The smallest networks of each kind: the tests are about names and files, not about what the networks can do.
CONV, VIT = "test_resnet", "test_vit"

State = dict[str, Tensor]


def state_of(name: str, **options: Any) -> State:
    torch.manual_seed(5)
    network = timm.create_model(name, **options)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor))
    return state


def build(name: str, path: Path, **options: Any) -> TimmBackbone:
    return TimmBackbone(name=name, weights=resolve_weights(name, str(path)), **options)


def saved(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def assert_holds(backbone: TimmBackbone, state: State) -> None:
    own = backbone.network.state_dict()
    assert own
    for name, tensor in own.items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
def test_a_plain_state_dict_loads_completely(tmp_path: Path, file: str) -> None:
    state = state_of(CONV, num_classes=7)
    backbone = build(CONV, saved(state, tmp_path / file))
    assert_holds(backbone, state)
    report = backbone.weights
    assert report.source == str(tmp_path / file)
    assert len(report.sha256) == 64
    assert report.matched == len(backbone.network.state_dict())
    assert (report.missing, report.unexpected) == ((), ())


def test_the_classifier_is_kept_beside(tmp_path: Path) -> None:
    state = state_of(CONV, num_classes=7)
    backbone = build(CONV, saved(state, tmp_path / "w.safetensors"))
    assert backbone.source_classifier is not None
    assert torch.equal(backbone.source_classifier.weight, state["fc.weight"])
    assert torch.equal(backbone.source_classifier.bias, state["fc.bias"])
    assert not [name for name, _ in backbone.named_parameters() if "fc" in name]


def test_without_a_classifier_there_is_none(tmp_path: Path) -> None:
    state = state_of(CONV, num_classes=0)
    backbone = build(CONV, saved(state, tmp_path / "w.safetensors"))
    assert_holds(backbone, state)
    assert backbone.source_classifier is None


@pytest.mark.parametrize("prefix", ["model.", "module.", "backbone.", "model.backbone.network.", "_orig_mod.model."])
def test_a_wrappers_prefix_is_stripped_and_said(tmp_path: Path, prefix: str) -> None:
    state = state_of(CONV, num_classes=0)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()} | {
        "model.head.linear.weight": torch.zeros(2)
    }
    # Under the prefix `model.` the head lies inside the network, where only names that are allowed may be left out.
    path = saved({"state_dict": wrapped, "epoch": 3}, tmp_path / "w.ckpt")
    backbone = build(CONV, path, allow_unexpected=["head.*"] if prefix == "model." else [])
    assert_holds(backbone, state)
    assert any(f"'{prefix}'" in note for note in backbone.weights.notes)
    assert len(backbone.weights.unexpected) == 1


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in state_of(CONV, num_classes=3).items()}
    backbone = build(CONV, saved(state, tmp_path / "w.safetensors"))
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert_holds(backbone, state)
    assert backbone.source_classifier is not None
    assert backbone.source_classifier.weight.dtype == torch.float32


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = saved(state_of(VIT), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="of another network"):
        build(CONV, path)


def test_the_same_names_with_other_shapes_are_refused(tmp_path: Path) -> None:
    path = saved(state_of("resnet26t"), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"shape|not in the file"):
        build("resnet18", path)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_deeper_network_of_the_same_names_is_refused(tmp_path: Path, prefix: str) -> None:
    """ResNet-34 has every tensor of ResNet-18, and 96 more."""
    state = {f"{prefix}{name}": tensor for name, tensor in timm.create_model("resnet34").state_dict().items()}
    path = saved(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"96 of its tensors are not in the backbone \(layer1\.2.*another network"):
        build("resnet18", path)
    backbone = build("resnet18", path, allow_unexpected=["layer[1-4].*"])
    assert (backbone.weights.matched, len(backbone.weights.unexpected)) == (120, 96)
    assert any("backbone.allow_unexpected" in note for note in backbone.weights.notes)


def test_surplus_tensors_are_allowed_by_name_only(tmp_path: Path) -> None:
    path = saved({**state_of(CONV), "extra.weight": torch.zeros(2), "more.weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 of its tensors are not in the backbone \(more\.weight\)"):
        build(CONV, path, allow_unexpected=["extra.*"])
    assert build(CONV, path, allow_unexpected=["extra.*", "more.*"]).weights.unexpected == (
        "extra.weight",
        "more.weight",
    )


def test_another_classifier_is_no_surplus(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in state_of(CONV).items() if not name.startswith("fc.")}
    backbone = build(
        CONV, saved({**state, "fc.0.weight": torch.zeros(3, 4), "fc.2.bias": torch.zeros(3)}, tmp_path / "w.pth")
    )
    assert backbone.source_classifier is None
    assert backbone.weights.unexpected == ("fc.0.weight", "fc.2.bias")


def test_what_self_supervision_leaves_beside_the_network_is_no_surplus(tmp_path: Path) -> None:
    state = state_of(CONV, num_classes=0)
    whole = {f"module.encoder_{key}.{name}": t if key == "q" else 0 * t for key in "qk" for name, t in state.items()}
    backbone = build(CONV, saved({"state_dict": {**whole, "module.queue": torch.zeros(4)}}, tmp_path / "w.pth"))
    assert_holds(backbone, state)
    assert len(backbone.weights.unexpected) == len(state) + 1


def test_weights_that_diverged_are_refused(tmp_path: Path) -> None:
    state = state_of(CONV)
    state["layer2.0.conv1.weight"][0] = float("nan")
    with pytest.raises(WeightsError, match=r"1 tensors hold NaN or infinite values \(layer2\.0\.conv1\.weight\)"):
        build(CONV, saved(state, tmp_path / "w.safetensors"))


def test_a_missing_tensor_is_refused_by_name(tmp_path: Path) -> None:
    state = state_of(CONV)
    del state["layer2.0.conv1.weight"]
    with pytest.raises(
        WeightsError, match=r"1 of the backbone's 90 tensors are not in the file \(layer2\.0\.conv1\.weight\)"
    ):
        build(CONV, saved(state, tmp_path / "w.safetensors"))


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
def test_a_truncated_file_is_refused(tmp_path: Path, file: str) -> None:
    path = saved(state_of(CONV), tmp_path / file)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="damaged"):
        build(CONV, path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"state_dict": Runs()}))
    with pytest.raises(WeightsError, match="safely"):
        build(CONV, path)
    assert not (tmp_path / "ran").exists()


def test_torchscript_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "traced.pt"
    state = state_of(CONV)
    network = timm.create_model(CONV).eval()
    network.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 3, 64, 64)).save(str(path))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(
            WeightsError, match=r"it is a TorchScript program.*torch\.save\(.*'traced\.pth'\)"
        ) as caught:
            build(CONV, path)
    assert not [str(warning.message) for warning in warned if "TorchScript" in str(warning.message)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        remedy = str(caught.value).partition("save its weights: ")[2]
        with contextlib.chdir(tmp_path):
            exec(remedy, {"torch": torch})
    assert_holds(build(CONV, tmp_path / "traced.pth"), state)


def test_a_pointer_of_git_lfs_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 5\n")
    with pytest.raises(WeightsError, match=r"pointer of Git LFS.*git lfs pull"):
        build(CONV, path)


def test_a_saved_network_is_refused_by_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model(CONV), path)
    with pytest.raises(WeightsError, match=r"it holds a timm\.models\.resnet\.ResNet, not tensors alone"):
        build(CONV, path)
    path.write_bytes(b"no checkpoint" * 100)
    with pytest.raises(WeightsError, match="damaged, no checkpoint"):
        build(CONV, path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"height": "64"}, "not whole numbers"),
        ({"channels": 0, "mean": [], "std": []}, "not whole numbers"),
        ({"mean": [0.5]}, r"mean is \(0.5,\), not one number a channel"),
        ({"std": [0.0, 0.1, 0.1]}, "must be above 0"),
        ({"width_": 3}, "width_"),
    ],
)
def test_a_card_with_an_impossible_input_is_refused(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    path = saved(state_of(CONV), tmp_path / "w.safetensors")
    path.with_suffix(".json").write_text(json.dumps({"architecture": CONV, "input_spec": wrong}))
    with pytest.raises(WeightsError, match=f"describes their input wrongly: .*{said}.*repair or remove"):
        build(CONV, path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no named tensors"):
        build(CONV, saved({"epoch": 3}, tmp_path / "w.pth"))


def test_a_card_sets_input_classes_and_licence(tmp_path: Path) -> None:
    path = saved(state_of(CONV, num_classes=2), tmp_path / "w.safetensors")
    card = {
        "architecture": CONV,
        "input_size": "3,48,32",
        "mean": "0.1,0.2,0.3",
        "std": "0.4,0.5,0.6",
        "interpolation": "nearest",
        "crop": "none",
        "classes": ["ant", "bee"],
        "licence": "CC0",
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    backbone = build(CONV, path)
    spec = backbone.input_spec
    assert (spec.shape, spec.mean, spec.std) == ((3, 48, 32), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (spec.interpolation, spec.crop_pct, spec.crop_mode) == ("nearest", 1.0, "squash")
    assert backbone.weights.classes == ("ant", "bee")
    assert backbone.weights.licence == "CC0"


def test_the_metadata_of_a_safetensors_file_is_a_card(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(
        state_of(CONV), path, metadata={"architecture": f"{CONV} (timm)", "input_size": "3,40,40", "crop": "none"}
    )
    assert build(CONV, path).input_spec.shape == (3, 40, 40)


def test_a_card_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state_of(CONV), path, metadata={"architecture": "resnet50"})
    with pytest.raises(
        WeightsError, match=f"weights of resnet50 .* choose backbone.name=resnet50, or weights of {CONV}"
    ):
        build(CONV, path)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_first_convolution_is_adapted_to_the_channels(tmp_path: Path, channels: int) -> None:
    state = state_of(CONV)
    path = saved(state, tmp_path / "w.safetensors")
    rgb, other = build(CONV, path), build(CONV, path, in_channels=channels)
    assert next(other.parameters()).shape[1] == channels
    assert other.input_spec.channels == channels
    assert len(other.input_spec.mean) == len(other.input_spec.std) == channels
    assert any(f"from 3 to {channels}" in note for note in other.weights.notes)
    if channels == 1:
        gray = torch.rand(2, 1, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(
                other.eval().forward_features(gray), rgb.eval().forward_features(gray.expand(-1, 3, -1, -1))
            )


def test_position_embeddings_follow_the_image_size(tmp_path: Path) -> None:
    state = state_of(VIT)
    path = saved(state, tmp_path / "w.safetensors")
    own = build(VIT, path)
    other = build(VIT, path, image_size=(96, 64))
    assert_holds(own, state)
    assert other.features.shape[0] != own.features.shape[0]
    assert any("resampled" in note for note in other.weights.notes)
    same = [name for name, tensor in other.network.state_dict().items() if torch.equal(tensor, state.get(name, tensor))]
    assert len(same) == len(other.network.state_dict()) - 1


def test_positions_of_images_that_were_not_square_are_resampled_as_what_they_are(tmp_path: Path) -> None:
    source = build(VIT, saved(state_of(VIT), tmp_path / "w.safetensors"), image_size=(64, 256))
    path = saved(source.network.state_dict(), tmp_path / "oblong.safetensors")
    path.with_suffix(".json").write_text(json.dumps({"input_spec": source.input_spec.as_dict()}))
    rows, columns = source.network.patch_embed.grid_size
    for size in ((128, 128), (256, 64)):
        found = build(VIT, path, image_size=size)
        grid = found.network.patch_embed.grid_size
        tokens = source.network.pos_embed.shape[1] - rows * columns
        wanted = resample_abs_pos_embed(
            source.network.pos_embed, new_size=grid, old_size=(rows, columns), num_prefix_tokens=tokens
        )
        assert torch.equal(found.network.pos_embed, wanted)
        assert any("resampled" in note for note in found.weights.notes)


def test_a_classifier_over_other_features_is_none(tmp_path: Path) -> None:
    path = saved(state_of("test_convnext", num_classes=7), tmp_path / "w.safetensors")
    assert build("test_convnext", path, pre_logits="drop").source_classifier is None
    kept = build("test_convnext", path, pre_logits="keep")
    assert kept.source_classifier is not None
    images = torch.rand(2, *kept.input_spec.shape)
    network = timm.create_model("test_convnext", num_classes=7).eval()
    network.load_state_dict(load_file(path))
    with torch.no_grad():
        found = functional.linear(
            kept.eval().forward_features(images), kept.source_classifier.weight, kept.source_classifier.bias
        )
        torch.testing.assert_close(found, network(images), atol=1e-5, rtol=1e-4)


def test_random_weights_are_reported_as_such() -> None:
    backbone = TimmBackbone(name=CONV, weights=NO_WEIGHTS)
    assert backbone.weights.notes == ("random weights",)
    assert (backbone.weights.source, backbone.weights.sha256, backbone.weights.matched) == ("none", "", 0)


def test_bundled_weights_load_into_plain_timm_and_back() -> None:
    backbone = TimmBackbone(name="resnet18", weights=resolve_weights("resnet18", "bundled"))
    assert backbone.weights.source == "bundled:resnet18_tiny_imagenet_64.safetensors"
    assert backbone.weights.matched == len(backbone.state_dict()) == 120
    assert (backbone.weights.missing, backbone.weights.unexpected) == ((), ())
    assert backbone.input_spec.shape == (3, 64, 64)
    assert (backbone.input_spec.crop_mode, backbone.input_spec.crop_pct) == ("squash", 1.0)
    assert len(backbone.weights.classes) == 200
    assert backbone.source_classifier is not None
    plain = timm.create_model("resnet18", num_classes=0)
    plain.load_state_dict(backbone.network.state_dict(), strict=True)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone.eval().forward_features(images)
        assert torch.equal(plain.eval()(images), features.mean(dim=(2, 3)))
    path, _ = bundled_cards()["resnet18"]
    assert torch.equal(backbone.source_classifier.weight, load_file(path)["fc.weight"].float())


def test_the_small_cnn_takes_weights_of_an_earlier_run(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = SmallCNN(weights=NO_WEIGHTS)
    path = saved(dict(first.state_dict()), tmp_path / "w.safetensors")
    second = SmallCNN(weights=resolve_weights("small_cnn", str(path)))
    assert second.weights.matched == 4
    assert torch.equal(first.conv2.weight, second.conv2.weight)
    with pytest.raises(WeightsError, match="of another network"):
        build(CONV, path)


def test_what_a_card_says_of_classes_and_their_file_is_data(tmp_path: Path) -> None:
    assert len(cards.classes({"classes": "[" * 100_000})) == 1
    assert cards.classes({"classes": [[], ["n01", "bee"]]}) == ("[]", "bee")
    with pytest.raises(WeightsError, match="describes their input wrongly"):
        cards.input_spec({"input_size": [3, float("inf"), 8]})
    other = saved({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    stated = {"classifier": {"file": "../other.safetensors", "sha256": digest_file(other)}}
    with pytest.raises(WeightsError, match="it holds x instead of weight and bias"):
        classifier_beside(tmp_path / "w.safetensors", stated)
