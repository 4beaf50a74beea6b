"""Scores by what the source's classifier, or a mixture in its place, says of the images: LEEP, NCE, N-LEEP."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from headstart.errors import DataError
from headstart.transferability.examples import Array, Labelled

# Of the variance, kept for the mixture; and Gaussians a class.
_ENERGY = 0.8
_A_CLASS = 5
_MOST_DIMS = 64


def leep(probabilities: ArrayLike, targets: ArrayLike) -> Array:
    """Log expected empirical prediction of each image's class ``(N,)``; their mean is the score, at most 0.

    Reference: Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020,
    equation 2.

    Args:
        probabilities: of the source's classes ``(N, Z)``, each row summing to 1.
        targets: ``(N,)``.

    Raises:
        DataError: they are no probabilities, or do not fit the targets.
    """
    given = _probabilities(probabilities, targets)
    shares = _shares(targets)
    joint = shares.T @ given / len(given)
    conditional = joint / np.maximum(joint.sum(axis=0), np.finfo(float).tiny)
    found: Array = np.log(np.maximum((given @ conditional.T * shares).sum(axis=1), np.finfo(float).tiny))
    return found


def nce(probabilities: ArrayLike, targets: ArrayLike) -> Array:
    """Log share of each image's class among those with the same most probable source class, ``(N,)``.

    Their mean is the score, minus the conditional entropy of the target given the source label.

    Reference: Tran et al., "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019, theorem 1.

    Args:
        probabilities: as for :func:`leep`.
        targets: ``(N,)``.

    Raises:
        DataError: they are no probabilities, or do not fit the targets.
    """
    given = _probabilities(probabilities, targets)
    return leep(np.eye(given.shape[1])[given.argmax(axis=1)], targets)


def n_leep(data: Labelled, *, seed: int = 0) -> Array:
    """LEEP of a Gaussian mixture's components in place of source classes, ``(N,)``; needs no classifier.

    The mixture has diagonal covariances and five components a class (fewer where there are few images), over the
    principal components that hold 80 % of the variance, 64 at most.

    Reference: Li et al., "Ranking Neural Checkpoints", CVPR 2021, section 4.

    Args:
        data: features and classes.
        seed: of the mixture's start.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if not len(data.power):
        return leep(np.ones((len(data), 1)), data.targets)
    energy = np.cumsum(data.power) / data.power.sum()
    dims = min(int(np.searchsorted(energy, _ENERGY)) + 1, _MOST_DIMS)
    rows = data.scores[:, :dims] / np.sqrt(data.power[0] / len(data))
    distinct = len(np.unique(rows.round(9), axis=0))
    components = max(1, min(_A_CLASS * data.classes, len(data) // _A_CLASS, distinct))
    mixture = GaussianMixture(
        components, covariance_type="diag", reg_covar=1e-4, max_iter=100, tol=1e-2, random_state=seed
    )
    with warnings.catch_warnings():
        # A mixture that has not quite settled is as good a partition of the images.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(rows)
    return leep(mixture.predict_proba(rows), data.targets)


def _probabilities(probabilities: ArrayLike, targets: ArrayLike) -> Array:
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim != 2 or len(given) != len(np.asarray(targets)):
        raise DataError(f"probabilities {given.shape} and targets {np.shape(targets)} must be (N, Z) and (N,)")
    if not (np.isfinite(given).all() and (given >= 0).all() and np.allclose(given.sum(axis=1), 1, atol=1e-3)):
        raise DataError("the source's outputs are no probabilities: finite, at least 0 and summing to 1 in each row")
    return given


def _shares(targets: ArrayLike) -> Array:
    present, positions = np.unique(np.asarray(targets), return_inverse=True)
    return np.eye(len(present))[positions]
