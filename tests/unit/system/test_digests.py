"""Digests: equal content has one, different content has another, and files are remembered safely."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.system.digests import digest

#: Each pair differs in content and must differ in digest; the encoding has no ambiguity to exploit.
DIFFERENT = [
    ("1", 1),
    (1, True),
    (0, False),
    (None, "None"),
    ([1, 2], [12]),
    (["a", "b"], ["ab"]),
    ([[1], 2], [1, [2]]),
    ([], {}),
    ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    ({"a": {"b": 1}}, {"a": {}, "b": 1}),
    (0.1, 0.1 + 2**-56),
    (b"a", "a"),
    (float("nan"), float("inf")),
    (10**20, 10**20 + 1),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_values_have_different_digests(a: object, b: object):
    assert digest(a) != digest(b)


def test_equal_values_have_one_digest():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1.0, 2), "a": 1.0})
    assert digest(float("nan")) == digest(float("nan"))
    assert digest({3, 1, 2}) == digest({2, 3, 1})
    assert digest(Path("a/b")) == digest("a/b")
    assert digest(-0.0) == digest(0)


def test_the_digest_is_the_same_in_another_process():
    value = {"z": [1, 2.5, None, True], "a": {"é": "ü"}, "s": {"x", "y"}}
    code = f"from headstart.system.digests import digest; print(digest({value!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(value)


def test_what_has_no_stable_text_is_refused():
    with pytest.raises(TypeError, match="object has no digest"):
        digest({"a": object()})
    with pytest.raises(TypeError, match="key 1 of a mapping is a int"):
        digest({1: "a"})
    with pytest.raises(TypeError, match="Python objects"):
        digest(np.array([object()]))


def test_arrays_differ_by_dtype_shape_and_bytes():
    array = np.arange(6, dtype=np.float32)
    same = [array.copy(), np.arange(12, dtype=np.float32)[::2] / 2]
    other = [array.astype(np.float64), array.reshape(2, 3), array[::-1], array + 1]
    assert {digest(a) for a in same} == {digest(array)}
    assert len({digest(a) for a in [array, *other]}) == 5


def test_a_tensor_and_its_array_agree_and_bfloat16_works():
    import torch

    tensor = torch.randn(3, 4)
    assert digest(tensor) == digest(tensor.numpy())
    assert digest(tensor.t()) == digest(tensor.numpy().T)
    assert digest(tensor.bfloat16()) != digest(tensor.half())
    assert digest(torch.zeros(0, 3)) != digest(torch.zeros(3, 0))
    assert digest(torch.tensor(1.0)) == digest(torch.tensor(1.0, requires_grad=True))
