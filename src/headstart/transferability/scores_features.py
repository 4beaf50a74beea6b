"""Scores of how well features separate classes, without training: LogME, H-score, TransRate, GBC."""

import numpy as np
from scipy.optimize import minimize_scalar

from headstart.transferability.examples import Array, Labelled

# Ratios of prior to noise precision that LogME searches, in units of the largest eigenvalue of F'F.
_RATIOS = np.logspace(-12, 6, 73)
_COMPONENTS = 64
# Of the mean variance; where a class has none at all, distances in its units would be infinite.
_LEAST_VARIANCE = 1e-6


def logme(data: Labelled) -> float:
    """Logarithm of maximum evidence: a linear model's log evidence per image, averaged over one-vs-rest classes.

    With the ratio ``t`` of the precisions of prior and noise, the noise's best precision is ``N / S(t)``, so the
    evidence is maximised over ``t`` alone: ``-N/2 log(2 pi e S(t)/N) + 1/2 sum_i log(t / (t + s_i^2))``, where ``S(t)``
    is the penalised squared error. The sum runs over the ``k`` singular values above 0: of ``D log alpha`` and
    ``log|A|``, ``k log alpha`` is left over, also where ``N < D``.

    Reference: You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
    equation 2; the evidence: Bishop 2006, equation 3.86. The paper's fixed-point iteration is not used.
    """
    features, count = data.features, len(data)
    wide = features.shape[0] < features.shape[1]
    power, vectors = np.linalg.eigh(features @ features.T if wide else features.T @ features)
    kept = power > 1e-12 * max(power[-1], np.finfo(float).tiny)
    power, vectors = power[kept], vectors[:, kept]
    left = vectors if wide else features @ vectors / np.sqrt(power)
    explained = (left.T @ data.shares) ** 2
    unexplained = np.maximum(data.sizes - explained.sum(axis=0), 0.0)
    scale = power[-1] if len(power) else 1.0

    def evidence(ratio: Array, chosen: slice | int) -> Array:
        damped = ratio[:, None] / (ratio[:, None] + power / scale)
        # Rounding errors of a perfect fit must not decide where the evidence has no maximum.
        errors = damped @ explained[:, chosen] + unexplained[chosen] + 1e-15 * data.sizes[chosen]
        volume = 0.5 * np.log(damped).sum(axis=1)
        fit = -0.5 * count * np.log(2 * np.pi * np.e * errors / count)
        found: Array = (fit.T + volume).T
        return found

    coarse = evidence(_RATIOS, slice(None)).argmax(axis=0)
    total = 0.0
    for one, start in enumerate(coarse):
        bounds = np.log(_RATIOS[[max(start - 1, 0), min(start + 1, len(_RATIOS) - 1)]])
        best = minimize_scalar(
            lambda log, one=one: -evidence(np.exp([log]), one)[0],
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-6},
        )
        total += -float(best.fun)
    return total / (count * data.classes)


def h_score(data: Labelled, *, shrinkage: float | None = None) -> float:
    """H-score: how much of the features' variance is between classes, ``tr(cov(f)^-1 cov(E[f|y]))``.

    By default the covariance is shrunk towards the identity with Ledoit and Wolf's weight and the score multiplied by
    one minus that weight; without shrinkage it is ``C - 1`` on noise as soon as ``N`` is below ``D``.

    Reference: Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019,
    definition 2; shrinkage: Ibrahim et al., "Newer is not always better", ECML 2022; Ledoit and Wolf, 2004, lemma 3.3.

    Args:
        data: features and classes.
        shrinkage: its weight, 0 for none; None: estimated.
    """
    count, dims = data.features.shape
    variance = data.power / count
    if not len(variance):
        return 0.0
    mean = variance.sum() / dims
    if shrinkage is None:
        fourth = (np.square(data.scores).sum(axis=1) ** 2).mean()
        spread = (np.square(variance).sum() - dims * mean**2) / dims
        noise = (fourth - np.square(variance).sum()) / (count * dims)
        shrinkage = float(min(1.0, max(0.0, noise / spread))) if spread > 0 else 1.0
    between = (np.square(data.means) * data.sizes[:, None]).sum(axis=0) / count
    shrunk = (1 - shrinkage) * variance + shrinkage * mean
    return float((1 - shrinkage) * (between / shrunk).sum()) if shrinkage else float((between / variance).sum())


def transrate(data: Labelled, *, distortion: float = 1e-4) -> float:
    """TransRate: coding rate of all features minus the mean coding rate of each class's.

    The features are centred and scaled to a total variance of 1, so that networks can be compared.

    Reference: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, section 3.

    Args:
        data: features and classes.
        distortion: allowed error of the code, the ``epsilon`` of the paper.
    """
    count = len(data)
    if not len(data.power):
        return 0.0
    scale = data.power.sum() / count
    whole = 0.5 * np.log1p(data.power / (scale * count * distortion)).sum()
    within = 0.0
    for one in range(data.classes):
        rows = data.scores[data.targets == one] / np.sqrt(scale)
        gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
        rate = 0.5 * np.linalg.slogdet(np.eye(len(gram)) + gram / (len(rows) * distortion))[1]
        within += len(rows) / count * rate
    return float(whole - within)


def gbc(data: Labelled, *, spherical: bool = False, components: int | None = _COMPONENTS) -> float:
    """Gaussian Bhattacharyya coefficient: minus the sum over ordered pairs of classes of how much they overlap.

    A spherical variance counts once for each of the ``D`` dimensions in the logarithm of the volumes. A class without
    variance, of one image say, takes the mean variance within the classes.

    Reference: Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022,
    section 3, on the first 64 principal components as there.

    Args:
        data: features and classes.
        spherical: one variance a class instead of one a class and dimension.
        components: principal components to look at; None: all.
    """
    scores, means = data.scores[:, :components], data.means[:, :components]
    dims = scores.shape[1]
    if not dims:
        return -float(data.classes * (data.classes - 1))
    variance = np.maximum(data.shares.T @ np.square(scores) / data.sizes[:, None] - np.square(means), 0.0)
    pooled = (variance * data.sizes[:, None]).sum(axis=0) / len(data)
    floor = np.maximum(pooled, _LEAST_VARIANCE * (data.power[:components] / len(data)).mean())
    if spherical:
        variance, floor = variance.mean(axis=1, keepdims=True), np.atleast_1d(floor.mean())
    empty = variance.sum(axis=1) <= _LEAST_VARIANCE * floor.sum()
    variance[empty] = floor
    variance = np.maximum(variance, _LEAST_VARIANCE * floor)
    weight = dims if spherical else 1  # one logarithm stands for all dimensions
    overlap = 0.0
    for one in range(data.classes - 1):
        mean = (variance[one] + variance[one + 1 :]) / 2
        apart = np.square(means[one] - means[one + 1 :]) / mean
        volume = np.log(mean) - 0.5 * (np.log(variance[one]) + np.log(variance[one + 1 :]))
        overlap += 2 * np.exp(-apart.sum(axis=1) / 8 - weight * volume.sum(axis=1) / 2).sum()
    return -float(overlap)
