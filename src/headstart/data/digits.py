"""Scikit-learn's handwritten digits: real data that need no download."""

import hashlib
from typing import Any

import numpy as np

from headstart.data.content import combined_digest
from headstart.data.datamodule import ImageDataModule
from headstart.data.records import Records, Source
from headstart.errors import DataError


class Digits(ImageDataModule):
    """The 1,797 handwritten digits inside scikit-learn, 10 classes, 8 by 8 pixels in gray, used as RGB.

    Tree: none, the data are part of the installed scikit-learn. Licence: CC BY 4.0. Reference: E. Alpaydin and
    C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49 (its test part).

    The data set has no splits of its own: validation and test images are carved, by default a fifth of each class
    for each. Digits are never mirrored, whatever ``augment`` says, and crops are milder than elsewhere.

    Args:
        test_fraction: share of each class carved for testing.
        min_crop: as in the base class.
        **choices: those of :class:`ImageDataModule`.
    """

    def __init__(self, *, test_fraction: float = 0.2, min_crop: float = 0.8, **choices: Any) -> None:
        if choices.setdefault("flip", False):
            raise DataError("datamodule.flip=true makes no sense for digits: a mirrored digit is none; leave it out.")
        super().__init__(test_fraction=test_fraction, min_crop=min_crop, **choices)

    def load(self) -> Source:
        """All digits as one split."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        gray = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        images = np.ascontiguousarray(np.repeat(gray[..., None], 3, axis=-1))
        return Source(
            name="digits",
            splits={"train": array_records(images, bunch.target.astype(np.int64), "digits")},
            classes=tuple(str(name) for name in bunch.target_names),
            content_digest=array_digest(images, bunch.target.astype(np.int64)),
        )


def array_records(images: np.ndarray, targets: np.ndarray, prefix: str) -> Records:
    """Records of ``(N, H, W, C)`` bytes, named ``prefix/0000`` and so on."""
    width = len(str(max(len(images) - 1, 0)))
    return Records(
        images,
        targets,
        [f"{prefix}/{position:0{width}d}" for position in range(len(images))],
        [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
    )


def array_digest(images: np.ndarray, targets: np.ndarray) -> str:
    """Digest of images with their targets."""
    parts = (("shape", str(images.shape)), ("images", _bytes_digest(images)), ("targets", _bytes_digest(targets)))
    return combined_digest(parts)


def _bytes_digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
