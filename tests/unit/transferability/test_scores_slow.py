"""Every score against an independent derivation, as slow and as literal as its paper's formula."""

import numpy as np
import pytest
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from headstart.transferability.examples import Labelled, folds_of
from headstart.transferability.scores_features import gbc, h_score, logme, transrate
from headstart.transferability.scores_probe import FOLDS, knn, logistic, nearest_mean, ridge
from headstart.transferability.scores_source import leep, n_leep, nce

AGREES = 1e-4


def _sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    iris, wine, digits = (load(return_X_y=True) for load in (load_iris, load_wine, load_digits))
    return {
        "iris": iris,
        "wine": wine,
        "digits": (digits[0][:130], digits[1][:130]),
        # Fewer images than dimensions.
        "few digits": (digits[0][:40], digits[1][:40]),
        "few wines": (np.hstack([wine[0] / wine[0].std(axis=0), wine[0] ** 2 / 1e6])[::9], wine[1][::9]),
    }


SETS = _sets()


@pytest.fixture(params=list(SETS))
def data(request: pytest.FixtureRequest) -> Labelled:
    return Labelled.of(*SETS[request.param])


def test_logme_is_the_maximum_of_the_evidence(data: Labelled):
    """Of ``N(y; 0, I/beta + F F'/alpha)``, the marginal likelihood itself, searched in both precisions."""
    inner, total = data.features @ data.features.T, 0.0

    def negative(logs: np.ndarray, wanted: np.ndarray) -> float:
        alpha, beta = np.exp(logs.clip(-20, 20))
        try:
            root = np.linalg.cholesky(np.eye(len(wanted)) / beta + inner / alpha)
        except np.linalg.LinAlgError:
            return np.inf
        white = solve_triangular(root, wanted, lower=True)
        return 0.5 * (white @ white + len(wanted) * np.log(2 * np.pi)) + np.log(np.diag(root)).sum()

    for one in range(data.classes):
        wanted = (data.targets == one).astype(float)
        starts = [(0.0, 2.0), (5.0, 5.0)]
        ends = [
            minimize(negative, start, args=(wanted,), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
            for start in starts
        ]
        total += max(-end.fun for end in ends)
    assert logme(data) == pytest.approx(total / (len(data) * data.classes), rel=AGREES)


def test_h_score_is_the_trace_of_a_matrix_product(data: Labelled):
    expected = np.stack([data.features[data.targets == one].mean(axis=0) for one in data.targets])
    between = np.cov(expected.T, bias=True)
    fitted = LedoitWolf().fit(data.features)
    shrunk = np.trace(np.linalg.inv(fitted.covariance_) @ ((1 - fitted.shrinkage_) * between))
    assert h_score(data) == pytest.approx(shrunk, rel=AGREES)
    if len(data) > data.features.shape[1] * 2:
        plain = np.trace(np.linalg.pinv(np.cov(data.features.T, bias=True)) @ between)
        assert h_score(data, shrinkage=0.0) == pytest.approx(plain, rel=AGREES)


def test_transrate_is_a_difference_of_log_determinants(data: Labelled):
    centred = data.features - data.features.mean(axis=0)
    centred /= np.sqrt((centred**2).sum() / len(data))

    def rate(rows: np.ndarray) -> float:
        inside = np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * 1e-4)
        return 0.5 * np.log(np.linalg.eigvalsh(inside)).sum()

    within = sum((data.targets == one).mean() * rate(centred[data.targets == one]) for one in range(data.classes))
    assert transrate(data) == pytest.approx(rate(centred) - within, rel=AGREES)


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("name", ["iris", "wine", "digits"])
def test_gbc_is_the_bhattacharyya_distance_of_whole_gaussians(name: str, spherical: bool):
    """With full covariance matrices, so that a spherical one counts in every dimension."""
    data = Labelled.of(*SETS[name])
    components = min(4, data.features.shape[1])
    rows = PCA(components).fit_transform(data.features)
    means, covariances = [], []
    for one in range(data.classes):
        of_class = rows[data.targets == one]
        variance = of_class.var(axis=0)
        means.append(of_class.mean(axis=0))
        covariances.append(np.diag(np.full(components, variance.mean()) if spherical else variance))
    total = 0.0
    for i in range(data.classes):
        for j in range(data.classes):
            if i == j:
                continue
            middle = (covariances[i] + covariances[j]) / 2
            apart = means[i] - means[j]
            determinants = [np.linalg.det(matrix) for matrix in (middle, covariances[i], covariances[j])]
            distance = apart @ np.linalg.inv(middle) @ apart / 8
            distance += 0.5 * np.log(determinants[0] / np.sqrt(determinants[1] * determinants[2]))
            total -= np.exp(-distance)
    assert gbc(data, spherical=spherical, components=components) == pytest.approx(total, rel=AGREES)


def _answers(data: Labelled) -> np.ndarray:
    """What a source classifier of seven classes might say."""
    logits = data.features @ np.random.default_rng(0).normal(size=(data.features.shape[1], 7)) * 3
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_leep_by_loops(data: Labelled):
    given = _answers(data)
    joint = np.zeros((data.classes, 7))
    for target, row in zip(data.targets, given, strict=True):
        joint[target] += row / len(data)
    total = 0.0
    for target, row in zip(data.targets, given, strict=True):
        total += np.log(sum(joint[target, z] / joint[:, z].sum() * row[z] for z in range(7))) / len(data)
    assert leep(given, data.targets).mean() == pytest.approx(total, rel=AGREES)


def test_nce_is_minus_a_conditional_entropy(data: Labelled):
    given = _answers(data)
    source = given.argmax(axis=1)
    entropy = 0.0
    for z in np.unique(source):
        shares = np.bincount(data.targets[source == z]) / (source == z).sum()
        entropy -= (source == z).mean() * sum(p * np.log(p) for p in shares if p > 0)
    assert nce(given, data.targets).mean() == pytest.approx(-entropy, rel=AGREES)


def test_n_leep_of_well_separated_clusters_is_their_leep():
    """Where every component of the mixture is sure, it is minus the entropy of the class given the cluster."""
    rng = np.random.default_rng(0)
    cluster = np.arange(200) % 4
    features = 100 * np.eye(4)[cluster] + rng.normal(size=(200, 4))
    targets = np.where(cluster == 3, rng.integers(3, size=200), cluster)
    found = n_leep(Labelled.of(features, targets)).mean()
    shares = np.bincount(targets[cluster == 3]) / (cluster == 3).sum()
    # Several components share a cluster and may see a little more than its mean.
    assert 0.25 * (shares * np.log(shares)).sum() - 1e-3 <= found <= 0.25 * (shares * np.log(shares)).sum() + 0.12


def test_knn_by_loops(data: Labelled):
    rows = data.features / np.linalg.norm(data.features, axis=1, keepdims=True)
    right = []
    for i in range(len(data)):
        similar = rows @ rows[i]
        similar[i] = -np.inf
        nearest = np.argsort(-similar)[:5]
        votes = [sum(1 + 1e-3 * similar[n] for n in nearest if data.targets[n] == c) for c in range(data.classes)]
        right.append(np.argmax(votes) == data.targets[i])
    # Single precision may order neighbours that are equally far in another way.
    assert knn(data).mean() == pytest.approx(np.mean(right), abs=1.01 / len(data))


def test_nearest_mean_by_refitting_without_each_image(data: Labelled):
    everyone, right = np.arange(len(data)), []
    for i in everyone:
        means = [data.features[(data.targets == c) & (everyone != i)].mean(axis=0) for c in range(data.classes)]
        nearest = np.argmin([np.linalg.norm(data.features[i] - mean) for mean in means])
        right.append(nearest == data.targets[i])
    assert np.array_equal(nearest_mean(data), right)


def _ridge_says(data: Labelled, rest: np.ndarray, out: np.ndarray, penalty: float) -> np.ndarray:
    """What a solution from some images says of others, by the normal equations."""
    mean, start = data.features[rest].mean(axis=0), data.shares[rest].mean(axis=0)
    centred = data.features[rest] - mean
    inner = centred.T @ centred + penalty * np.eye(centred.shape[1])
    return (data.features[out] - mean) @ np.linalg.solve(inner, centred.T @ (data.shares[rest] - start)) + start


@pytest.mark.parametrize("name", ["iris", "few digits", "few wines"])
def test_ridge_by_refitting_without_each_fold(name: str):
    data = Labelled.of(*SETS[name])
    everyone, errors = np.arange(len(data)), {}
    top = np.linalg.eigvalsh(np.cov(data.features.T, bias=True) * len(data))[-1]
    for penalty in np.logspace(1, -9, 41) * top:
        said = [_ridge_says(data, everyone != i, everyone == i, penalty)[0] for i in everyone]
        errors[penalty] = np.square(said - data.shares).sum()
    penalty, right = min(errors, key=errors.get), np.zeros(len(data))
    folds = folds_of(data.targets, FOLDS)
    for fold in range(FOLDS):
        said = _ridge_says(data, folds != fold, folds == fold, penalty)
        right[folds == fold] = said.argmax(axis=1) == data.targets[folds == fold]
    assert np.array_equal(ridge(data), right)


@pytest.mark.parametrize("name", ["iris", "digits", "few digits"])
def test_logistic_as_scikit_learn_solves_it(name: str):
    data = Labelled.of(*SETS[name])
    folds, chosen = folds_of(data.targets, FOLDS), None
    length = np.square(data.scores).sum() / len(data)
    right = np.zeros(len(data))
    for fold in range(FOLDS):
        rest, out = folds != fold, folds == fold
        least = np.inf
        for penalty in np.logspace(1, -4, 11) if chosen is None else [chosen]:
            fitted = LogisticRegression(C=1 / (penalty * length), tol=1e-8, max_iter=20000)
            fitted.fit(data.features[rest], data.targets[rest])
            shares = fitted.predict_proba(data.features[out])
            place = np.searchsorted(fitted.classes_, data.targets[out]).clip(max=len(fitted.classes_) - 1)
            loss = -np.log(shares[np.arange(len(place)), place]).mean()
            if loss >= least:
                break
            least, best = loss, penalty
            right[out] = fitted.predict(data.features[out]) == data.targets[out]
        chosen = best
    assert logistic(data).mean() == pytest.approx(right.mean(), abs=1e-9)
