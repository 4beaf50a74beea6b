"""Canonical digests of plain values and arrays.

Equal content has one digest on every machine and in every version of Python: mappings are sorted, numbers that
are equal are one (``1`` and ``1.0``, but not ``True``), and each value is tagged with its kind, so that ``"1"``,
``1`` and ``[1]`` differ.
"""

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 of a plain value, as 64 hexadecimal digits.

    Args:
        value: None, bool, int, float, str, bytes, path, array or tensor, or lists, tuples, sets and mappings of these.

    Raises:
        TypeError: a value of another kind; its text could name a memory address, so it has no digest.
    """
    sha = hashlib.sha256()
    for part in _encode(value):
        sha.update(part)
    return sha.hexdigest()


def _encode(value: Any) -> Iterator[bytes | memoryview]:
    if value is None or isinstance(value, bool):
        yield _tagged(b"c", repr(value).encode())
    elif isinstance(value, int | float):
        yield _tagged(b"n", _number(value).encode())
    elif isinstance(value, str | PurePath):
        yield _tagged(b"s", str(value).encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes | bytearray):
        yield _tagged(b"b", bytes(value))
    elif isinstance(value, Mapping):
        yield from _encode_mapping(value)
    elif isinstance(value, list | tuple):
        yield _tagged(b"l", str(len(value)).encode())
        for item in value:
            yield from _encode(item)
    elif isinstance(value, set | frozenset):
        yield _tagged(b"t", "".join(sorted(digest(item) for item in value)).encode())
    elif hasattr(value, "detach") or (hasattr(value, "dtype") and hasattr(value, "tobytes")):
        yield from _encode_array(value)
    else:
        raise TypeError(f"a {type(value).__name__} has no digest; give plain values, arrays or paths")


def _encode_mapping(value: Mapping[Any, Any]) -> Iterator[bytes | memoryview]:
    wrong = next((key for key in value if not isinstance(key, str)), None)
    if wrong is not None:
        raise TypeError(f"the key {wrong!r} of a mapping is a {type(wrong).__name__}; keys of digests are strings")
    yield _tagged(b"m", str(len(value)).encode())
    for key in sorted(value):
        yield from _encode(key)
        yield from _encode(value[key])


def _encode_array(array: Any) -> Iterator[bytes | memoryview]:
    if hasattr(array, "detach"):
        tensor = array.detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape)
        # NumPy has no bfloat16, so the bytes are taken as they are; torch is not imported here.
        flat = tensor.reshape(-1)
        data = flat.view(sys.modules["torch"].uint8).numpy() if flat.numel() else b""
    else:
        dtype, shape = str(array.dtype), tuple(array.shape)
        data = array.tobytes()
    if dtype == "object":
        raise TypeError("an array of Python objects has no digest; convert it to numbers or strings")
    yield _tagged(b"a", f"{dtype}{list(shape)}".encode())
    yield data if isinstance(data, bytes) else memoryview(data)


def _number(value: int | float) -> str:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return repr(int(value))
    return repr(float(value) if isinstance(value, float) else int(value))


def _tagged(kind: bytes, content: bytes) -> bytes:
    return kind + str(len(content)).encode() + b":" + content
