"""Where in an image a network found its answer: a heat map over what it saw, by captum.

Grad-CAM (Selvaraju et al. 2017) where the backbone ends in a map of features, or in tokens of the image's patches: the
channels of that map, or of what enters the last stage (after it the class token may be all that is read), weighted by
how much the answer would rise with each. Integrated gradients (Sundararajan et al. 2017, equation 1) of the pixels,
from a gray image on, elsewhere. All are of the network alone and say nothing of the world. On a ViT-Tiny that tells red
from blue discs beside green ones, Grad-CAM of the tokens put 5.6 times as much heat on the disc as its area,
integrated gradients 2.5 times, and some on the green one.
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

from headstart.backbones.contract import Backbone
from headstart.backbones.cut import is_cuttable
from headstart.data.input_spec import InputSpec
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

    network, tokens = _Tapped(model), _tokens(model, pixels)
    if tokens is not None or network.layout in _MAPS:
        seen, tapped = (pixels, network) if tokens is None else (tokens, _TappedTokens(model))
        found = LayerGradCam(tapped, tapped.tap).attribute(seen, place, relu_attributions=True)
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
        return self.scores(features)

    def scores(self, features: Tensor) -> Tensor:
        """Of each class, ``(B, classes)``."""
        outputs: Tensor = self.network.head(features)
        return torch.cat([-outputs, outputs], dim=1) if self.two_sided else outputs


class _TappedTokens(_Tapped):
    """The same from the tokens that enter the last stage, whose patches lie on the tap as a map."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.spec = model.transform.spec

    def forward(self, tokens: Tensor) -> Tensor:
        backbone = self.network.backbone
        first, rows = backbone.features.prefix_tokens, _rows(backbone, self.spec)
        patches = self.tap(tokens[:, first:].transpose(1, 2).unflatten(2, (rows, -1)))
        tokens = torch.cat([tokens[:, :first], patches.flatten(2).transpose(1, 2)], dim=1)
        return self.scores(self.network.features_from(tokens, len(backbone.stages) - 1))


def _tokens(model: Model, pixels: Tensor) -> Tensor | None:
    """``(1, L, C)``, what enters the last stage of a network of patches; None of another, or one that cannot be cut."""
    backbone = model.network.backbone
    if not isinstance(backbone, Backbone) or backbone.features.layout != "NLC":
        return None
    stages = len(backbone.stages) - 1
    if stages < 1 or not _rows(backbone, model.transform.spec) or not is_cuttable(backbone, stages):
        return None
    with torch.no_grad():
        tokens = model.network.to(pixels.device).eval().prefix(pixels, stages)
    return tokens.requires_grad_() if tokens.shape[1:] == backbone.features.shape else None


def _rows(backbone: Backbone, spec: InputSpec) -> int:
    """Of patches, where they cover the image in rows and columns as it is shaped; else 0."""
    count = backbone.features.shape[0] - backbone.features.prefix_tokens
    rows = round((count * spec.height / spec.width) ** 0.5)
    return rows if rows and count % rows == 0 and rows * spec.width == count // rows * spec.height else 0
