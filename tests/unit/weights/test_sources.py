import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headstart.errors import WeightsError
from headstart.system import network
from headstart.weights import hub
from headstart.weights import sources as weights_source
from headstart.weights.sources import bundled_cards, resolve_weights


def never() -> bool:
    raise AssertionError("the hub was asked")


def up() -> bool:
    return True


def down() -> bool:
    return False


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_in_cache(cache: Path, repository: str, content: bytes) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    file = folder / "snapshots" / "0123abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def test_auto_takes_the_hub_when_it_answers(hub_cache: Path) -> None:
    weights = resolve_weights("resnet18", probe=up)
    assert (weights.kind, weights.source, weights.path) == ("hub", "hub:resnet18.a1_in1k", None)


def test_auto_takes_the_local_cache_of_the_hub_without_asking(hub_cache: Path) -> None:
    file = put_in_cache(hub_cache, "timm/resnet18.a1_in1k", b"weights")
    for choice in ("auto", "hub"):
        weights = resolve_weights("resnet18", choice, probe=never)
        assert (weights.source, weights.path) == ("hub:resnet18.a1_in1k", file)
        assert len(weights.sha256) == 64


def test_auto_takes_bundled_weights_without_the_hub(hub_cache: Path) -> None:
    weights = resolve_weights("resnet18", probe=down)
    assert (weights.kind, weights.choice) == ("bundled", "bundled")
    assert weights.sha256 == bundled_cards()["resnet18"][1]["sha256"]


@pytest.mark.parametrize("name", ["resnet50", "small_cnn", "test_vit"])
def test_auto_never_becomes_random(hub_cache: Path, name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve_weights(name, probe=down)
    message = str(caught.value)
    for option in ("backbone.weights=PATH", "strategy=scratch", "resnet18"):
        assert option in message
    assert "\n" not in message


def test_a_network_without_weights_anywhere_says_so(hub_cache: Path) -> None:
    with pytest.raises(WeightsError, match="'small_cnn' has no pretrained weights"):
        resolve_weights("small_cnn", probe=never)


def test_the_hub_out_of_reach_is_an_error(hub_cache: Path) -> None:
    with pytest.raises(WeightsError, match="not in the local cache and the hub cannot be reached"):
        resolve_weights("resnet18", "hub", probe=down)


def test_bundled_where_there_is_none_is_an_error() -> None:
    with pytest.raises(WeightsError, match="no weights of 'resnet50' are in the package"):
        resolve_weights("resnet50", "bundled")


def test_none_is_none() -> None:
    weights = resolve_weights("resnet18", "none", probe=never)
    assert (weights.kind, weights.source, weights.sha256, dict(weights.card)) == ("none", "none", "", {})


def test_scratch_keeps_the_input_of_the_weights_that_it_replaces(hub_cache: Path) -> None:
    weights = resolve_weights("resnet18", scratch=True, probe=down)
    assert (weights.kind, weights.source, weights.path) == ("none", "none", None)
    assert weights.card["input_size"] == "3,64,64"
    assert resolve_weights("resnet50", scratch=True, probe=down).card == {}


def test_a_path_is_named_and_digested(tmp_path: Path) -> None:
    file = tmp_path / "some.pth"
    file.write_bytes(b"abc")
    weights = resolve_weights("resnet18", str(file), probe=never)
    assert (weights.kind, weights.source, weights.choice, weights.path) == ("file", str(file), str(file), file)
    assert weights.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_with_an_export_is_its_export(tmp_path: Path) -> None:
    (tmp_path / "export.safetensors").write_bytes(b"abc")
    (tmp_path / "export.json").write_text(json.dumps({"architecture": "resnet18", "input_size": "3,32,32"}))
    weights = resolve_weights("resnet18", str(tmp_path), probe=never)
    assert weights.path == tmp_path / "export.safetensors"
    assert weights.choice == str(tmp_path)
    assert weights.card["input_size"] == "3,32,32"


@pytest.mark.parametrize(
    ("given", "said"),
    [("absent.pth", "no such file"), ("folder", "folder without export"), ("file.txt", "is not one of")],
)
def test_a_wrong_path_is_refused(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(WeightsError, match=said):
        resolve_weights("resnet18", str(tmp_path / given), probe=never)


def test_a_digest_that_is_not_the_cards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"abc")
    (tmp_path / "w.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(WeightsError, match="is not the 000000000000"):
        resolve_weights("resnet18", str(tmp_path / "w.safetensors"), probe=never)


def test_damaged_bundled_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = bundled_cards()["resnet18"]
    shutil.copy(path.with_suffix(".json"), tmp_path)
    (tmp_path / path.name).write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(weights_source, "_BUNDLED", tmp_path)
    bundled_cards.cache_clear()
    try:
        with pytest.raises(WeightsError, match="damaged"):
            resolve_weights("resnet18", "bundled")
    finally:
        bundled_cards.cache_clear()


def test_a_card_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"abc")
    (tmp_path / "w.json").write_text("{")
    with pytest.raises(WeightsError, match="card of the weights cannot be read"):
        resolve_weights("resnet18", str(tmp_path / "w.pth"), probe=never)


def test_deciding_needs_neither_torch_nor_timm() -> None:
    code = (
        "import sys\n"
        "from headstart.weights.sources import resolve_weights\n"
        "assert resolve_weights('resnet18', probe=lambda: False).kind in {'bundled', 'hub'}\n"
        "print(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_default_tag_is_timms_own() -> None:
    from timm.models import get_pretrained_cfg

    small = ["resnet18", "resnet50", "vgg16", "mobilenetv3_small_100", "efficientnet_b0"]
    large = ["convnext_tiny", "vit_small_patch16_224", "vit_base_patch14_dinov2", "swin_tiny_patch4_window7_224"]
    for name in small + large:
        config, entry = get_pretrained_cfg(name), hub.hub_entry(name)
        assert config is not None
        assert entry is not None
        assert entry.name == f"{name}.{config.tag}"
        assert entry.repository == config.hf_hub_id


def test_a_tag_is_followed() -> None:
    entry = hub.hub_entry("resnet18.tv_in1k")
    assert entry is not None
    assert (entry.name, entry.repository) == ("resnet18.tv_in1k", "timm/resnet18.tv_in1k")
    assert hub.hub_entry("resnet18.no_such_tag") is None
    assert hub.hub_entry("no_such_network") is None


def test_offline_mode_is_out_of_reach_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "reachable", lambda endpoint: pytest.fail("the network was touched"))
    hub.hub_reachable.cache_clear()
    try:
        assert not hub.hub_reachable()
    finally:
        hub.hub_reachable.cache_clear()


def test_a_silent_network_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    asked: list[str] = []
    given_up = threading.Event()

    def reachable(endpoint: str) -> bool:
        asked.append(endpoint)
        return network.reachable(endpoint, timeout_s=0.05)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", reachable)
    monkeypatch.setattr(network, "_answers", lambda endpoint, timeout_s: given_up.wait(60) or True)
    hub.hub_reachable.cache_clear()
    try:
        assert not hub.hub_reachable()
        assert not hub.hub_reachable()
        assert len(asked) == 1
    finally:
        given_up.set()
        hub.hub_reachable.cache_clear()
