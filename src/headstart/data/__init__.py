"""Images and labels: sources, splits, preprocessing and the datamodule. Importing this needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headstart.data.input_spec import InputSpec

if TYPE_CHECKING:
    from headstart.data.csv_table import CSV
    from headstart.data.datamodule import ImageDataModule
    from headstart.data.digits import Digits
    from headstart.data.folder import Folder
    from headstart.data.fractals import Fractals
    from headstart.data.segmentation.files import MaskFolder, MaskTable
    from headstart.data.segmentation.shapes import Shapes
    from headstart.data.sources.huggingface import HuggingFace
    from headstart.data.sources.shards import WebDataset
    from headstart.data.sources.torchvision_sets import CIFAR10, Flowers102, Pets, Torchvision
    from headstart.data.transforms import EvalTransform

__all__ = [
    "CIFAR10",
    "CSV",
    "Digits",
    "EvalTransform",
    "Flowers102",
    "Folder",
    "Fractals",
    "HuggingFace",
    "ImageDataModule",
    "InputSpec",
    "MaskFolder",
    "MaskTable",
    "Pets",
    "Shapes",
    "Torchvision",
    "WebDataset",
]

_HOMES = {
    "CIFAR10": "sources.torchvision_sets",
    "CSV": "csv_table",
    "Digits": "digits",
    "EvalTransform": "transforms",
    "Flowers102": "sources.torchvision_sets",
    "Folder": "folder",
    "Fractals": "fractals",
    "HuggingFace": "sources.huggingface",
    "ImageDataModule": "datamodule",
    "MaskFolder": "segmentation.files",
    "MaskTable": "segmentation.files",
    "Pets": "sources.torchvision_sets",
    "Shapes": "segmentation.shapes",
    "Torchvision": "sources.torchvision_sets",
    "WebDataset": "sources.shards",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"headstart.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
