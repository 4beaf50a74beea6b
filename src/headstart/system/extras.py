"""Libraries that only some choices need: which extra of the package brings them, and one line where one is missing."""

import importlib.util

from headstart.errors import ConfigError, HeadstartError

_LIBRARIES = {
    "demo": {"gradio": "Gradio"},
    "explain": {"captum": "captum"},
    "export": {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
    "hf": {"datasets": "datasets"},
    "lora": {"peft": "peft"},
    "mlflow": {"mlflow": "mlflow"},
    "parquet": {"pyarrow": "pyarrow"},
    "ray": {"ray": "Ray"},
    "search": {"optuna": "Optuna"},
    "slurm": {"submitit": "submitit"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "wandb": {"wandb_workspaces": "wandb-workspaces"},
}
"""By the extra's name in ``pyproject.toml``: modules, and what people call them."""


def has_extra(extra: str) -> bool:
    """Whether all that an extra brings is installed."""
    return not _missing(extra)


def require_extra(choice: str, extra: str, *, error: type[HeadstartError] = ConfigError) -> None:
    """Hold that an extra is installed.

    Args:
        choice: that needs it, as the user gave it.
        extra: its name.
        error: what is raised.

    Raises:
        HeadstartError: it is not.
    """
    if missing := _missing(extra):
        raise error(f"{choice} needs {', '.join(missing)}: pip install 'headstart[{extra}]'")


def _missing(extra: str) -> list[str]:
    return [name for module, name in _LIBRARIES[extra].items() if importlib.util.find_spec(module) is None]
