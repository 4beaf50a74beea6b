"""Images in batches of bytes are, once normalised, exactly what evaluation sees."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.data import Digits, Folder
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import normalised
from headstart.store.pixels import pixel_batches

SPEC = InputSpec(height=24, width=24)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, crop_mode="squash", interpolation="bicubic"),
        replace(SPEC, crop_mode="border", height=40),
        InputSpec(channels=1, height=24, width=24, mean=(0.4,), std=(0.3,)),
    ],
    ids=["center", "squash", "border", "gray"],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_values_are_those_of_evaluation_bit_for_bit(image_folder: Callable[..., Path], spec: InputSpec, threads: int):
    data = Folder(root=image_folder(size=31), batch_size=4, seed=0, augment="none")
    data.prepare()
    data.configure(spec)
    dataset = data.dataset("train")
    found = [
        normalised(torch.from_numpy(b), spec)
        for b in pixel_batches(dataset, range(1, 11), batch_size=4, threads=threads)
    ]
    assert [len(batch) for batch in found] == [4, 4, 2]
    wanted = torch.stack([dataset[index]["images"] for index in range(1, 11)])
    assert torch.equal(torch.cat(found), wanted)


def test_every_byte_is_normalised_as_in_evaluation():
    data = Digits(batch_size=4, seed=0, augment="none", shots=1)
    data.prepare()
    data.configure(SPEC)
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    from torchvision.transforms import functional

    wanted = functional.normalize(functional.to_tensor(pixels[0]), list(SPEC.mean), list(SPEC.std))
    assert torch.equal(normalised(torch.from_numpy(pixels), SPEC)[0], wanted)


def test_leaving_early_stops_the_threads():
    data = Digits(batch_size=4, seed=0, augment="none")
    data.prepare()
    data.configure(SPEC)
    batches: Any = pixel_batches(data.dataset("train"), range(100), batch_size=4, threads=2)
    next(batches)
    batches.close()
