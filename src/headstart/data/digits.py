"""Scikit-learn's handwritten digits: real data that need no download."""

from typing import Annotated, Any

import numpy as np

from headstart.data.datamodule import ImageDataModule
from headstart.data.records import Source, array_records
from headstart.errors import DataError
from headstart.system.options import Above, AtLeast, AtMost, Below, StepsOnly


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

    def __init__(
        self,
        *,
        test_fraction: Annotated[float, AtLeast(0), Below(1)] = 0.2,
        min_crop: Annotated[float, Above(0), AtMost(1), StepsOnly(1.0, harmless=True)] = 0.8,
        **choices: Any,
    ) -> None:
        if choices.setdefault("flip", False):
            raise DataError("datamodule.flip=true makes no sense for digits: a mirrored digit is none; leave it out.")
        super().__init__(test_fraction=test_fraction, min_crop=min_crop, **choices)

    def load(self) -> Source:
        """All digits as one split."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        gray = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        images = np.ascontiguousarray(np.repeat(gray[..., None], 3, axis=-1))
        records = array_records(images, bunch.target.astype(np.int64), "digits")
        return Source(
            name="digits",
            splits={"train": records},
            classes=tuple(str(name) for name in bunch.target_names),
            content_digest=records.content_digest,
        )
