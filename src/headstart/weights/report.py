"""What came with a weights file: a report of what was loaded, and the source task's classifier."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class WeightsReport:
    """Where a backbone's parameters came from; printed, logged and written to ``result.json``.

    Attributes:
        source: ``hub:<name>``, ``bundled:<file>``, ``none`` or the path as given.
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
