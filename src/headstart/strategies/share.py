"""Parameter sharing: one backbone and a head for each of several tasks, trained together."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headstart.errors import ConfigError
from headstart.strategies.contract import Extras, OtherTask, Step, Surroundings
from headstart.strategies.full import Full

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.data.datamodule import ImageDataModule
    from headstart.model.transfer_model import TransferModel

# The orders of an epoch's second, third, ... pass over a task's images must not be those of other epochs.
_PASSES = 4096


@dataclass(frozen=True)
class Share(Full):
    """Train the target task and others on one backbone, each with its own head (hard parameter sharing).

    Each step takes a batch of the target and one of every task in ``sources``; the loss is the target's plus
    ``loss_weights[name]`` times each other one's. The target's epoch is the epoch. Other tasks see their own
    augmentation and have running statistics of the backbone's BatchNorm layers of their own
    (:class:`~headstart.heads.task_head.TaskHead`). Their heads are no part of the finished model; their metrics
    are ``<name>/val/acc`` and the like.

    Reference: Caruana, "Multitask Learning", Machine Learning 28, 1997, section 2.

    Attributes:
        loss_weights: of the other tasks' losses by name; 1 where nothing is given.
        sampling: ``balanced``: as many images of every task in a step; ``proportional``: batches sized so that every
            task's images are seen about once an epoch.
    """

    trains_other_tasks = True
    needs_images = "strategy=share trains on other images too"
    loss_weights: dict[str, float] | None = None
    sampling: Literal["balanced", "proportional"] = "balanced"

    def prepare(self, model: "TransferModel", run: Surroundings) -> None:
        """Add a head for each other task.

        Raises:
            ConfigError: there are no other tasks, or a weight is given for one that is not there.
        """
        tasks = run.tasks
        if not tasks:
            raise ConfigError("strategy=share needs another task: +datamodule@sources.NAME.datamodule=digits")
        if unknown := sorted(set(self.loss_weights or {}) - set(tasks)):
            known = ", ".join(tasks)
            raise ConfigError(f"strategy.loss_weights.{unknown[0]}: there is no such task in sources, only {known}")
        from headstart.heads.task_head import TaskHead

        for name, other in tasks.items():
            model.auxiliary[name] = TaskHead(other.head, model.backbone)

    def start(self, model: "TransferModel", run: Surroundings) -> Extras:
        """The loss and the metrics of each other task, by its name."""
        return Extras(
            {name: self._loss(name, other, model, run.data) for name, other in run.tasks.items()},
            {name: _score(name, other, model) for name, other in run.tasks.items()},
        )

    def _loss(
        self, name: str, other: OtherTask, model: "TransferModel", target: "ImageDataModule"
    ) -> "Callable[[Step], Tensor]":
        weight, size = (self.loss_weights or {}).get(name, 1.0), target.batch_size
        if self.sampling == "proportional":
            size = max(1, round(size * other.data.sizes["train"] / target.sizes["train"]))
        stream = BatchStream(other.data, size)

        def loss(step: Step) -> "Tensor":
            device = step.outputs.device
            batch = stream.batch(step.epoch)
            outputs = _outputs(model, name, batch["images"].to(device, non_blocking=True))
            return weight * other.task.objective(outputs, batch["targets"].to(device, non_blocking=True))

        return loss


class BatchStream:
    """Training batches of a task for as long as they are asked for; their order is a function of seed and epoch."""

    def __init__(self, data: "ImageDataModule", batch_size: int) -> None:
        images = data.sizes["train"]
        self.data, self.batch_size = data, min(batch_size, images)
        # A small data set needs its last batch, but not of one image, which BatchNorm cannot normalise.
        self.drop_last = images >= 8 * batch_size or (images > batch_size and images % batch_size == 1)
        self._epoch: int | None = None
        self._batches: Iterator[dict[str, Tensor]] = iter(())
        self._loader: Any = None

    def batch(self, epoch: int) -> "dict[str, Tensor]":
        """The next batch of an epoch; a new epoch starts with its first."""
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._forever(epoch)
        return next(self._batches)

    def _forever(self, epoch: int) -> "Iterator[dict[str, Tensor]]":
        if self._loader is None:  # not before the processes of a distributed training know each other
            self._loader = self.data.train_dataloader(batch_size=self.batch_size, drop_last=self.drop_last)
        for number in range(_PASSES):
            self._loader.batch_sampler.sampler.set_epoch(epoch * _PASSES + number)
            yield from self._loader


def _outputs(model: "TransferModel", name: str, images: "Tensor") -> "Tensor":
    head: Any = model.auxiliary[name]
    with head.statistics_in(model.backbone):
        features = model.features(images)
    outputs: Tensor = head(features).float()
    return outputs


def _score(name: str, other: OtherTask, model: "TransferModel") -> Callable[[str], Mapping[str, float]]:
    def score(split: str) -> Mapping[str, float]:
        import torch

        from headstart.tasks.predictions import EpochOutputs

        if split not in other.data.sizes:
            return {}
        device = next(model.parameters()).device
        collected = EpochOutputs()
        loader = other.data.val_dataloader() if split == "val" else other.data.test_dataloader()
        with torch.no_grad():
            for batch in loader:
                outputs = _outputs(model, name, batch["images"].to(device))
                collected.add(outputs, batch["targets"], batch["index"])
        return collected.gather(other.task).metrics

    return score
