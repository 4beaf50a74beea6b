"""Choices that go with any strategy, as changes of its phases."""

from dataclasses import replace

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo
from headstart.model.phases import Phase, stage_group
from headstart.strategies.contract import Strategy
from headstart.strategies.freeze import Freeze

_BESIDE_PHASES = ("prepare", "start", "losses", "scores", "restore", "merge", "finish")


def own_phases(strategy: Strategy, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
    """A strategy's phases, if they are what its attributes promise.

    Raises:
        ConfigError: ``only_head_learns`` is said of a strategy that does something else.
    """
    phases = strategy.phases(model, max_epochs=max_epochs)
    if strategy.only_head_learns:
        kind, head = type(strategy), {parameter.name for parameter in model.head.parameters}
        problems = [f"its phase '{phase.name}' trains something else" for phase in phases if phase.learning != head]
        problems += [
            f"it has {hook}()" for hook in _BESIDE_PHASES if getattr(kind, hook) is not getattr(Strategy, hook)
        ]
        if problems:
            raise ConfigError(f"{kind.__name__} says only_head_learns = True, and {problems[0]}; leave that line out")
    return phases


def phases_after_head(
    strategy: Strategy, model: ModelInfo, *, max_epochs: int, head_epochs: int = 0
) -> tuple[Phase, ...]:
    """A strategy's phases, with ``head_epochs`` epochs before them in which only the head learns.

    The head's rate is that of ``strategy=freeze``. The strategy then has the remaining epochs, and its schedule starts
    with them.

    Raises:
        ConfigError: there are no epochs left for the strategy.
    """
    if head_epochs == 0:
        return own_phases(strategy, model, max_epochs=max_epochs)
    if head_epochs >= max_epochs:
        raise ConfigError(
            f"head_epochs={head_epochs} leaves nothing of trainer.max_epochs={max_epochs} for the strategy; lower it, "
            "train longer, or choose strategy=freeze"
        )
    own = strategy.phases(model, max_epochs=max_epochs - head_epochs)
    later = [replace(p, start_epoch=p.start_epoch + head_epochs, end_epoch=p.end_epoch + head_epochs) for p in own]
    later[0] = replace(later[0], restarts_schedule=True)
    name = "head first" if any(phase.name == "head" for phase in own) else "head"
    first = Phase(
        name, 0, head_epochs, (stage_group(model.head, lr_mult=Freeze().lr_mult),), needs_images=own[0].needs_images
    )
    return (first, *later)


def without(phases: tuple[Phase, ...], names: frozenset[str], *, reason: str) -> tuple[Phase, ...]:
    """The phases with some parameters frozen throughout.

    Raises:
        ConfigError: nothing of what a phase trains in the backbone is left.
    """
    changed = []
    for phase in phases:
        groups = [replace(g, parameters=tuple(p for p in g.parameters if p not in names)) for g in phase.groups]
        before = any(name.startswith("backbone.") for name in phase.learning)
        after = tuple(group for group in groups if group.parameters)
        if before and not any(name.startswith("backbone.") for group in after for name in group.parameters):
            raise ConfigError(
                f"{reason} freezes everything that phase '{phase.name}' of the strategy trains in the backbone; "
                "leave it out, or choose another strategy"
            )
        changed.append(replace(phase, groups=after))
    return tuple(changed)


def on_images(phases: tuple[Phase, ...], reason: str) -> tuple[Phase, ...]:
    """The phases, none of which may run on stored activations."""
    return tuple(replace(phase, needs_images=phase.needs_images or reason) for phase in phases)
