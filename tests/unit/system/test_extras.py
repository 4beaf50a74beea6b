"""What only some choices need is named with the extra that brings it."""

import tomllib
from pathlib import Path

import pytest

from headstart.errors import ConfigError, DataError
from headstart.system.extras import _LIBRARIES, has_extra, require_extra


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("onnxr") else object())
    with pytest.raises(ConfigError, match=r"^--format onnx needs onnxruntime: pip install 'headstart\[export\]'$"):
        require_extra("--format onnx", "export")
    require_extra("strategy=lora", "lora")
    assert (has_extra("export"), has_extra("lora")) == (False, True)
    with pytest.raises(DataError):
        require_extra("a table", "export", error=DataError)


def test_the_package_has_these_extras_with_these_libraries(repository: Path):
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, libraries in _LIBRARIES.items():
        brought = " ".join(extras[extra])
        assert all(module.replace("_", "-") in brought for module in libraries), extra
