"""Which GPUs a job gets. On a machine without GPUs there is nothing to give out."""

import os
from collections import Counter

from headstart.errors import ConfigError


def visible_gpus(count: int) -> tuple[str, ...]:
    """Names of the GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` takes them.

    Args:
        count: how many there are.
    """
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(given[:count]) if given else tuple(str(number) for number in range(count))


class Gpus:
    """Gives GPUs to jobs and takes them back.

    Args:
        names: of all of them.
        jobs_per_gpu: how many jobs may share one.
    """

    def __init__(self, names: tuple[str, ...], jobs_per_gpu: int = 1) -> None:
        self.names = names
        self._jobs_per_gpu = jobs_per_gpu
        self._used: Counter[str] = Counter()

    def take(self, wanted: int | list[int]) -> tuple[str, ...] | None:
        """GPUs for a job, the least used first; None while there are not enough.

        Args:
            wanted: how many, or which ones by place.

        Raises:
            ConfigError: there will never be enough.
        """
        if not self.names:
            return ()
        if isinstance(wanted, list):
            if any(not 0 <= place < len(self.names) for place in wanted):
                raise ConfigError(f"trainer.devices={wanted}, but there are {len(self.names)} GPUs, counted from 0")
            chosen = [self.names[place] for place in wanted]
        elif wanted > len(self.names):
            raise ConfigError(f"trainer.devices={wanted}, but {len(self.names)} GPUs are visible")
        else:
            chosen = sorted(self.names, key=lambda name: self._used[name])[:wanted]
        if any(self._used[name] >= self._jobs_per_gpu for name in chosen):
            return None
        self._used.update(chosen)
        return tuple(chosen)

    def give_back(self, names: tuple[str, ...]) -> None:
        """The job has ended."""
        self._used.subtract(names)
