"""What came with a weights file: a report of what was loaded, and the source task's classifier. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WeightsReport:
    """Where a backbone's parameters came from; printed, logged and written to ``result.json``.

    Attributes:
        source: ``package:<distribution>``, ``hub:<name>``, ``bundled:<file>``, ``none`` or the path as given.
        sha256: digest of the weights file; for ``none`` the empty string.
        matched: number of backbone tensors that were loaded.
        missing: backbone tensors that the file did not have.
        unexpected: tensors of the file that the backbone does not have (a dropped classifier is not listed).
        classes: class names of the source task, in the order of the source classifier's rows, if known.
        licence: of the weights, if known.
        notes: what else a reader must know (a prefix that was stripped, channels that were adapted).
    """

    source: str
    sha256: str = ""
    matched: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    licence: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceClassifier:
    """The classifier of the source task, for methods that need it (LEEP, Co-Tuning).

    Attributes:
        weight: ``(source classes, C)`` with C = the pooled feature dimension.
        bias: ``(source classes,)``.
    """

    weight: Tensor
    bias: Tensor


def weights_notice(weights: WeightsReport | Mapping[str, Any]) -> Text:
    """One line saying which weights the backbone starts from; random ones are said loudly."""
    report = weights if isinstance(weights, Mapping) else asdict(weights)
    if report["source"] in ("none", ""):
        return Text("RANDOM WEIGHTS: the backbone starts untrained (backbone.weights=none).", style="bold red")
    text = Text("Weights: ").append(str(report["source"]), style="bold")
    details = [f"sha256 {report['sha256'][:12]}"] if report.get("sha256") else []
    details.append(f"{_count(report['matched'])} tensors matched")
    details += [f"{_count(report[key])} {key}" for key in ("missing", "unexpected") if report.get(key)]
    if report.get("licence"):
        details.append(f"licence {report['licence']}")
    return text.append(f" ({', '.join(details)})")


def _count(value: int | Sized) -> str:
    return f"{value if isinstance(value, int) else len(value):,}"
