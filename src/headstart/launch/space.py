"""What a search may choose from, in the syntax of Hydra's overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from headstart.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Dimension:
    """One key that the search sets.

    Attributes:
        key: as an override has it.
        choices: the values of a choice, as an override has them; empty for a range of numbers.
        low: smallest number.
        high: largest number, included.
        step: between numbers; None for any number between.
        log: whether orders of magnitude are alike.
        whole: whole numbers only.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def override(self, value: Any) -> str:
        """The override that sets a value."""
        return f"{self.key}={value}" if self.choices else f"{self.key}={int(value) if self.whole else float(value)!r}"


@dataclass(frozen=True)
class Space:
    """The fixed overrides, and the keys that vary.

    Attributes:
        fixed: the same in every trial.
        dimensions: what a search sets.
        arms: the choices of the key that each get a budget of their own, as overrides; one empty arm without it.
    """

    fixed: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    arms: tuple[str, ...] = ("",)

    def overrides(self, arm: str, values: Mapping[str, Any]) -> list[str]:
        """Of one trial."""
        chosen = [dimension.override(values[dimension.key]) for dimension in self.dimensions]
        return [*self.fixed, *([arm] if arm else []), *chosen]


def build_space(overrides: Sequence[Override], *, per: str) -> Space:
    """Read the overrides of a command; of a key that is given twice the last counts.

    Args:
        overrides: parsed.
        per: the key whose choices are compared, each with a budget of its own.

    Raises:
        ConfigError: nothing to search, or a range that is empty.
    """
    latest = {override.get_key_element(): override for override in overrides}
    fixed: list[str] = []
    dimensions: list[Dimension] = []
    arms: tuple[str, ...] = ("",)
    for key, override in latest.items():
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}" if not override.is_delete() else key)
            continue
        dimension = _dimension(key, override)
        if key == per and dimension.choices:
            arms = tuple(dimension.override(choice) for choice in dimension.choices)
        else:
            dimensions.append(dimension)
    if not dimensions:
        raise ConfigError(
            "hydra/sweeper=optuna has nothing to search; give a range such as "
            "'optimizer.lr=tag(log,interval(1e-5,1e-1))' or choices such as optimizer.weight_decay=0,0.01"
        )
    return Space(tuple(fixed), tuple(dimensions), arms)


def _dimension(key: str, override: Override) -> Dimension:
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = float(value.start or 0.0), float(value.end or 0.0)
        whole = all(isinstance(end, int) for end in (value.start, value.end))
        _check_range(key, low, high, log="log" in value.tags)
        return Dimension(key, low=low, high=high, log="log" in value.tags, whole=whole)
    if isinstance(value, RangeSweep):
        items = [float(item) for item in value.range()]
        if not items:
            raise ConfigError(f"{key}: the range {override.input_line} is empty")
        whole = all(isinstance(part, int) for part in (value.start or 0, value.stop, value.step))
        low, high, log = min(items), max(items), "log" in value.tags
        _check_range(key, low, high, log=log)
        # Between orders of magnitude Optuna knows no steps but that of whole numbers.
        step = abs(float(value.step)) if not log else 1.0 if whole else None
        return Dimension(key, low=low, high=high, step=step, log=log, whole=whole)
    return Dimension(key, choices=tuple(str(item) for item in override.sweep_string_iterator()))


def _check_range(key: str, low: float, high: float, *, log: bool) -> None:
    if low > high:
        raise ConfigError(f"{key}: {low:g} is above {high:g}; give the smaller number first")
    if log and low <= 0:
        raise ConfigError(f"{key}: tag(log,…) needs numbers above 0, not {low:g}")
