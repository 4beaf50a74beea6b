"""All scores by name; of each, more is better."""

from collections.abc import Callable
from dataclasses import dataclass

from headstart.heads.closed_form import threads_for
from headstart.transferability.examples import Array, Labelled
from headstart.transferability.intervals import Value, draws, of_mean, of_proportion, of_whole
from headstart.transferability.scores_features import gbc, h_score, logme, transrate
from headstart.transferability.scores_probe import knn, logistic, nearest_mean, ridge
from headstart.transferability.scores_source import leep, n_leep, nce


@dataclass(frozen=True)
class Meaning:
    """What a score says, for people.

    Attributes:
        title: short.
        says: in a sentence.
        is_accuracy: it is a share of right answers.
    """

    title: str
    says: str
    is_accuracy: bool = False


MEANINGS = {
    "logistic": Meaning("logistic", "accuracy of logistic regression on the features, cross-validated", True),
    "ridge": Meaning("ridge", "accuracy of ridge regression on the features, each image left out", True),
    "knn": Meaning("k-NN", "accuracy of the five most similar other images' vote", True),
    "nearest_mean": Meaning("class mean", "accuracy of the nearest class mean, each image left out", True),
    "logme": Meaning("LogME", "log evidence of a linear model per image"),
    "h_score": Meaning("H-score", "share of the features' variance between classes, summed over directions"),
    "transrate": Meaning("TransRate", "coding rate of all features less that within classes"),
    "gbc": Meaning("GBC", "minus the overlap of the classes as Gaussians"),
    "n_leep": Meaning("N-LEEP", "log likelihood of the classes given a mixture's components"),
    "leep": Meaning("LEEP", "log likelihood of the classes given the source classifier's probabilities"),
    "nce": Meaning("NCE", "minus the entropy of the class given the source classifier's answer"),
}

_RIGHT: dict[str, Callable[[Labelled], Array]] = {
    "logistic": logistic,
    "ridge": ridge,
    "knn": knn,
    "nearest_mean": nearest_mean,
}
_WHOLE: dict[str, Callable[[Labelled], float]] = {
    "logme": logme,
    "h_score": h_score,
    "transrate": transrate,
    "gbc": gbc,
}


@dataclass(frozen=True)
class Scored:
    """The scores of one network.

    Attributes:
        values: by name; those that need a source classifier are absent where there is none.
        right: for every accuracy 1 for each image that was found, else 0; ``(N,)``, in the order of the images.
    """

    values: dict[str, Value]
    right: dict[str, Array]


def score_all(data: Labelled, probabilities: Array | None = None) -> Scored:
    """Every score with its interval.

    Args:
        data: features and classes.
        probabilities: of the source's classes for the same images ``(N, Z)``, where the weights have a classifier.

    Raises:
        DataError: the features or probabilities cannot be used.
    """
    with threads_for(data.features.size * min(data.features.shape)):
        rank = len(data.power)
    # What follows are thousands of products with the classes, and the subsamples' spectra.
    with threads_for(len(data) * rank * data.classes):
        right = {name: score(data) for name, score in _RIGHT.items()}
        values = {name: of_proportion(float(found.mean()), len(data)) for name, found in right.items()}
        values |= {name: of_whole(score, data) for name, score in _WHOLE.items()}
        likely = {"n_leep": n_leep(data)}
        if probabilities is not None:
            likely |= {"leep": leep(probabilities, data.targets), "nce": nce(probabilities, data.targets)}
        weights = draws(len(data))
        values |= {name: of_mean(found, weights) for name, found in likely.items()}
    return Scored({name: values[name] for name in MEANINGS if name in values}, right)
