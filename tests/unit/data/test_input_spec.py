"""What a file says of a network's input is checked before it counts."""

from typing import Any

import pytest

from headstart.data.input_spec import InputSpec


@pytest.mark.parametrize(
    "changed",
    [
        {"height": 0},
        {"height": 10**6, "width": 10**6},
        {"crop_pct": 1e-6},
        {"width": "224"},
        {"channels": 4},
        {"height": True},
        {"mean": [0.5, 0.5]},
        {"mean": 0.5},
        {"mean": [0.5, 0.5, "x"]},
        {"mean": [0.5, 0.5, float("nan")]},
        {"std": [0.5, 0.5, 0.0]},
        {"std": [0.5, float("inf"), 0.5]},
        {"crop_pct": 0},
        {"crop_pct": float("nan")},
        {"crop_pct": "1"},
        {"crop_mode": "middle"},
        {"interpolation": "magic"},
        {"interpolation": ["bilinear"]},
    ],
)
def test_what_makes_no_sense_is_refused(changed: dict[str, Any]):
    whole = InputSpec().as_dict()
    assert InputSpec.from_dict(whole).checked() == InputSpec()
    with pytest.raises((ValueError, TypeError)):
        InputSpec.from_dict(whole | changed).checked()
