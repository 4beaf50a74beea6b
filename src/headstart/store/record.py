"""What a run used of the stores: the ``cache`` section of its ``result.json``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.model.phases import Phase
from headstart.store.provide import Provided


@dataclass(frozen=True)
class Use:
    """An entry that a run used: of ``activations`` or decoded ``images``."""

    kind: str
    split: str
    phase: str
    key: str
    hit: bool
    build_seconds: float
    size_bytes: int


@dataclass
class Record:
    """What happened so far.

    Attributes:
        uses: of entries, the first of each in each phase.
        reasons: why a phase trains without stored activations, by its name.
        seconds: that this process has spent on opening and building.
    """

    uses: list[Use] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, kind: str, split: str, phase: Phase, provided: Provided) -> None:
        """Note a use; of an entry that is opened again, only the first time."""
        meta = provided.entry.meta
        if (meta.key, phase.name) not in {(earlier.key, earlier.phase) for earlier in self.uses}:
            use = Use(kind, split, phase.name, meta.key, provided.hit, meta.build_seconds, meta.size_bytes)
            self.uses.append(use)

    @property
    def build_seconds(self) -> float:
        """Of all entries, as if none had been there: a hit counts its recorded build time."""
        return sum({use.key: use.build_seconds for use in self.uses}.values())

    def as_dict(self, views: int, reasons: Sequence[str] = ()) -> dict[str, Any]:
        """As ``result.json`` has it.

        Args:
            views: how many stored views of a training image take turns.
            reasons: what else is to be said.
        """
        uses = [use for use in self.uses if use.kind == "activations"]
        trained = [use for use in uses if use.split == "train"]
        first = next(iter(trained or uses), None)
        return {
            "used": bool(trained),
            "key": first.key if first else None,
            "hit": bool(uses) and all(use.hit for use in uses),
            "views": views,
            "reason": "; ".join(dict.fromkeys([*self.reasons.values(), *reasons])),
            "entries": [vars(use) for use in self.uses],
        }
