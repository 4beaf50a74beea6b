"""Whether a phase may run on stored activations, from which stage, and if not, why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.config.settings import CacheSettings
from headstart.errors import CacheError
from headstart.model.description import ModelInfo
from headstart.model.phases import Phase

# In auto mode activations that are this many times larger than the image's pixels are not stored.
_LARGEST_RATIO = 8


@dataclass(frozen=True)
class Storing:
    """What a phase does.

    Attributes:
        stages: length of the prefix whose activations are stored; 0: none.
        train: training runs on them.
        reason: why training does not; empty where it does.
    """

    stages: int
    train: bool
    reason: str = ""

    @property
    def evaluation(self) -> bool:
        """Validation and test run on them: their images are the same in every epoch, whatever the augmentation."""
        return self.stages > 0


def decide(
    phase: Phase,
    model: ModelInfo,
    settings: CacheSettings,
    *,
    is_cuttable: Callable[[int], bool],
    augmentation: str | None,
    obstacle: str | None = None,
) -> Storing:
    """The decision for one phase.

    Args:
        phase: of the strategy.
        model: whose stages they are.
        settings: what the user asked for.
        is_cuttable: whether the backbone can go on from the activations after so many stages.
        augmentation: what changes the training images from epoch to epoch (``datamodule.augment=light``), or None.
        obstacle: any other reason why nothing of this run can be stored.
    """
    if settings.mode in ("off", "images"):
        return Storing(0, False, f"cache={settings.mode}")
    if obstacle is not None:
        return Storing(0, False, obstacle)
    if phase.needs_images is not None:
        return Storing(0, False, phase.needs_images)
    frozen = phase.frozen_stages(model)
    names = [stage.name for stage in model.backbone_stages]
    if frozen == 0:
        return Storing(0, False, f"nothing is frozen before the first stage that learns ({names[0]})")
    stages = next((count for count in range(frozen, 0, -1) if is_cuttable(count)), 0)
    if stages == 0:
        return Storing(0, False, f"the backbone cannot be cut within its frozen stages ({', '.join(names[:frozen])})")
    if augmentation is not None and settings.views == 0:
        return Storing(
            stages,
            False,
            f"{augmentation} changes the training images in every epoch; datamodule.augment=none or cache.views=4 "
            "makes them storable",
        )
    return Storing(stages, True)


def views_in_turn(settings: CacheSettings, phases: Sequence[Phase], steps_per_epoch: int | None) -> int:
    """How many views of a training image take turns: a short run has no use for all of a longer one."""
    # Views change with each pass over the images, of which an epoch of a length of its own may hold several.
    return min(settings.views, phases[-1].end_epoch) if steps_per_epoch is None else settings.views


def trainer_obstacle(switches: Mapping[str, Any]) -> str | None:
    """Why a run with these switches of Lightning looks at too few images for a pass over all of them, or None."""
    limits = ("limit_train_batches", "limit_val_batches", "limit_test_batches")
    names = [name for name in ("fast_dev_run", "overfit_batches") if switches.get(name)]
    # One batch is 1, and all of them are 1.0.
    names += [name for name in limits if type(switches.get(name)) is int or switches.get(name) not in (None, 1.0)]
    return f"trainer.{names[0]}={switches[names[0]]} uses only some of the images" if names else None


def check_required(settings: CacheSettings, decisions: Sequence[Storing]) -> None:
    """With ``cache=require``, every phase that freezes something must run on stored activations, and one must exist.

    Raises:
        CacheError: with the reason.
    """
    if settings.mode != "require":
        return
    refused = [decision for decision in decisions if decision.stages > 0 and not decision.train]
    if not refused and any(decision.train for decision in decisions):
        return
    reason = (refused or list(decisions))[0].reason
    raise CacheError(f"cache=require, but stored activations cannot be used: {reason}. Change that, or use cache=auto.")


def too_large(settings: CacheSettings, *, rows: int, row_bytes: int, image_bytes: int, free_bytes: int) -> str | None:
    """Why activations of this size are not stored, or None."""
    size = rows * row_bytes
    if settings.max_bytes is not None and size > settings.max_bytes:
        return f"{gigabytes(size)} of activations exceed cache.max_gb={settings.max_gb:g}"
    if size > 0.9 * free_bytes:
        return (
            f"{gigabytes(size)} of activations do not fit on the disk of paths.cache_dir ({gigabytes(free_bytes)} free)"
        )
    if settings.mode == "auto" and row_bytes > _LARGEST_RATIO * image_bytes:
        return (
            f"the activations are {row_bytes / image_bytes:.0f} times larger than the images, so reading them would "
            "save little; cache=require stores them all the same"
        )
    return None


def gigabytes(size: int) -> str:
    """``1.2 GB`` or ``3 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
