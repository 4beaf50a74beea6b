"""The order of images as a pure function of seed and epoch, also over several processes and after a resume.

Beside it, what a loader asks the machine for: how many processes fetch them, and where to.
"""

import multiprocessing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import Sampler

from headstart.system.hardware import usable_cores

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, index)`` pairs, so that the data set can derive its augmentation from them.

    In training every process gets the same number of images: the order is filled up from its start, or cut with
    ``drop_last``. In evaluation (``shuffle=False``) nothing is repeated or left out: processes may differ by one.

    With ``classes`` an epoch has as many images as without, and equally many of each class, to one: of a large class as
    many as are its share, drawn anew each epoch, of a small one all of them several times. An image's repetition ``k``
    has the index ``position + k * length``, so that it is augmented differently.

    Args:
        length: number of images in the split.
        seed: of the run.
        shuffle: a new order every epoch, or the given order always.
        rank: of this process.
        world_size: number of processes.
        drop_last: leave out what does not fill all processes evenly (with ``shuffle`` only).
        classes: ``(length,)``, that of each image, to show all equally often (with ``shuffle`` only); None: each image
            once an epoch.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        classes: np.ndarray | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} must be at least 0 and below world_size {world_size}")
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.epoch = 0
        self._members = None if classes is None else [np.flatnonzero(classes == one) for one in np.unique(classes)]

    def set_epoch(self, epoch: int) -> None:
        """The next iteration's order is that of this epoch, counted from 0."""
        self.epoch = int(epoch)

    def order(self, epoch: int) -> np.ndarray:
        """All indices in this epoch's order, before they are dealt out to the processes."""
        if not self.shuffle:
            return np.arange(self.length)
        # Raw bits of a bit generator are the same in every version of NumPy; its permutations need not be.
        generator = np.random.PCG64([self.seed, epoch])
        order = np.argsort(generator.random_raw(self.length), kind="stable")
        if self._members is None:
            return order
        return self._balanced(self._members, generator.random_raw(self.length), epoch)[order]

    def _balanced(self, members: list[np.ndarray], bits: np.ndarray, epoch: int) -> np.ndarray:
        """``(length,)`` indices, class after class; random bits decide which of a class come first."""
        least, more = divmod(self.length, len(members))
        found = []
        for number, images in enumerate(members):
            count = least + ((number - epoch * more) % len(members) < more)
            turn, place = np.divmod(np.arange(count), len(images))
            found.append(images[np.argsort(bits[images], kind="stable")][place] + turn * self.length)
        return np.concatenate(found)

    def dealt(self, epoch: int) -> list[tuple[int, int]]:
        """This process's part of an epoch."""
        order = self.order(epoch)
        if self.shuffle:
            order = np.resize(order, len(self) * self.world_size)
        return [(epoch, int(index)) for index in order[self.rank :: self.world_size]]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.dealt(self.epoch))

    def __len__(self) -> int:
        if not self.shuffle:
            return len(range(self.rank, self.length, self.world_size))
        return self.length // self.world_size if self.drop_last else -(-self.length // self.world_size)


class RepeatedBatches(Sampler[list[tuple[int, int]]]):
    """Epochs of a fixed number of batches from an endless stream of passes, as Keras's ``steps_per_epoch``.

    Each pass over the data has an order of its own and its own augmentation (the pass takes the place of the epoch),
    and ends with a smaller batch unless ``drop_last``. An epoch goes on where the one before it ended.

    Args:
        sampler: of one pass; its epoch is the training's.
        batch_size: images a batch.
        steps: batches an epoch.
        drop_last: leave out the last, smaller batch of each pass.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, *, steps: int, drop_last: bool = False) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self.steps = steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_pass = len(self.sampler) // self.batch_size if self.drop_last else -(-len(self.sampler) // self.batch_size)
        position, held, dealt = self.sampler.epoch * self.steps, -1, []
        for batch in range(position, position + self.steps):
            number, place = divmod(batch, per_pass)
            if number != held:
                held, dealt = number, self.sampler.dealt(number)
            yield dealt[place * self.batch_size : (place + 1) * self.batch_size]

    def __len__(self) -> int:
        return self.steps


class EvenBatches(Sampler[list[tuple[int, int]]]):
    """Batches of an unshuffled :class:`EpochSampler` such that every process has equally many, as far as possible.

    Processes that evaluate together must make the same number of steps, or one waits for the other for ever. Batches
    are at most ``batch_size`` long and differ by one at most. A process with fewer images than there are steps (a
    batch size of 1, or fewer images than processes) repeats one, which counts once when outputs are gathered.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, False

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        items, steps = list(self.sampler), len(self)
        repeated = items[-1:] or [(self.sampler.epoch, 0)]
        items += repeated * (steps - len(items))
        least, longer = divmod(len(items), steps)
        dealt = iter(items)
        for step in range(steps):
            yield [next(dealt) for _ in range(least + (step < longer))]

    def __len__(self) -> int:
        largest = -(-self.sampler.length // self.sampler.world_size)
        return -(-largest // self.batch_size)


def choose_workers(*, images: int, from_files: bool, on_gpu: bool, cores: int) -> int:
    """How many processes should load a split of this many images.

    Small data are loaded faster than workers start. On the CPU training itself uses the cores, so few are spared.
    """
    if images < (64 if from_files else 4096):
        return 0
    return min(cores, 8) if on_gpu else min(cores // 4, 4)


def process_of(trainer: "Trainer | None") -> tuple[int, int]:
    """``(rank, world_size)`` of this process in the training."""
    if trainer is not None:
        return trainer.global_rank, trainer.world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def fetching(
    trainer: "Trainer | None",
    split: str,
    images: int,
    *,
    from_files: bool,
    num_workers: Literal["auto"] | int,
    pin_memory: Literal["auto"] | bool,
    seed: int,
) -> dict[str, Any]:
    """How a loader fetches the images of a split, as arguments of ``DataLoader``: nothing in it changes a batch."""
    on_cuda = trainer.strategy.root_device.type == "cuda" if trainer else torch.cuda.is_available()
    if num_workers == "auto":
        cores = usable_cores() // max(1, getattr(trainer, "num_devices", 1))
        num_workers = choose_workers(images=images, from_files=from_files, on_gpu=on_cuda, cores=cores)
    if multiprocessing.current_process().daemon:  # such a process must not have children
        num_workers = 0
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0 and split != "test",
        "pin_memory": on_cuda if pin_memory == "auto" else pin_memory,
        # An own generator: making an iterator must not draw from the one that dropout uses.
        "generator": torch.Generator().manual_seed(seed),
    }
