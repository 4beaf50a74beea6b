import pytest

from headstart.errors import ConfigError
from headstart.ranking.candidates import Candidate, default_candidates, families_first, named_candidates
from headstart.system.hardware import Hardware
from headstart.weights.packages import installed_file, package_cards


def test_without_a_hub_what_is_bundled_or_installed_is_compared_and_the_rest_is_listed():
    found = {one.name: one for one in default_candidates(probe=lambda: False)}
    installed = {card["backbone"] for card in package_cards().values() if installed_file(card)}
    assert {name for name, one in found.items() if not one.absent} == {"resnet18", *installed}
    assert "efficientnet_lite0" in installed
    assert "the hub cannot be reached" in found["resnet50"].absent
    assert "small_cnn" not in found
    assert "timm" not in found


def test_with_a_hub_large_networks_wait_for_a_gpu_or_for_their_name():
    cpu = {one.name: one.absent for one in default_candidates(probe=lambda: True)}
    assert "slow without a GPU" in cpu["resnet50"]
    assert cpu["mobilenetv3_small_100"] == ""
    [named] = named_candidates(["resnet50"])
    assert named.absent == ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.ranking.candidates.detect", lambda: Hardware(cuda=((9, 0),)))
        gpu = {one.name: one.absent for one in default_candidates(probe=lambda: True)}
    assert set(gpu.values()) == {""}


def test_a_network_is_named_with_other_weights_or_as_timm_names_it():
    plain, random, other = named_candidates(["resnet18", "resnet18:none", "regnety_002"])
    assert plain.overrides == ("backbone=resnet18",)
    assert random.overrides == ("backbone=resnet18", "backbone.weights=none")
    assert other.overrides == ("backbone=timm", "backbone.name=regnety_002")


def test_wrong_names_are_told():
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        named_candidates(["resnet1"])
    with pytest.raises(ConfigError, match="names resnet18 twice"):
        named_candidates(["resnet18", "resnet18"])
    with pytest.raises(ConfigError, match="names no network"):
        named_candidates([""])


def test_one_of_each_family_comes_before_its_sisters():
    names = ["efficientnet_lite0", "efficientnet_lite1", "resnet18", "resnet50", "vit_tiny"]
    found = families_first([Candidate(name, ()) for name in names])
    assert [one.name for one in found] == [names[0], names[2], names[4], names[1], names[3]]
