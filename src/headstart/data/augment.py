"""The choice of augmentation, and what is impossible about it."""

from dataclasses import dataclass
from typing import Any, Literal

from headstart.data.affine import AffineAugment
from headstart.data.input_spec import Fit, InputSpec
from headstart.data.transforms import EvalTransform, TrainTransform, checked_spec

Augment = Literal["none", "light", "randaug", "keras"]


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; the arguments of a datamodule by these names.

    Attributes:
        augment: ``none``, ``light``, ``randaug`` or ``keras``.
        flip: whether images may be mirrored left to right.
        min_crop: the random crop of ``light`` and ``randaug`` keeps at least this share of the area.
        shear_range: of ``keras``, in degrees; None: 0.
        zoom_range: of ``keras``, as a share; None: 0.
        train_size: (rows, columns) that the network gets in training; None: as in evaluation.
        kept_size: rows and columns of the decoded images that ``light`` crops from; None: 8/7 of what it shows.
        fit: what the random crops of ``light`` and ``randaug`` are taken from: the image squeezed (``squash``) or
            bordered (``pad``) to the network's shape; else the image in its own.
    """

    augment: Augment
    flip: bool
    min_crop: float
    shear_range: float | None = None
    zoom_range: float | None = None
    train_size: tuple[int, int] | None = None
    kept_size: int | None = None
    fit: Fit | None = None

    @property
    def random(self) -> bool:
        """Whether it changes anything."""
        return self.augment != "none"

    def transform(self, spec: InputSpec) -> EvalTransform | TrainTransform | AffineAugment:
        """For images of this spec.

        Raises:
            DataError: the spec is impossible, or this augmentation of it.
        """
        spec = checked_spec(spec)
        if self.augment in ("light", "keras"):
            return AffineAugment(
                spec,
                crop=None if self.augment == "keras" else self.min_crop,
                flip=self.flip,
                shear_range=self.shear_range or 0.0,
                zoom_range=self.zoom_range or 0.0,
                train_size=self.train_size,
                kept_size=self.kept_size,
                fit=self.fit,
            )
        if self.augment == "none":
            return EvalTransform(spec)
        return TrainTransform(spec, flip=self.flip, min_crop=self.min_crop, train_size=self.train_size, fit=self.fit)

    def as_dict(self) -> dict[str, Any]:
        """What is in force, for keys."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value is not None
        }
