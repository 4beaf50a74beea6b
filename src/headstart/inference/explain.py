"""Where in an image a network found its answer: a heat map over what it saw, by captum.

Grad-CAM (Selvaraju et al. 2017) where the backbone ends in a map of features: the channels of that map, weighted by how
much the answer would rise with each. Integrated gradients (Sundararajan et al. 2017, equation 1) of the pixels, from a
gray image on, where it ends in tokens or a vector. Either is of the network alone and says nothing of the world.
"""

import os
from hashlib import blake2b
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from headstart.data.transforms import to_picture
from headstart.errors import ConfigError
from headstart.execution.load import Model, Picture, find_device, to_image
from headstart.execution.predict import Prediction
from headstart.inference.ensemble import Ensemble
from headstart.inference.predict import Following
from headstart.system.atomic import atomic_write
from headstart.system.extras import require_extra

_STEPS = 24
_SHOWN = 0.5
_LONGEST_NAME = 200  # bytes, of the 255 that file systems allow
_MAPS = ("NCHW", "NHWC")


class Explained(Following):
    """A model whose predictions leave a picture each, ``<name>-<digest of the path>.png``, as they come.

    Args:
        model: of one run.
        folder: for the pictures.

    Raises:
        ConfigError: there are several runs, every pixel is predicted, or captum is not installed.
    """

    def __init__(self, model: Ensemble, folder: Path) -> None:
        require_extra("--explain", "explain")
        if len(model.models) > 1:
            raise ConfigError("--explain shows what one network sees; give one run")
        if model.task.name == "segmentation":
            raise ConfigError("--explain shows what speaks for an image's class, and masks have one for each pixel")
        self.model, self._network, self._folder = model, model.models[0], folder

    def follow(self, prediction: Prediction, device: str) -> Prediction:
        """The same, after its picture is written."""
        place = prediction.probabilities.index(max(prediction.probabilities))
        with atomic_write(self._folder / picture_name(prediction.path), "wb") as file:
            explanation(self._network, prediction.path, place, device=device).save(file, "PNG")
        return prediction


def picture_name(path: str) -> str:
    """Of an image's explanation: the same in every call, and another for each path."""
    key = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    stem = os.fsdecode(os.fsencode(Path(path).stem)[:_LONGEST_NAME])
    return f"{stem}-{key}.png"


def explanation(model: Model, image: Picture, place: int, *, device: str = "auto") -> Image.Image:
    """The image as the network saw it, with what speaks for class ``place`` laid over it.

    Args:
        model: of a finished run.
        image: in any form.
        place: of the class, or of the quantity.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """
    spec = model.transform.spec
    pixels = model.transform(to_image(image, spec.channels))
    heat = heat_map(model, pixels[None].to(find_device(device)), place)
    seen = np.asarray(to_picture(pixels, spec).convert("RGB"), dtype=np.float32) / 255
    colours = matplotlib.colormaps["inferno"](heat)[..., :3]
    return Image.fromarray((255 * ((1 - _SHOWN) * seen + _SHOWN * colours)).round().astype(np.uint8))


def heat_map(model: Model, pixels: Tensor, place: int) -> np.ndarray:
    """``(H, W)`` from 0 to 1: what speaks for a class in normalised pixels ``(1, C, H, W)``."""
    from captum.attr import IntegratedGradients, LayerGradCam

    network = _Tapped(model)
    if network.layout in _MAPS:
        found = LayerGradCam(network, network.tap).attribute(pixels, place, relu_attributions=True)
        found = F.interpolate(found.detach(), pixels.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    else:
        method = IntegratedGradients(network)
        found = method.attribute(pixels, torch.zeros_like(pixels), place, n_steps=_STEPS, internal_batch_size=_STEPS)
        side = max(pixels.shape[-2:]) // 28 * 2 + 1  # single pixels scatter; what a patch adds up to is seen
        found = F.avg_pool2d(found.detach().abs().sum(dim=1, keepdim=True), side, stride=1, padding=side // 2)[0, 0]
    values = found.float().cpu().numpy()
    scaled: np.ndarray = values / max(float(values.max()), 1e-12)
    return scaled


class _Tapped(nn.Module):
    """Pixels to a score for each class, with a layer through which the map of features goes, channels first."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network, self.tap = model.network, nn.Identity()
        self.layout = model.network.backbone.features.layout
        self.two_sided = model.task.name == "binary"
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.network.features(pixels)
        if self.layout == "NHWC":
            features = self.tap(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        else:
            features = self.tap(features)
        outputs: Tensor = self.network.head(features)
        return torch.cat([-outputs, outputs], dim=1) if self.two_sided else outputs
