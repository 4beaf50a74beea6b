"""``backbone.weights=auto`` means the same in every run of a study, also in those of a later command."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.config.weights import decided_variable
from headstart.system.atomic import read_note, write_json
from headstart.system.console import show

WEIGHTS_FILE = "weights.json"


@contextmanager
def remembered_weights(study: Path, backbone: Any) -> Iterator[Callable[[str], None]]:
    """Within the block ``auto`` is what an earlier run of the study decided; yields what remembers a new decision.

    Args:
        study: the study's folder.
        backbone: its section of the configuration.
    """
    name = str(backbone.get("name", "")) if isinstance(backbone, Mapping) else ""
    if not name or backbone.get("weights") != "auto":
        yield lambda choice: None
        return
    known = {name: str(choice) for name, choice in read_note(study / WEIGHTS_FILE).items()}
    variable = decided_variable(name)
    if name in known and os.environ.get(variable) is None:
        os.environ[variable] = known[name]
        show(f"backbone.weights=auto of {name} is {known[name]} in this study ({WEIGHTS_FILE})")

    def remember(choice: str) -> None:
        if choice != "none" and known.get(name) != choice and os.environ.get(variable) == choice:
            write_json(study / WEIGHTS_FILE, {**known, name: choice})

    yield remember
