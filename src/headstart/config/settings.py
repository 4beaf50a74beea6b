"""The choices of a run as types: what everything outside the configuration reads. No torch, and no Hydra until built.

A field's name is the key, its annotation what the key may be and whether it changes the result
(:mod:`headstart.config.schema` reads both from here), its comment what it is for. What a component (backbone, head,
strategy, datamodule, optimizer) takes is its own affair: a :class:`Component` carries the arguments to it unread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from headstart.runs.directory import STUDY_NAME, Rerun
from headstart.system.options import Above, AtLeast, Below, Count, Later, NotInResult, Pattern, Positive, StepsOnly

Share = Annotated[float, AtLeast(0), Below(1)]
Flag = Annotated[bool, NotInResult]

# Keys of conf/trainer that are this package's own.
_OWN_SWITCHES = ("channels_last", "compile")


class Part:
    """A part of the configuration whose keys are the fields of a dataclass."""

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> Self:
        """From the plain values, checked and decided; further keys are left out."""
        kinds = get_type_hints(cls)
        return cls(**{name: _typed(kinds[name], choice[name]) for name in kinds if name in choice})


def _typed(kind: Any, value: Any) -> Any:
    """A plain value as an annotation has it: sections and components are made, alone or by name."""
    made = next((part for part in (kind, *get_args(kind)) if hasattr(part, "of")), None)
    if made is None or value is None:
        return value
    if get_origin(kind) is Mapping:
        return {name: made.of(inner) for name, inner in value.items()}
    return made.of(value)


@dataclass(frozen=True)
class Component:
    """Something that the configuration names, with its arguments.

    Attributes:
        target: importable name of a class or function; empty where nothing is to be built (the optimizer of a head in
            closed form).
        arguments: by keyword.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> "Component":
        """From a section of the configuration, whose key ``_target_`` names it."""
        return cls(str(choice.get("_target_", "")), {key: value for key, value in choice.items() if key != "_target_"})

    def build(self, **more: Any) -> Any:
        """What it names, with its own arguments and ``more``.

        Raises:
            hydra.errors.InstantiationException: it does not exist, or does not take these arguments.
        """
        from hydra.utils import instantiate

        return instantiate({"_target_": self.target, **self.arguments}, **more, _convert_="all")

    def partial(self, **more: Any) -> Any:
        """A callable that builds it from what is still to be given; objects are to be passed to that, not here."""
        return self.build(**more, _partial_=True)

    @property
    def factory(self) -> Any:
        """The class or function itself."""
        from hydra.utils import get_object

        return get_object(self.target)

    def without(self, *names: str) -> "Component":
        """The same without some arguments."""
        return Component(self.target, {key: value for key, value in self.arguments.items() if key not in names})


@dataclass(frozen=True)
class TrainerSettings(Part):
    """The ``trainer`` group, with its devices and its precision decided."""

    max_epochs: Annotated[Positive, StepsOnly(1, harmless=True)]
    accelerator: str  # cpu, gpu or mps
    devices: int | list[int]  # how many of each machine, or which
    num_nodes: Positive  # machines
    strategy: Annotated[
        str,
        Pattern(
            r"auto|(ddp(_spawn|_fork|_notebook)?(_find_unused_parameters_(true|false))?|deepspeed(_stage_[123])?"
            r"(_offload(_nvme)?)?|fsdp(_cpu_offload)?|single_device)",
            "names a strategy of Lightning: auto, ddp, ddp_spawn, fsdp, deepspeed, single_device and their variants",
        ),
    ]
    precision: str  # 32-true, bf16-mixed, ...
    channels_last: Literal["auto"] | bool  # of images and convolutions; auto: where that is faster
    compile: Annotated[bool, StepsOnly(False)]
    gradient_clip_val: Annotated[float | None, Above(0), StepsOnly(None)]  # None: gradients stay as they are
    gradient_clip_algorithm: Literal["norm", "value"] | None
    switches: Mapping[str, Any]  # everything that goes to Lightning's trainer, the above included

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> Self:
        """From the section of the configuration."""
        switches = {key: value for key, value in choice.items() if key not in _OWN_SWITCHES}
        return super().of({**choice, "switches": switches})

    @property
    def processes(self) -> int:
        """Processes on each machine, one a device."""
        return len(self.devices) if isinstance(self.devices, list) else int(self.devices)

    @property
    def distributed(self) -> bool:
        """Whether several processes train the run."""
        return self.processes != 1 or self.num_nodes > 1


@dataclass(frozen=True)
class LossSettings(Part):
    """The ``loss`` section."""

    label_smoothing: Share  # of the target, spread over all classes
    class_weights: Literal["none", "balanced"] | Annotated[list[float], AtLeast(0)]


@dataclass(frozen=True)
class BatchTransformSettings(Part):
    """The ``batch_transform`` group: what mixes the images of a batch."""

    name: Literal["none", "mixup", "cutmix"]
    alpha: Annotated[float, Above(0)] = 1.0  # of the Beta distribution of the shares


@dataclass(frozen=True)
class EmaSettings(Part):
    """The ``ema`` section: a moving average of the weights."""

    decay: Annotated[float, Above(0), Below(1)] | None  # None: there is none


@dataclass(frozen=True)
class CacheSettings(Part):
    """The ``cache`` group: stored activations give the same results within a tolerance that a test holds."""

    # auto where it is exact, off, require, which makes "cannot" an error, or images: decoded images only
    mode: Annotated[Literal["auto", "off", "require", "images"], NotInResult] = "auto"
    dtype: Literal["run", "half"] = "run"  # half stores 32-bit activations in 16
    views: int = 0  # augmented, of each training image; 0: deterministic preprocessing only
    images: Annotated[Literal["auto", "off"], NotInResult] = "auto"  # decoded ones, where they fit into memory
    max_gb: Annotated[float | None, Above(0), NotInResult] = None  # of all entries; decoded images have as much again

    @property
    def max_bytes(self) -> int | None:
        """The limit in bytes."""
        return None if self.max_gb is None else int(self.max_gb * 1e9)


@dataclass(frozen=True)
class EarlyStoppingSettings(Part):
    """``callbacks.early_stopping``: whether training may end before ``trainer.max_epochs``."""

    enabled: bool
    patience: Positive  # epochs without a better validation metric
    min_delta: Annotated[float, AtLeast(0)]  # what counts as better


@dataclass(frozen=True)
class CheckpointSettings(Part):
    """``callbacks.checkpoint``: which epoch is the best, and how often the last one is kept."""

    every_n_epochs: Annotated[Positive, NotInResult]
    monitor: Annotated[  # chooses the best epoch, stops early, lowers the rate; None: as the task has it
        Annotated[str, Pattern(r"val/\S.*", "names a metric of validation, such as val/f1")] | None, Later
    ] = None


@dataclass(frozen=True)
class CallbackSettings(Part):
    """The ``callbacks`` group."""

    early_stopping: EarlyStoppingSettings
    checkpoint: CheckpointSettings
    progress: Annotated[Literal["auto", "rich", "plain", "none"], NotInResult]
    plots: Flag


@dataclass(frozen=True)
class PathSettings(Part):
    """The ``paths`` group; absolute once decided."""

    output_dir: str  # holds all studies
    cache_dir: str  # of stored activations and images
    data_dir: str  # of downloaded data sets


@dataclass(frozen=True)
class SourceSettings(Part):
    """A further task (``sources.NAME``)."""

    datamodule: Component
    task: str = "auto"
    head: Component | None = None  # None: as the run's


@dataclass(frozen=True)
class TuningSettings(Part):
    """``study.tuning``: the trials that each arm of a study gets before it is compared."""

    trials: Annotated[int, AtLeast(2)]  # for each arm
    replicates: Positive  # that each of them is scored on
    space: Mapping[str, Mapping[str, Sequence[Any]]]  # by strategy, or default: values to try by dotted key


@dataclass(frozen=True)
class StudySettings(Part):
    """How the runs of a sweep are made to be compared."""

    protocol: Literal["fixed", "tuned"]  # tuned: equal trials for each arm first
    tuning: TuningSettings


@dataclass(frozen=True)
class RunSettings(Part):
    """Everything that was chosen for one run."""

    name: Annotated[  # of the study
        str,
        Pattern(STUDY_NAME, "can name a folder: up to 200 letters, digits, spaces and = + , @ _ - . (not first)"),
        NotInResult,
    ]
    seed: Count  # of the head, the order of images and augmentation
    task: Literal["auto", "binary", "multiclass", "multilabel", "regression", "segmentation"]
    backbone: Component
    head: Component
    strategy: Component
    datamodule: Component
    optimizer: Component
    scheduler: Mapping[str, Any]  # arguments of headstart.training.rates.Schedule
    trainer: TrainerSettings
    loss: LossSettings
    batchnorm: Literal["train", "eval", "affine"]
    batch_transform: BatchTransformSettings
    ema: EmaSettings
    calibrate: Annotated[Literal["none", "temperature"], Later("none")]  # on validation, once the model is chosen
    # From which probability on a label is given: chosen on validation for each, or one for all.
    thresholds: Annotated[Literal["validation"] | Annotated[float, Above(0), Below(1)], Later("validation")]
    head_init: Literal["default", "class_means", "probe", "source"]
    head_epochs: Count  # at the start, in which only the head learns
    cache: CacheSettings
    callbacks: CallbackSettings
    paths: PathSettings
    sources: Mapping[str, SourceSettings]
    study: StudySettings
    logger: Mapping[str, Mapping[str, Any] | None]  # options by the logger's name
    rerun: Annotated[Rerun, NotInResult]  # which earlier outcomes are trained again
    extend: Flag  # go on from a shorter run
    export: Flag  # write the trained backbone in the end
    plan: Flag  # only say what would run

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> Self:
        """From a whole configuration that was checked and decided."""
        return super().of({**choice, "logger": choice["logger"] or {}})

    @property
    def lr(self) -> float:
        """The base learning rate."""
        return float(self.optimizer.arguments["lr"])

    @property
    def weight_decay(self) -> float:
        """Of the optimizer; 0 where it has none."""
        return float(self.optimizer.arguments.get("weight_decay", 0.0))
