"""``torch.export``: the network as a graph that PyTorch runs without this package's code, on any batch size."""

import io
from collections.abc import Sequence

import numpy as np
import torch

from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError
from headstart.export.answers import Answers, in_batches


def program(answers: Answers, spec: InputSpec) -> bytes:
    """The content of a ``.pt2`` file: pixels ``(batch, C, H, W)`` float32 to answers.

    Raises:
        ConfigError: the network has parts that ``torch.export`` cannot follow.
    """
    example, file = torch.zeros(2, *spec.shape), io.BytesIO()
    try:
        found = torch.export.export(answers, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # many kinds, none of them a common one
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"--format torch: torch.export cannot follow this network ({reason})") from error
    torch.export.save(found, file)
    return file.getvalue()


def answers_of(content: bytes, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """What the graph in a file's content answers to pixels ``(C, H, W)``."""
    network = torch.export.load(io.BytesIO(content)).module()

    def run(batch: np.ndarray) -> np.ndarray:
        found: np.ndarray = network(torch.from_numpy(batch)).numpy()
        return found

    with torch.inference_mode():
        return in_batches(run, inputs)
