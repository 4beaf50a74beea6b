"""Logistic regression."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from headstart.backbones.contract import FeatureSpec
from headstart.heads.closed_form import Examples, Penalised, Spectrum, threads_for
from headstart.system.options import Above, AtLeast, checked
from headstart.tasks.contract import Task

# Of the largest gradient in variables in which the curvature is about 1, so that the loss is right to its square.
_TOLERANCE = 1e-4
_STRETCH = 50


class LogisticRegression(Penalised):
    """Multinomial logistic regression by L-BFGS, its L2 penalty chosen on validation from a warm-started path.

    Minimises the *sum* of the images' cross-entropies plus ``l2 / 2`` times the squared norm of the weights, biases
    left out (scikit-learn's ``C`` is ``1 / l2``), in float64, on the features as they are: the source neither
    standardises nor augments. With one output (``task=binary``) the softmax over two classes is stored as their
    difference.

    Reference: Kornblith et al., "Do Better ImageNet Models Transfer Better?", CVPR 2019, appendix; L-BFGS: Liu and
    Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.

    Args:
        l2: see :class:`~headstart.heads.closed_form.Penalised`.
        max_iterations: of L-BFGS, for each value.
    """

    @checked("head")
    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        *,
        l2: Annotated[float | Sequence[float] | None, Above(0)] = None,
        max_iterations: Annotated[int, AtLeast(1)] = 1000,
        refit: bool | None = None,
    ) -> None:
        super().__init__(features, outputs, l2=l2, refit=refit)
        self.max_iterations = max_iterations

    def solutions(self, examples: Examples, task: Task, values: Sequence[float | None]) -> Iterator[dict[str, Any]]:
        """Each starts from the one before; notes are ``iterations`` and ``converged``."""
        problem = LogisticProblem(Spectrum.of(examples.features), examples.targets, max(self.outputs, 2))
        weight, bias = problem.start()
        for l2 in values:
            assert l2 is not None
            weight, bias, notes = problem.minimise(weight, bias, l2, max_iterations=self.max_iterations)
            self.put(*problem.spectrum.layer(weight, bias))
            yield notes


class LogisticProblem:
    """The loss over the spectrum's scores: same penalty, since the basis is orthonormal, and fewer variables."""

    def __init__(self, spectrum: Spectrum, targets: Tensor, classes: int) -> None:
        self.spectrum, self.classes = spectrum, classes
        self._shares = F.one_hot(targets.long(), classes).to(spectrum.scores)

    def start(self) -> tuple[Tensor, Tensor]:
        """All classes alike."""
        zeros = self.spectrum.scores.new_zeros
        return zeros(self.classes, len(self.spectrum.power)), zeros(self.classes)

    def minimise(
        self, weight: Tensor, bias: Tensor, l2: float, *, max_iterations: int
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """From a start to the minimum; the variables are scaled anew after every stretch of iterations."""
        done, converged = 0, False
        with threads_for(self.spectrum.scores.numel() * self.classes):
            while done < max_iterations and not converged:
                weight, bias, taken, converged = self._descend(weight, bias, l2, min(_STRETCH, max_iterations - done))
                done += max(taken, 1)
        return weight, bias, {"iterations": done, "converged": converged}

    def _descend(self, weight: Tensor, bias: Tensor, l2: float, iterations: int) -> tuple[Tensor, Tensor, int, bool]:
        """Some iterations in variables scaled by the curvature at their start."""
        steep = self._curvature(weight, bias)
        of_weight = (steep * self.spectrum.power + l2).sqrt()
        of_bias = (steep * len(self._shares)) ** 0.5
        rank = len(self.spectrum.power)

        def unpack(variables: np.ndarray) -> tuple[Tensor, Tensor]:
            both = torch.from_numpy(variables).to(weight).reshape(self.classes, rank + 1)
            return both[:, :rank] / of_weight, both[:, rank] / of_bias

        def loss(variables: np.ndarray) -> tuple[float, np.ndarray]:
            w, b = unpack(variables)
            logs = (self.spectrum.scores @ w.T + b).log_softmax(dim=1)
            total = -(logs * self._shares).sum() + l2 / 2 * w.square().sum()
            errors = logs.exp() - self._shares
            slopes = (errors.T @ self.spectrum.scores + l2 * w) / of_weight
            gradient = torch.cat((slopes, errors.sum(dim=0)[:, None] / of_bias), dim=1)
            return float(total), gradient.cpu().numpy().ravel()

        begin = torch.cat((weight * of_weight, bias[:, None] * of_bias), dim=1).cpu().numpy().ravel()
        limits = {"maxiter": iterations, "maxfun": 4 * iterations, "gtol": _TOLERANCE, "ftol": 1e-12, "maxcor": 20}
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=limits)
        return *unpack(found.x), int(found.nit), bool(found.success)

    def _curvature(self, weight: Tensor, bias: Tensor) -> float:
        """Mean over images and classes of ``p (1 - p)``, the loss's second derivative by a logit; never quite 0."""
        shares = (self.spectrum.scores @ weight.T + bias).softmax(dim=1)
        return max(float((shares * (1 - shares)).mean()), 1e-6)
