"""What one network makes of the training images, from one stored pass, and what using it costs."""

import logging
import time
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from headstart.backbones.contract import Backbone
from headstart.backbones.trace import evaluation_mode
from headstart.config import ResolvedRun
from headstart.data.datamodule import ImageDataModule
from headstart.errors import DataError
from headstart.execution.assemble import Prepared, build_bare_trainer
from headstart.execution.plan import estimate_step, optimizer_state
from headstart.model.features import pooled_features
from headstart.model.transfer_model import TransferModel
from headstart.store.activations import CachedData
from headstart.store.loader import StoredBatches
from headstart.strategies.full import Full
from headstart.training.assemble import (
    build_backbone,
    build_data,
    build_data_task,
    build_head,
    build_plan,
    ever_learning,
    wants_channels_last,
)
from headstart.training.audit import Audit
from headstart.training.quiet import quiet_lightning
from headstart.training.rates import RatePlan, Schedule, optimizer_groups
from headstart.transferability.examples import Array

_log = logging.getLogger(__name__)

# Timed to find out how long others will take.
_IMAGES = 8


@dataclass(frozen=True)
class Demand:
    """What a network takes, on this machine where that matters.

    Attributes:
        parameters: of the backbone.
        multiply_adds: of one image.
        image_size: height and width of what the network is shown.
        images_per_second: in the pass over the training images, decoding included.
        training_bytes: estimated, of a step that trains everything.
        batch_size: of that step.
        licence: of the weights; empty where it is not known.
    """

    parameters: int
    multiply_adds: int
    image_size: tuple[int, int]
    images_per_second: float
    training_bytes: int | None
    batch_size: int
    licence: str


@dataclass(frozen=True)
class Looked:
    """The training images as one network sees them.

    Attributes:
        features: ``(N, C)`` float32, pooled.
        targets: ``(N,)`` class numbers.
        digests: of the images' contents.
        probabilities: of the source's classes ``(N, Z)``, where the weights bring their classifier.
        source: of the weights.
        cost: of using the network.
        pass_seconds: what the pass took when it was made.
        stored: the pass was there already.
    """

    features: Array
    targets: np.ndarray
    digests: list[str]
    probabilities: Array | None
    source: str
    cost: Demand
    pass_seconds: float
    stored: bool


def prepared_data(resolved: ResolvedRun) -> ImageDataModule:
    """The images with their splits, once for all networks.

    Raises:
        DataError: they cannot be used, or have no classes that exclude each other.
    """
    settings = resolved.settings
    data = build_data(settings.datamodule, seed=settings.seed, task=settings.task)
    if data.targets("train").ndim != 1 or settings.task in ("regression", "multilabel"):
        raise DataError(
            f"{data.source_name} has no classes that exclude each other, and networks are compared by how well they "
            "separate classes; for labels and numbers compare finished runs with `headstart report`"
        )
    return data


def look(resolved: ResolvedRun, data: ImageDataModule) -> Looked:
    """One pass of the training images through the frozen network, or the stored outcome of an earlier one.

    Args:
        resolved: a run with ``strategy=freeze``, ``datamodule.augment=none`` and the network.
        data: of :func:`prepared_data`; no labels but those of the training images are read.

    Raises:
        HeadstartError: the weights or the store cannot be used.
    """
    model, trainer, channels_last = frozen_model(resolved, data)
    settings, info, backbone = resolved.settings, model.describe(), model.backbone
    loaders = CachedData(
        data,
        model,
        build_plan(settings, settings.strategy.build(), info).phases,
        info,
        settings=settings.cache,
        folder=settings.paths.cache_dir,
        channels_last=channels_last,
    )
    loaders.trainer = trainer
    features, targets, seconds, stored = _pass(loaders, backbone, data, trainer.strategy.root_device)
    cost = _cost(resolved, model.to("cpu"), data, len(features) / max(seconds, 1e-9))
    return Looked(
        features.double().numpy(),
        targets,
        list(data.records("train").digests),
        _source_probabilities(backbone, features),
        backbone.weights.source,
        cost,
        seconds,
        stored,
    )


def frozen_model(resolved: ResolvedRun, data: ImageDataModule) -> tuple[TransferModel, pl.Trainer, bool]:
    """The network on its device, the trainer whose precision it computes in, and whether channels are last."""
    quiet_lightning()
    settings = resolved.settings
    size = settings.datamodule.arguments.get("image_size")
    backbone = build_backbone(settings.backbone, resolved.weights, seed=settings.seed, image_size=size)
    data.configure(backbone.input_spec)
    task = build_data_task(settings, data)
    model = TransferModel(backbone, build_head(settings.head, backbone, task, seed=settings.seed))
    trainer = build_bare_trainer(settings.trainer)
    channels_last = wants_channels_last(settings.trainer.channels_last, backbone)
    model.requires_grad_(False).eval().to(trainer.strategy.root_device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return model, trainer, channels_last


def _pass(
    loaders: CachedData, backbone: Backbone, data: ImageDataModule, device: torch.device
) -> tuple[Tensor, np.ndarray, float, bool]:
    """Pooled features on the CPU, targets, the seconds that they once took, and whether they were there."""
    whole = loaders.decisions[0].stages == len(backbone.stages)
    found = loaders.stored("train") if whole else None
    if found is None:
        _log.info("nothing is stored: %s", loaders.record()["reason"] or "the network cannot be cut at its end")
        started = time.perf_counter()
        features, targets = pooled_features(backbone, data, "train", device)
        return features, targets.numpy(), time.perf_counter() - started, False
    [rows], targets = _rows(found)
    return rows.float().cpu(), targets.cpu().numpy(), found.entries[0].meta.build_seconds, bool(loaders.record()["hit"])


def _rows(found: StoredBatches) -> tuple[list[Tensor], Tensor]:
    try:
        views, targets = found.whole()
        return [view.clone() for view in views], targets
    finally:
        found.close()


def _source_probabilities(backbone: Backbone, features: Tensor) -> Array | None:
    classifier = backbone.source_classifier
    if classifier is None or classifier.weight.shape[1] != features.shape[1]:
        return None
    logits = features.double() @ classifier.weight.double().cpu().T + classifier.bias.double().cpu()
    return logits.softmax(dim=1).numpy()


def _cost(resolved: ResolvedRun, model: TransferModel, data: ImageDataModule, images_per_second: float) -> Demand:
    assert data.spec is not None
    backbone, shape = model.backbone, data.spec.shape
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), evaluation_mode(model):
        backbone(torch.zeros(1, *shape))
    return Demand(
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        image_size=shape[1:],
        images_per_second=images_per_second,
        training_bytes=_training_bytes(resolved, model, data),
        batch_size=data.batch_size,
        licence=backbone.weights.licence,
    )


def _training_bytes(resolved: ResolvedRun, model: TransferModel, data: ImageDataModule) -> int | None:
    """Memory of a step that trains everything, or None where it cannot be estimated."""
    settings, info = resolved.settings, model.describe()
    assert data.spec is not None
    phases = Full().phases(info, max_epochs=settings.trainer.max_epochs)
    plan = RatePlan(settings.lr, phases, optimizer_groups(phases, info), Schedule(**settings.scheduler))
    try:
        parts = estimate_step(
            Prepared(plan, Audit(model, info, ever_learning(plan)), settings.batchnorm),
            0,
            batch_size=data.batch_size,
            shape=data.spec.shape,
            state_per_element=optimizer_state(settings.optimizer.partial()),
            precision=settings.trainer.precision,
        )
    except (RuntimeError, ValueError):
        return None
    return sum(parts)


@dataclass(frozen=True)
class Speed:
    """Seconds for one image.

    Attributes:
        forward: a pass without gradients.
        step: of training everything, forward and backward.
    """

    forward: float
    step: float

    @classmethod
    def of(cls, forward: float) -> "Speed":
        """A backward pass computes two products for each of the forward pass."""
        return cls(forward, 3 * forward)


def forward_seconds(frozen: ResolvedRun, data: ImageDataModule) -> float:
    """Seconds for one image, of a few images of noise: of their second pass, since the first one prepares kernels.

    Args:
        frozen: a run whose backbone stays as it is.
        data: of :func:`~headstart.ranking.features.prepared_data`.
    """
    model, trainer, channels_last = frozen_model(frozen, data)
    assert data.spec is not None
    device, taken = trainer.strategy.root_device, 0.0
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(_IMAGES, *data.spec.shape).to(device, memory_format=layout)
    for _ in range(2):
        started = time.perf_counter()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            model(images)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - started
    return taken / _IMAGES
