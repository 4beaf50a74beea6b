"""Scores by simple classifiers on the features, each image judged by a classifier that has not seen it.

A score is ``(N,)`` numbers, 1 where the image's class was found and 0 elsewhere; their mean counts.
"""

from dataclasses import dataclass

import numpy as np
import torch

from headstart.heads.closed_form import Spectrum
from headstart.heads.logreg import LogisticProblem
from headstart.transferability.examples import Array, Labelled, folds_of

NEIGHBOURS = 5
FOLDS = 5
_ROWS = 1024
# Penalties in units of the features' mean squared length (logistic) or largest eigenvalue (ridge).
_LOGISTIC = tuple(float(value) for value in np.logspace(1, -4, 11))
_RIDGE = np.logspace(1, -9, 41)


def knn(data: Labelled, *, neighbours: int = NEIGHBOURS) -> Array:
    """Majority among the most similar other images by cosine; ties go to the class with the more similar ones.

    Reference: Cover and Hart 1967; as a score of features: Wu et al., "Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination", CVPR 2018.

    Args:
        data: features and classes.
        neighbours: how many vote.
    """
    lengths = np.linalg.norm(data.features, axis=1, keepdims=True)
    rows = (data.features / np.maximum(lengths, np.finfo(float).tiny)).astype(np.float32)
    neighbours = min(neighbours, len(data) - 1)
    right = np.empty(len(data))
    for start in range(0, len(data), _ROWS):
        place = np.arange(start, min(start + _ROWS, len(data)))
        similar = rows[place] @ rows.T
        similar[np.arange(len(place)), place] = -np.inf
        nearest = np.argpartition(-similar, neighbours - 1, axis=1)[:, :neighbours]
        closeness = np.take_along_axis(similar, nearest, axis=1)
        votes = np.zeros((len(place), data.classes))
        np.add.at(votes, (np.arange(len(place))[:, None], data.targets[nearest]), 1 + 1e-3 * closeness)
        right[place] = votes.argmax(axis=1) == data.targets[place]
    return right


def nearest_mean(data: Labelled) -> Array:
    """The class with the nearest mean, the image itself left out of its own class's mean.

    A class of one image has no mean without it, so that image is not found.

    Reference: Mensink et al., "Distance-Based Image Classification", PAMI 2013, equation 1.
    """
    scores, place = data.scores, np.arange(len(data))
    distance = np.square(data.means).sum(axis=1) - 2 * scores @ data.means.T + np.square(scores).sum(axis=1)[:, None]
    size = data.sizes[data.targets]
    own = distance[place, data.targets] * np.square(size / np.maximum(size - 1, 1))
    distance[place, data.targets] = np.where(size > 1, own, np.inf)
    found: Array = (distance.argmin(axis=1) == data.targets).astype(np.float64)
    return found


def ridge(data: Labelled, *, folds: int = FOLDS) -> Array:
    """Ridge regression to one-hot targets with an intercept in stratified cross-validation, in closed form.

    The errors on a fold of the solution without it are ``(I - H)^-1 e``, of the fold's block ``H`` of the hat matrix
    and its errors ``e`` in the solution from all images. The penalty is the one with the smallest squared error with
    single images left out, which one number can hardly overfit. (Left out singly, images would be called by anything
    but their own class where the features say nothing, because the others have one image less of it.)

    Reference: Hoerl and Kennard, "Ridge Regression", Technometrics 1970; left-out errors: Allen 1974 (PRESS).

    Args:
        data: features and classes.
        folds: how many.
    """
    found, scores = solve_ridge(data), data.scores
    fold_of, right = folds_of(data.targets, folds), np.empty(len(data))
    for fold in range(folds):
        out = np.flatnonzero(fold_of == fold)
        hat = (scores[out] * found.damped) @ scores[out].T + 1 / len(data)
        said = data.shares[out] - np.linalg.lstsq(np.eye(len(out)) - hat, found.errors[out], rcond=1e-9)[0]
        right[out] = said.argmax(axis=1) == data.targets[out]
    return right


@dataclass(frozen=True)
class RidgeSolution:
    """Ridge regression to one-hot targets, at the penalty of the smallest left-out error.

    Attributes:
        weight: ``(r, C)`` on the scores of the images.
        start: ``(C,)``, the intercept.
        damped: ``(r,)``, the inverse of power plus penalty.
        errors: ``(N, C)`` on the images it was solved from.
    """

    weight: Array
    start: Array
    damped: Array
    errors: Array

    def says(self, features: Array, data: Labelled) -> Array:
        """Scores ``(M, C)`` of other images' features, given the images it was solved from."""
        spectrum = data.spectrum
        said: Array = (features - spectrum.mean.numpy()) @ (spectrum.basis.numpy() @ self.weight) + self.start
        return said


def solve_ridge(data: Labelled) -> RidgeSolution:
    """The solution whose squared error with single images left out is the smallest of a path of penalties."""
    scores, start = data.scores, data.shares.mean(axis=0)
    towards = scores.T @ (data.shares - start)
    least, best = np.inf, np.zeros(len(data.power))
    for penalty in _RIDGE * (data.power[0] if len(data.power) else 1.0):
        damped = 1 / (data.power + penalty)
        residual = data.shares - start - scores @ (towards * damped[:, None])
        leverage = np.square(scores) @ damped + 1 / len(data)
        squared = float(np.square(residual / np.maximum(1 - leverage, 1e-9)[:, None]).sum())
        if squared < least:
            least, best = squared, damped
    weight = towards * best[:, None]
    return RidgeSolution(weight, start, best, data.shares - start - scores @ weight)


def logistic(data: Labelled, *, folds: int = FOLDS) -> Array:
    """Whether the most probable class of :func:`logistic_probabilities` is the image's."""
    found: Array = (logistic_probabilities(data, folds=folds).argmax(axis=1) == data.targets).astype(np.float64)
    return found


def logistic_probabilities(data: Labelled, *, folds: int = FOLDS) -> Array:
    """``(N, C)`` by multinomial logistic regression in stratified cross-validation.

    The penalty is the one with the lowest loss on the first fold, used for all: one number from a path of eleven.

    Reference: Kornblith et al., "Do Better ImageNet Models Transfer Better?", CVPR 2019, appendix.

    Args:
        data: features and classes.
        folds: how many.
    """
    found = np.empty((len(data), data.classes))
    length, fold_of = float(data.power.sum() / len(data)), folds_of(data.targets, folds)
    penalties: tuple[float, ...] = _LOGISTIC
    for fold in range(folds):
        rest, out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        problem = LogisticProblem(_part(data.spectrum, rest), torch.from_numpy(data.targets[rest]), data.classes)
        (weight, bias), least = problem.start(), np.inf
        chosen = penalties
        for penalty in penalties:
            weight, bias, _ = problem.minimise(weight, bias, penalty * length, max_iterations=100)
            logits = data.spectrum.scores[out] @ weight.T + bias
            loss = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.targets[out])))
            if loss >= least:
                break  # the loss along the path has one minimum
            least, chosen = loss, (penalty,)
            found[out] = logits.softmax(dim=1).numpy()
        penalties = chosen
    return found


def _part(spectrum: Spectrum, rows: np.ndarray) -> Spectrum:
    """Some images in the directions of all: the penalty is the same in them, and they need no second search."""
    share = len(rows) / len(spectrum.scores)
    return Spectrum(spectrum.mean, spectrum.basis, spectrum.scores[rows], spectrum.power * share)
