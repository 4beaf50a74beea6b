"""The choice of augmentation, and what is impossible about it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from headstart.data.affine import AffineAugment
from headstart.data.arguments import OPTIONS_OF_AUGMENT
from headstart.data.input_spec import InputSpec
from headstart.data.transforms import TrainTransform, checked_spec
from headstart.errors import DataError

Augment = Literal["none", "light", "randaug", "keras"]
AUGMENTS: tuple[str, ...] = get_args(Augment)


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
    """

    augment: str
    flip: bool
    min_crop: float
    shear_range: float | None = None
    zoom_range: float | None = None
    train_size: tuple[int, int] | None = None
    kept_size: int | None = None

    def __post_init__(self) -> None:
        if self.augment not in AUGMENTS:
            raise DataError(f"datamodule.augment={self.augment} is unknown; choose {', '.join(AUGMENTS)}.")
        if not 0 < self.min_crop <= 1:
            raise DataError(f"datamodule.min_crop={self.min_crop} must be above 0 and at most 1 (the whole image).")
        for name, kinds in OPTIONS_OF_AUGMENT.items():
            value = getattr(self, name)
            if value and self.augment not in kinds:
                raise DataError(
                    f"datamodule.{name}={value} has an effect with datamodule.augment={' or '.join(kinds)} only; "
                    "leave it out."
                )
        shear, zoom = self.shear_range or 0.0, self.zoom_range or 0.0
        if not 0 <= shear < 90 or not 0 <= zoom < 1:
            raise DataError(
                f"datamodule.shear_range={shear} must be degrees from 0 to below 90, and datamodule.zoom_range={zoom} "
                "at least 0 and below 1."
            )

    @property
    def random(self) -> bool:
        """Whether it changes anything."""
        return self.augment != "none"

    def transform(self, spec: InputSpec) -> TrainTransform | AffineAugment:
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
            )
        return TrainTransform(
            spec,
            randaug=self.augment == "randaug",
            flip=self.flip,
            min_crop=self.min_crop,
            train_size=self.train_size,
        )

    def as_dict(self) -> dict[str, Any]:
        """What is in force, for keys."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value is not None
        }
