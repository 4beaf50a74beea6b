"""What the jobs of one process share: the backbone, the data sets and their features."""

import json
from contextlib import ExitStack

import pytorch_lightning as pl
import torch

from headstart.config import ResolvedRun, RunSettings
from headstart.data.datamodule import ImageDataModule
from headstart.errors import RunError
from headstart.execution.train import open_directory
from headstart.frozen.features import Splits, load_splits
from headstart.frozen.member import Member
from headstart.model.description import ModelInfo
from headstart.model.transfer_model import TransferModel
from headstart.store.activations import CachedData, pooling_of
from headstart.tasks import Task
from headstart.training.assemble import (
    build_backbone,
    build_data,
    build_data_task,
    build_head,
    build_plan,
    wants_channels_last,
)
from headstart.training.rates import RatePlan

_TRAINER = ("accelerator", "benchmark", "deterministic", "devices", "precision")
# Of the datamodule, what changes neither the images nor what is known of them.
_OF_THE_LOOP = ("batch_size", "drop_last", "num_workers", "pin_memory", "seed", "steps_per_epoch")


class Shared:
    """The backbone on its device, and each data set and its features once.

    Args:
        resolved: any of the jobs.
    """

    def __init__(self, resolved: ResolvedRun) -> None:
        settings = resolved.settings
        self._seed = settings.seed
        size = settings.datamodule.arguments.get("image_size")
        self.backbone = build_backbone(settings.backbone, resolved.weights, seed=settings.seed, image_size=size)
        self.trainer = pl.Trainer(
            **{key: settings.trainer.switches[key] for key in _TRAINER},
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        self.trainer.strategy.setup_environment()
        self.device: torch.device = self.trainer.strategy.root_device
        self.channels_last = wants_channels_last(settings.trainer.channels_last, self.backbone)
        self.backbone.requires_grad_(False).eval().to(self.device)
        if self.channels_last:
            self.backbone.to(memory_format=torch.channels_last)
        self._data: dict[str, ImageDataModule] = {}
        self._tasks: dict[str, Task] = {}
        self._infos: dict[str, ModelInfo] = {}
        self._splits: dict[str, Splits | str] = {}

    @property
    def cache_seconds(self) -> float:
        """Spent on opening and making stored activations."""
        return sum(splits.loaders.seconds for splits in self._splits.values() if isinstance(splits, Splits))

    def member(self, resolved: ResolvedRun, locks: ExitStack) -> Member | str:
        """A job, its directory locked and opened; or why it must train alone.

        Raises:
            HeadstartError: its data or choices cannot be used.
        """
        settings = resolved.settings
        if self.backbone.weights.missing and settings.seed != self._seed:
            return "the weights leave a part of the backbone to the seed"
        data = self._data_of(settings)
        loop = settings.datamodule.arguments
        if loop["drop_last"] and data.sizes["train"] < loop["batch_size"]:
            return "datamodule.drop_last=true leaves none of its images"
        task = self._task_of(settings, data)
        head = build_head(settings.head, self.backbone, task, seed=settings.seed)
        if any(True for _ in head.buffers()):
            return f"{type(head).__name__} has buffers, which may change in training"
        model = TransferModel(self.backbone, head)
        info = self._info_of(settings, task, model)
        plan = build_plan(settings, settings.strategy.build(), info)
        splits = self._splits_of(settings, data, model, plan, info)
        if isinstance(splits, str):
            return splits
        run = resolved.directory()
        try:
            locks.enter_context(run.lock(wait=False))
        except RunError:
            return "another process trains it now"
        if run.action != "train":
            return f"it is {run.state} by now"
        open_directory(run, resolved, resume=False)
        return Member(resolved, run, run.attempt(), head, info, plan, task, splits)

    def _data_of(self, settings: RunSettings) -> ImageDataModule:
        key = _data_key(settings)
        if key not in self._data:
            data = build_data(settings.datamodule, seed=settings.seed, task=settings.task)
            data.configure(self.backbone.input_spec)
            self._data[key] = data
        return self._data[key]

    def _task_of(self, settings: RunSettings, data: ImageDataModule) -> Task:
        key = json.dumps([_data_key(settings), settings.loss], default=vars)
        if key not in self._tasks:
            self._tasks[key] = build_data_task(settings.task, settings.loss, data)
        return self._tasks[key]

    def _info_of(self, settings: RunSettings, task: Task, model: TransferModel) -> ModelInfo:
        key = json.dumps([settings.head, task.outputs], default=vars)
        if key not in self._infos:
            self._infos[key] = model.describe()
        return self._infos[key]

    def _splits_of(
        self, settings: RunSettings, data: ImageDataModule, model: TransferModel, plan: RatePlan, info: ModelInfo
    ) -> Splits | str:
        key = json.dumps([_data_key(settings), pooling_of(model) is not None])
        if key not in self._splits:
            loaders = CachedData(
                data,
                model,
                plan.phases,
                info,
                settings=settings.cache,
                folder=settings.paths.cache_dir,
                channels_last=self.channels_last,
            )
            loaders.trainer = self.trainer
            self._splits[key] = load_splits(loaders, list(data.sizes))
        return self._splits[key]


def _data_key(settings: RunSettings) -> str:
    return json.dumps([settings.datamodule.without(*_OF_THE_LOOP), settings.task], default=vars)
