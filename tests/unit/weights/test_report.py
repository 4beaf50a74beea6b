"""The line that says which weights are used."""

from headstart.weights.report import weights_notice


def test_random_weights_are_said_loudly() -> None:
    notice = weights_notice({"source": "none", "sha256": "", "matched": 0, "missing": ()})
    assert notice.plain.startswith("RANDOM WEIGHTS")
    assert "red" in str(notice.style)


def test_the_weights_used_are_named_with_what_is_missing() -> None:
    weights = {
        "source": "hub:resnet18",
        "sha256": "0123456789abcdef",
        "matched": 120,
        "missing": ("a", "b"),
        "unexpected": (),
    }
    assert (
        weights_notice(weights).plain == "Weights: hub:resnet18 (sha256 0123456789ab, 120 tensors matched, 2 missing)"
    )
