"""The package's shape: imports go one way, start-up stays light, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "headstart"

#: Each layer may import from itself and the layers above it in this list; CONTRIBUTING quotes it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("system",),
    ("runs",),
    ("data", "tasks"),
    ("weights",),
    ("backbones",),
    ("heads",),
    ("model",),
    ("strategies",),
    ("config",),
    ("store",),
    ("training",),
    ("frozen",),
    ("tracking", "plots", "export"),
    ("execution",),
    ("study", "transferability"),
    ("inspection",),
    ("ranking", "inference"),
    ("launch",),
    ("commands",),
    ("__init__", "__main__"),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

#: Imported by `--help`, `--cfg job`, the schema's errors and the logic of run directories.
TORCH_FREE = (
    "errors",
    "system.atomic",
    "system.catalog",
    "system.console",
    "system.digests",
    "system.folders",
    "system.hardware",
    "system.interpreter",
    "system.locks",
    "system.names",
    "system.regular",
    "runs.directory",
    "runs.reader",
    "runs.ranks",
    "runs.result",
    "weights.cards",
    "weights.hub",
    "weights.report",
    "weights.sources",
    "model.description",
    "model.phases",
    "strategies",
    "config",
    "data",
    "data.input_spec",
    "data.splits",
    "data.scan",
    "execution.summary",
    "inference.inputs",
    "inference.predict",
    "launch.fused",
    "launch.pool",
    "launch.sweep",
    "commands.cli",
    "commands.runs",
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
                found.setdefault(parts[1], node.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path: Path):
    name = owner(path)
    assert name in LAYER_OF, f"{name} has no layer yet; give it one in LAYERS"
    for target, line in imported(path).items():
        assert target in LAYER_OF, f"{path.name}:{line} imports headstart.{target}, which has no layer"
        assert LAYER_OF[target] <= LAYER_OF[name], f"{path.name}:{line}: {name} must not import {target}"


def test_the_check_sees_a_wrong_import(tmp_path: Path):
    path = tmp_path / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from headstart.commands.cli import a\n"
        "def f():\n    from headstart.execution.train import train\n    from headstart import runs\n"
        "    import headstart.study\n"
    )
    assert imported(path) == {"execution": 5, "runs": 6, "study": 7}


@pytest.mark.parametrize("name", TORCH_FREE)
def test_light_modules_import_nothing_heavy(name: str):
    if not (PACKAGE / (name.replace(".", "/") + ".py")).exists() and not (PACKAGE / name).is_dir():
        pytest.fail(f"headstart.{name} does not exist")
    code = f"import sys, headstart.{name}; print([heavy for heavy in {HEAVY!r} if heavy in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("start", "unneeded"),
    [
        ("import headstart.commands.cli, headstart.commands.help", ("hydra", "omegaconf", "yaml", "dataclasses")),
        ("import headstart.config", ("importlib.metadata", "rich")),
        ("import headstart.weights.sources", ("urllib.request", "ssl", "importlib.metadata")),
        ("from hydra.core.plugins import Plugins; Plugins.instance()", ("headstart.launch", "headstart.config")),
    ],
    ids=["help", "configuration", "weights", "plugins"],
)
def test_every_start_imports_only_what_every_start_needs(start: str, unneeded: tuple[str, ...]):
    code = f"import sys; {start}; print([name for name in {unneeded!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing():
    code = "import sys; before = set(sys.modules); import headstart; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"hydra", "yaml", "omegaconf", "rich", *HEAVY} & set(ast.literal_eval(done.stdout))
    assert "headstart.config" not in done.stdout


def test_every_strategy_imports_nothing_heavy():
    names = [f"headstart.strategies.{path.stem}" for path in sorted((PACKAGE / "strategies").glob("[a-z]*.py"))]
    assert len(names) > 3
    code = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_names_say_what_a_file_owns():
    forbidden = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "core", "base"}
    assert [path for path in PACKAGE.rglob("*") if path.stem in forbidden] == []


def test_no_two_classes_have_one_name():
    names = [
        node.name
        for path in files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert {name for name in names if names.count(name) > 1} == set()


def test_contributing_quotes_the_layers(repository: Path):
    text = " ".join((repository / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert " → ".join(", ".join(names) for names in LAYERS[:-1]) + " → `train.py`, `scripts/`" in text


def test_packages_of_one_layer_make_no_circle():
    imports = {(owner(path), target) for path in files() for target in imported(path)}
    assert [(a, b) for a, b in imports if a < b and (b, a) in imports] == []


def test_packages_stay_small():
    folders = {path.parent for path in files()}
    counts = {folder.relative_to(PACKAGE).as_posix(): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in counts.items() if count > 20} == {}
    assert {path.name for path in PACKAGE.glob("*.py*")} - {"py.typed"} == {"__init__.py", "__main__.py", "errors.py"}


def test_files_stay_small():
    sizes = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in files()}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_only_the_entry_points_see_the_configuration_object():
    """Everything but these takes plain arguments and works from a notebook."""
    allowed = {"config", "commands"}
    seen = {owner(path) for path in files() if "DictConfig" in path.read_text(encoding="utf-8")}
    assert seen <= allowed
