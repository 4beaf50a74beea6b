"""Colours of class numbers."""

import numpy as np


def palette() -> np.ndarray:
    """``(256, 3)`` bytes: the colours that Pascal VOC gives to the class numbers of its masks."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for place in range(3):
        colours |= (((numbers[:, None] >> (3 * place + np.arange(3))) & 1) << (7 - place)).astype(np.uint8)
    return colours
