"""The package's shape: imports go one way, start-up stays light, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "headstart"

#: Each layer may import from itself and the layers above it in this list.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "atomic", "folders", "fingerprint", "hardware", "interpreter"),
    ("data",),
    ("backbones", "heads", "tasks"),
    ("config",),  # decides what `auto` means: content digests, weights
    ("strategies.contract", "model", "evaluation", "features"),  # the model describes itself in the contract's words
    ("strategies",),
    ("cache",),
    ("modes", "audit", "averaging", "mixing", "optim", "checkpoints", "module", "closed_form"),
    ("results", "run", "ranks"),
    ("confusion", "figures", "plots", "pictures", "console", "loggers", "wandb_run", "wandb_offline", "callbacks"),
    ("quiet", "assemble", "loaded", "exported", "surroundings", "plan", "execution", "training", "fused"),
    ("study", "ranking", "predict", "export", "listing", "launch"),
    ("cli", "__main__", "launch"),  # a job of a sweep is a command of its own
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

#: Imported by `--help`, `--cfg job`, the schema's errors and the logic of run directories.
TORCH_FREE = (
    "errors",
    "fingerprint",
    "atomic",
    "folders",
    "hardware",
    "interpreter",
    "config",
    "cli",
    "run",
    "ranks",
    "results",
    "listing",
    "strategies",
    "data",
    "data.input_spec",
    "data.splits",
    "data.scan",
    "study.collect",
    "launch.fused",
    "launch.pool",
    "launch.sweep",
)
HEAVY = ("torch", "torchvision", "timm", "pytorch_lightning", "torchmetrics", "wandb", "sklearn", "matplotlib")


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> dict[str, int]:
    """Layers below ``headstart`` that a file imports from, with the line; type-checking blocks left out."""
    found: dict[str, int] = {}

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for inner in node.orelse:
                visit(inner)
            return
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = []
        for name in names:
            parts = name.split(".")
            if parts[0] == "headstart" and len(parts) > 1 and not parts[1].startswith("__version"):
                inner = ".".join(parts[1:3])
                found.setdefault(inner if inner in LAYER_OF else parts[1], node.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path: Path):
    name = owner(path)
    if name == "__init__":
        assert imported(path) == {}
        return
    assert name in LAYER_OF, f"{name} has no layer yet; give it one in LAYERS"
    for target, line in imported(path).items():
        assert target in LAYER_OF, f"{path.name}:{line} imports headstart.{target}, which has no layer"
        assert LAYER_OF[target] <= LAYER_OF[name], f"{path.name}:{line}: {name} must not import {target}"


def test_the_check_sees_a_wrong_import(tmp_path: Path):
    path = tmp_path / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from headstart.cli import a\n"
        "def f():\n    from headstart.training import train\n    from headstart import run\n"
        "    import headstart.study\n"
    )
    assert imported(path) == {"training": 5, "run": 6, "study": 7}


@pytest.mark.parametrize("name", TORCH_FREE)
def test_light_modules_import_nothing_heavy(name: str):
    if not (PACKAGE / (name.replace(".", "/") + ".py")).exists() and not (PACKAGE / name).is_dir():
        pytest.fail(f"headstart.{name} does not exist")
    code = f"import sys, headstart.{name}; print([heavy for heavy in {HEAVY!r} if heavy in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_strategy_imports_nothing_heavy():
    names = [f"headstart.strategies.{path.stem}" for path in sorted((PACKAGE / "strategies").glob("[a-z]*.py"))]
    assert len(names) > 3
    code = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_names_say_what_a_file_owns():
    forbidden = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "core", "base"}
    assert [path for path in PACKAGE.rglob("*") if path.stem in forbidden] == []


def test_files_stay_small():
    sizes = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in files()}
    assert {name: size for name, size in sizes.items() if size > 420} == {}


def test_only_the_entry_points_see_the_configuration_object():
    """Everything but these takes plain arguments and works from a notebook."""
    allowed = {"config", "cli", "training"}
    seen = {owner(path) for path in files() if "DictConfig" in path.read_text(encoding="utf-8")}
    assert seen <= allowed
