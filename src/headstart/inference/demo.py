"""A page on this machine: drop an image, see the classes with their probabilities and what speaks for the first."""

import os
from typing import TYPE_CHECKING, Any

from headstart.errors import ConfigError, DataError
from headstart.execution.load import Model
from headstart.inference.rows import number_text
from headstart.system.extras import has_extra, require_extra

if TYPE_CHECKING:
    import gradio

HERE = "127.0.0.1"
"""Only this machine reaches the page."""

_SHOWN = 5


def page(model: Model, *, device: str = "auto") -> "gradio.Interface":
    """The page of a finished run; explanations are shown where captum is installed.

    Args:
        model: of the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: Gradio is not installed.
    """
    require_extra("headstart demo", "demo")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: nothing is sent anywhere
    import gradio

    explains = has_extra("explain")
    numbers = model.task.name == "regression"

    def answer(picture: str | None) -> Any:
        if picture is None:
            return (None, None) if explains else None
        try:
            found = model.predict(picture, device=device)
        except DataError as error:
            raise gradio.Error(str(error)) from error
        named = dict(zip(model.classes, found.probabilities, strict=True))
        told: Any = named
        if numbers:
            told = "\n".join(f"{name}: {number_text(value, model.task.name)}" for name, value in named.items())
        if not explains:
            return told
        from headstart.inference.explain import explanation

        place = found.probabilities.index(max(found.probabilities))
        return told, explanation(model, picture, place, device=device)

    result = gradio.Textbox(label="values") if numbers else gradio.Label(num_top_classes=_SHOWN, label="classes")
    outputs = [result, gradio.Image(label="what speaks for it")] if explains else [result]
    return gradio.Interface(
        answer,
        # The file itself: Gradio reads it by any reader of Pillow's, and has other colours for transparent ones.
        gradio.Image(type="filepath", image_mode=None, label="image"),
        outputs,
        title=f"{model.result.config['backbone']} on {model.result.data['name']}",
        description=f"Run {model.path.name}; nothing leaves this machine.",
        flagging_mode="never",
    )


def serve(model: Model, *, port: int, device: str = "auto") -> None:
    """Show the page at ``http://127.0.0.1:<port>`` until the process is interrupted.

    Raises:
        ConfigError: the port is taken, or there is no such port.
    """
    try:
        page(model, device=device).launch(
            server_name=HERE, server_port=port, share=False, inbrowser=False, footer_links=[], theme=_plain_theme()
        )
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--port={port} cannot be used ({error}); give another") from error


def _plain_theme() -> Any:
    """Fonts of the machine itself; Gradio's own themes fetch theirs."""
    import gradio

    return gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
