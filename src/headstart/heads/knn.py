"""Nearest neighbours."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.backbones.contract import FeatureSpec
from headstart.errors import ConfigError
from headstart.heads.closed_form import ClosedForm, Examples
from headstart.system.options import Above, AtLeast, checked
from headstart.tasks.contract import Task

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Tried by default, as far as there are so many training images."""

# Share of the votes that a class without any is given, so that its logarithm is finite.
_NO_VOTE = 1e-6


class NearestNeighbours(ClosedForm):
    """The votes of the training images with the most similar features; validation chooses how many vote.

    The module keeps the features of all of them (``bank``, N x C x 4 bytes in the checkpoint). Its outputs are the
    logarithms of the shares of votes, so that the probabilities are those shares: they are *not calibrated*.

    Reference: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    section 3.4.

    Args:
        k: how many vote; one number, or a list.
        weighting: ``similarity`` (a vote counts ``exp(cosine / temperature)``) or ``equal``.
        temperature: see there.
        refit: the bank holds training and validation images together.
    """

    choice = "k"
    bank: Tensor
    labels: Tensor
    k: Tensor

    @checked("head")
    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        *,
        k: Annotated[int | Sequence[int], AtLeast(1)] = COUNTS,
        weighting: Literal["similarity", "equal"] = "similarity",
        temperature: Annotated[float, Above(0)] = 0.07,
        refit: bool = False,
    ) -> None:
        self._counts = sorted({int(count) for count in (k if isinstance(k, Sequence) else (k,))}, reverse=True)
        if not self._counts:
            raise ConfigError(f"head.k={k} must be whole numbers of at least 1: one, or a list such as [1,5,20]")
        super().__init__(features, outputs, refit=refit)
        self.weighting, self.temperature, self.classes = weighting, temperature, max(outputs, 2)
        self.register_buffer("bank", torch.zeros(0, features.dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("k", torch.tensor(self._counts[0]))

    def values(self, images: int) -> Sequence[float | None]:
        """The counts that there are images for, largest first."""
        possible = [count for count in self._counts if count <= images]
        if not possible:
            raise ConfigError(f"head.k={self._counts[-1]} exceeds the {images} training images; lower it")
        return possible

    def solutions(self, examples: Examples, task: Task, values: Sequence[float | None]) -> Iterator[dict[str, Any]]:
        """One bank for all counts."""
        self.bank = F.normalize(examples.features.to(self.bank), dim=1)
        self.labels = examples.targets.long()
        for count in values:
            assert count is not None
            self.k = torch.full_like(self.k, int(count))
            yield {}

    def decide(self, vectors: Tensor) -> Tensor:
        """See :meth:`ClosedForm.decide`; before there is a bank, all classes are alike."""
        votes = vectors.new_zeros(len(vectors), self.classes)
        if len(self.bank):
            cosines, nearest = (F.normalize(vectors, dim=1) @ self.bank.to(vectors.dtype).T).topk(int(self.k), dim=1)
            weights = torch.ones_like(cosines)
            if self.weighting == "similarity":
                weights = ((cosines - cosines[:, :1]) / self.temperature).exp()
            votes.scatter_add_(1, self.labels[nearest], weights)
        shares = votes / votes.sum(dim=1, keepdim=True).clamp(min=_NO_VOTE)
        logs = shares.clamp(min=_NO_VOTE).log()
        return logs[:, 1:] - logs[:, :1] if self.outputs == 1 else logs

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """A stored bank has the size that it has."""
        for name in ("bank", "labels"):
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(stored, Tensor) and stored.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
