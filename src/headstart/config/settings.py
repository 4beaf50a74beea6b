"""The choices of a run as types: what everything outside the configuration reads. No torch, and no Hydra until built.

What a component (backbone, head, strategy, datamodule, optimizer) takes is its own affair: a :class:`Component` carries
the arguments to it unread. Only what orchestration decides by has a name here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Rerun = Literal["failed", "all", "none"]

# Keys of conf/trainer that are this package's own.
_OWN_SWITCHES = ("channels_last", "compile")


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
class TrainerSettings:
    """The ``trainer`` group, decided.

    Attributes:
        max_epochs: of the training.
        accelerator: ``cpu``, ``gpu`` or ``mps``.
        devices: how many of this machine, or which.
        num_nodes: machines.
        strategy: of Lightning: ``auto``, ``ddp``, ...
        precision: ``32-true``, ``bf16-mixed``, ...
        channels_last: whether images and convolutions have their channels last; ``auto``: where that is faster.
        compile: whether the model is compiled.
        gradient_clip_val: None: gradients stay as they are.
        gradient_clip_algorithm: ``norm`` or ``value``.
        switches: everything that goes to Lightning's trainer, the above included.
    """

    max_epochs: int
    accelerator: str
    devices: int | list[int]
    num_nodes: int
    strategy: str
    precision: str
    channels_last: bool | Literal["auto"]
    compile: bool
    gradient_clip_val: float | None
    gradient_clip_algorithm: str | None
    switches: Mapping[str, Any]

    @classmethod
    def of(cls, choice: Mapping[str, Any]) -> "TrainerSettings":
        """From the section of the configuration."""
        named = {name: choice[name] for name in cls.__dataclass_fields__ if name != "switches"}
        return cls(**named, switches={key: value for key, value in choice.items() if key not in _OWN_SWITCHES})

    @property
    def processes(self) -> int:
        """Processes on each machine, one a device."""
        return len(self.devices) if isinstance(self.devices, list) else int(self.devices)

    @property
    def distributed(self) -> bool:
        """Whether several processes train the run."""
        return self.processes != 1 or self.num_nodes > 1


@dataclass(frozen=True)
class LossSettings:
    """The ``loss`` section.

    Attributes:
        label_smoothing: share of the target that is spread over all classes.
        class_weights: ``none``, ``balanced`` or a number a class.
    """

    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] | list[float] = "none"


@dataclass(frozen=True)
class BatchTransformSettings:
    """The ``batch_transform`` group.

    Attributes:
        name: what mixes the images of a batch.
        alpha: of the Beta distribution of the shares.
    """

    name: Literal["none", "mixup", "cutmix"] = "none"
    alpha: float = 1.0


@dataclass(frozen=True)
class CacheSettings:
    """The ``cache`` group.

    Attributes:
        mode: ``auto`` where it is exact, ``off``, ``require``, which makes "cannot" an error, or ``images``: decoded
            images only.
        dtype: ``run`` stores what is computed, ``half`` stores 32-bit activations in 16.
        views: number of augmented views of each training image; 0: deterministic preprocessing only.
        images: ``auto`` keeps decoded images where that changes nothing and they fit into memory, or ``off``.
        max_gb: of all entries together; decoded images have as much again.
    """

    mode: Literal["auto", "off", "require", "images"] = "auto"
    dtype: Literal["run", "half"] = "run"
    views: int = 0
    images: Literal["auto", "off"] = "auto"
    max_gb: float | None = None

    @property
    def max_bytes(self) -> int | None:
        """The limit in bytes."""
        return None if self.max_gb is None else int(self.max_gb * 1e9)


@dataclass(frozen=True)
class EarlyStoppingSettings:
    """``callbacks.early_stopping``.

    Attributes:
        enabled: whether training may end before ``trainer.max_epochs``.
        patience: epochs without a better validation metric.
        min_delta: what counts as better.
    """

    enabled: bool = False
    patience: int = 10
    min_delta: float = 0.0


@dataclass(frozen=True)
class CallbackSettings:
    """The ``callbacks`` group.

    Attributes:
        early_stopping: when training ends early.
        checkpoint_every_n_epochs: how often the last epoch is kept.
        progress: ``auto``, ``rich``, ``plain`` or ``none``.
        plots: whether pictures are drawn.
    """

    early_stopping: EarlyStoppingSettings
    checkpoint_every_n_epochs: int
    progress: str
    plots: bool


@dataclass(frozen=True)
class PathSettings:
    """The ``paths`` group; absolute.

    Attributes:
        output_dir: holds all studies.
        cache_dir: of stored activations and images.
        data_dir: of downloaded data sets.
    """

    output_dir: str
    cache_dir: str
    data_dir: str


@dataclass(frozen=True)
class SourceSettings:
    """A further task (``sources.NAME``).

    Attributes:
        datamodule: its data.
        task: its kind.
        head: its own; None: as the run's.
    """

    datamodule: Component
    task: str = "auto"
    head: Component | None = None


@dataclass(frozen=True)
class RunSettings:
    """Everything that was chosen for one run.

    Attributes:
        name: of the study.
        seed: of the head, the order of images and augmentation.
        task: ``auto`` or its name.
        backbone, head, strategy, datamodule, optimizer: what is built.
        scheduler: arguments of :class:`headstart.training.rates.Schedule`.
        trainer: how long, where and in which precision.
        loss: smoothing and weights.
        batchnorm: ``train``, ``eval`` or ``affine``.
        batch_transform: what mixes the images of a batch.
        ema_decay: of the moving average of the weights; None: there is none.
        head_init: how the head starts.
        head_epochs: at the start, in which only the head learns.
        cache: of activations and images.
        callbacks: checkpoints, progress, pictures.
        paths: folders.
        sources: further tasks by name.
        logger: options by the logger's name.
        rerun: which earlier outcomes are trained again.
        extend: go on from a shorter run.
        export: write the trained backbone in the end.
        plan: only say what would run.
    """

    name: str
    seed: int
    task: str
    backbone: Component
    head: Component
    strategy: Component
    datamodule: Component
    optimizer: Component
    scheduler: Mapping[str, Any]
    trainer: TrainerSettings
    loss: LossSettings
    batchnorm: Any
    batch_transform: BatchTransformSettings
    ema_decay: float | None
    head_init: Any
    head_epochs: int
    cache: CacheSettings
    callbacks: CallbackSettings
    paths: PathSettings
    sources: Mapping[str, SourceSettings]
    logger: Mapping[str, Mapping[str, Any] | None]
    rerun: Rerun
    extend: bool
    export: bool
    plan: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "RunSettings":
        """From a whole configuration that was checked and decided."""
        names = ("backbone", "head", "strategy", "datamodule", "optimizer")
        components: dict[str, Any] = {name: Component.of(config[name]) for name in names}
        given = ("name", "seed", "task", "batchnorm", "head_init", "head_epochs", "rerun", "extend", "export", "plan")
        return cls(
            **components,
            **{name: config[name] for name in given},
            scheduler={key: value for key, value in config["scheduler"].items() if key != "_target_"},
            trainer=TrainerSettings.of(config["trainer"]),
            loss=LossSettings(**config["loss"]),
            batch_transform=BatchTransformSettings(**config["batch_transform"]),
            ema_decay=config["ema"]["decay"],
            cache=CacheSettings(**config["cache"]),
            callbacks=_callbacks(config["callbacks"]),
            paths=PathSettings(**config["paths"]),
            sources={name: _source(choice) for name, choice in config["sources"].items()},
            logger=config["logger"] or {},
        )

    @property
    def lr(self) -> float:
        """The base learning rate."""
        return float(self.optimizer.arguments["lr"])

    @property
    def weight_decay(self) -> float:
        """Of the optimizer; 0 where it has none."""
        return float(self.optimizer.arguments.get("weight_decay", 0.0))


def _callbacks(choice: Mapping[str, Any]) -> CallbackSettings:
    return CallbackSettings(
        EarlyStoppingSettings(**choice["early_stopping"]),
        choice["checkpoint"]["every_n_epochs"],
        choice["progress"],
        choice["plots"],
    )


def _source(choice: Mapping[str, Any]) -> SourceSettings:
    head = choice.get("head")
    return SourceSettings(
        Component.of(choice["datamodule"]), choice.get("task", "auto"), None if head is None else Component.of(head)
    )
