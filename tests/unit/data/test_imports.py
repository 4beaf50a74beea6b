"""What must be importable at once."""

import subprocess
import sys

import pytest

from headstart import data


def test_listing_splitting_and_digests_need_no_torch() -> None:
    program = (
        "import sys, headstart.data, headstart.data.input_spec, headstart.data.scan, headstart.data.splits, "
        "headstart.system.digest_memory, headstart.data.records, headstart.data.images, headstart.system.network\n"
        "print([name for name in ('torch', 'torchvision', 'pytorch_lightning', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_found() -> None:
    assert all(getattr(data, name).__module__.startswith("headstart.data.") for name in data.__all__)
    with pytest.raises(AttributeError, match="Imagenet"):
        data.Imagenet  # noqa: B018
