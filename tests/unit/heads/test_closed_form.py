"""Heads in closed form against scikit-learn on the same features, and what they keep."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as SkLogisticRegression
from sklearn.linear_model import Ridge as SkRidge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from headstart.backbones.contract import FeatureSpec
from headstart.errors import ConfigError
from headstart.heads import ClosedForm, LogisticRegression, NearestClassMean, NearestNeighbours, Ridge
from headstart.heads.closed_form import PENALTIES, Examples, Spectrum, outputs_of, solve
from headstart.tasks import Task, build_task

WIDTH = 12
SPEC = FeatureSpec(WIDTH, (WIDTH,), "NC")
THREE = build_task("multiclass", ("a", "b", "c"))
TWO = build_task("binary", ("a", "b"))

Head = Callable[..., ClosedForm]
HEADS: tuple[Head, ...] = (LogisticRegression, Ridge, NearestClassMean, NearestNeighbours)


def examples(count: int = 60, *, classes: int = 3, seed: int = 0, noise: float = 2.0) -> Examples:
    """Overlapping clouds away from the origin, of unequal spread along the axes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, WIDTH, generator=torch.Generator().manual_seed(99)) + 3
    targets = torch.arange(count) % classes
    spread = torch.logspace(-1, 0.5, WIDTH) * noise
    return Examples(centres[targets] + spread * torch.randn(count, WIDTH, generator=generator), targets)


def only(head: ClosedForm, given: Examples, task: Task, value: float | None) -> ClosedForm:
    """The head solved for one value."""
    (_,) = head.solutions(given, task, [value])
    return head


def arrays(given: Examples) -> tuple[np.ndarray, np.ndarray]:
    return given.features.double().numpy(), given.targets.numpy()


# Against scikit-learn


@pytest.mark.parametrize(("l2", "tolerance"), [(100.0, 1e-4), (1.0, 1e-3), (0.05, 1e-2)])
def test_logistic_regression_has_the_coefficients_of_scikit_learn(l2: float, tolerance: float):
    given = examples()
    head = only(LogisticRegression(SPEC, 3), given, THREE, l2)
    theirs = SkLogisticRegression(C=1 / l2, max_iter=20_000, tol=1e-8).fit(*arrays(given))
    ours = head.linear.weight.detach().double().numpy()
    assert ours - ours.mean(axis=0) == pytest.approx(theirs.coef_ - theirs.coef_.mean(axis=0), abs=tolerance)
    probabilities = THREE.probabilities(outputs_of(head, given)).numpy()
    assert probabilities == pytest.approx(theirs.predict_proba(arrays(given)[0]), abs=1e-3)


def test_a_path_ends_where_each_value_by_itself_does():
    """The start does not matter: the loss is convex."""
    given, head, alone = examples(), LogisticRegression(SPEC, 3), LogisticRegression(SPEC, 3)
    for value, _ in zip(PENALTIES[:25:4], head.solutions(given, THREE, PENALTIES[:25:4]), strict=True):
        only(alone, given, THREE, value)
        torch.testing.assert_close(outputs_of(head, given), outputs_of(alone, given), atol=2e-2, rtol=1e-2)


def test_the_gradient_of_the_stated_loss_is_zero():
    """Sum of the cross-entropies plus half the penalty: written out anew, on the features as they are."""
    given = examples()
    head = only(LogisticRegression(SPEC, 3), given, THREE, 0.5)
    weight = head.linear.weight.detach().double().requires_grad_()
    bias = head.linear.bias.detach().double().requires_grad_()
    logits = given.features.double() @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, given.targets, reduction="sum") + 0.25 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() < 2e-3
    assert bias.grad is not None
    assert bias.grad.abs().max() < 2e-3


@pytest.mark.parametrize("count", [60, 8], ids=["more images than features", "fewer"])
@pytest.mark.parametrize("l2", [10.0, 1e-3])
def test_ridge_regression_is_that_of_scikit_learn(count: int, l2: float):
    given = examples(count)
    numbers = Examples(
        given.features, torch.stack((given.features[:, 0] * 3 + 7, given.features[:, 5].square()), dim=1)
    )
    task = build_task("regression", ("x", "y"), train_targets=numbers.targets.numpy())
    head = only(Ridge(SPEC, 2), numbers, task, l2)
    predicted = task.probabilities(outputs_of(head, numbers)).numpy()
    theirs = SkRidge(alpha=l2).fit(numbers.features.double().numpy(), numbers.targets.double().numpy())
    assert predicted == pytest.approx(theirs.predict(numbers.features.double().numpy()), rel=1e-3, abs=1e-3)


def test_ridge_scores_of_classes_are_least_squares_times_a_factor():
    given = examples()
    head = only(Ridge(SPEC, 3), given, THREE, 1.0)
    theirs = SkRidge(alpha=1.0).fit(arrays(given)[0], np.eye(3)[given.targets]).predict(arrays(given)[0])
    ours = outputs_of(head, given).double().numpy()
    factor = (ours * theirs).sum() / (theirs**2).sum()
    assert factor > 1
    assert ours == pytest.approx(factor * theirs, abs=1e-3 * factor)


def test_the_images_left_out_of_ridge_are_really_left_out():
    """The formula against solving again without each image."""
    given = examples(20)
    spectrum, wanted = Spectrum.of(given.features), torch.eye(3, dtype=torch.float64)[given.targets]
    towards = spectrum.scores.T @ (wanted - wanted.mean(dim=0))
    weight = (towards / (spectrum.power + 0.7)[:, None]).T
    found = Ridge._left_out(spectrum, wanted, weight, wanted.mean(dim=0), 0.7).numpy()
    features = given.features.double().numpy()
    for image in range(20):
        rest = np.arange(20) != image
        slow = SkRidge(alpha=0.7).fit(features[rest], wanted.numpy()[rest]).predict(features[image : image + 1])
        assert found[image] == pytest.approx(slow[0], abs=1e-8)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("weighting", ["equal", "similarity"])
def test_neighbours_are_those_of_scikit_learn(k: int, weighting: str):
    given, asked = examples(), examples(40, seed=1)
    head = only(NearestNeighbours(SPEC, 3, weighting=weighting), given, THREE, k)
    weights = "uniform" if weighting == "equal" else lambda distance: np.exp((1 - distance) / 0.07)
    theirs = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(*arrays(given))
    shares = THREE.probabilities(outputs_of(head, asked)).numpy()
    assert shares == pytest.approx(theirs.predict_proba(arrays(asked)[0]), abs=1e-4)


def test_the_nearest_mean_is_that_of_scikit_learn():
    given, asked = examples(), examples(200, seed=1)
    head = only(NearestClassMean(SPEC, 3, metric="euclidean"), given, THREE, None)
    theirs = NearestCentroid().fit(*arrays(given)).predict(arrays(asked)[0])
    assert (outputs_of(head, asked).argmax(dim=1).numpy() == theirs).all()


def test_the_nearest_direction_is_that_of_the_mean_of_directions():
    given, asked = examples(), examples(200, seed=1)
    head = only(NearestClassMean(SPEC, 3), given, THREE, None)
    long = Examples(asked.features * torch.linspace(0.1, 10, 200)[:, None], asked.targets)
    assert (outputs_of(head, asked).argmax(1) == outputs_of(head, long).argmax(1)).all()
    directions = (given.features / given.features.norm(dim=1, keepdim=True)).numpy()
    means = np.stack([directions[given.targets == c].mean(axis=0) for c in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    expected = (asked.features.numpy() @ means.T / asked.features.norm(dim=1, keepdim=True).numpy()).argmax(axis=1)
    assert (outputs_of(head, asked).argmax(dim=1).numpy() == expected).all()


# Choosing on validation


def test_the_usual_path_has_45_values_evenly_spaced_in_their_logarithm():
    assert len(PENALTIES) == 45
    assert PENALTIES[0] == pytest.approx(1e5)
    assert PENALTIES[-1] == pytest.approx(1e-6)
    assert np.diff(np.log10(PENALTIES)) == pytest.approx(np.full(44, -0.25))


@pytest.mark.parametrize("head", [LogisticRegression, Ridge, NearestNeighbours])
def test_the_best_on_validation_is_chosen_and_the_strongest_among_equals(head: Head):
    train, val = examples(), examples(45, seed=1)
    built = head(SPEC, 3)
    solution = solve(built, train, val, THREE)
    tried = [entry[solution.choice] for entry in solution.path]
    scores = [entry["val/acc"] for entry in solution.path]
    assert tried == sorted(tried, reverse=True)
    assert len(set(scores)) > 1
    assert solution.value == tried[scores.index(max(scores))]
    alone = only(head(SPEC, 3), train, THREE, solution.value)
    assert float((outputs_of(alone, val).argmax(1) == val.targets).float().mean()) == pytest.approx(max(scores))


@pytest.mark.parametrize("head", [LogisticRegression, Ridge])
def test_values_that_validation_cannot_tell_apart_give_the_largest(head: Head):
    easy, other = examples(noise=0.01), examples(30, seed=1, noise=0.01)
    solution = solve(head(SPEC, 3, l2=[1e-4, 1e-2, 1e-3]), easy, other, THREE)
    assert {entry["val/acc"] for entry in solution.path} == {1.0}
    assert solution.value == 1e-2


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("refit", [True, False])
def test_validation_images_enter_only_the_refit(head: Head, refit: bool):
    train, val = examples(), examples(30, seed=1)
    # The same right answers on validation by every path, other features: far away, where they would pull.
    moved = Examples(val.features * 1.7 + 2, val.targets)
    built = head(SPEC, 3, refit=refit)
    solution = solve(built, train, moved, THREE)
    alone = only(head(SPEC, 3), train, THREE, solution.value)
    _same_answers(solution.on_train, alone, head(SPEC, 3), train)
    kept = only(head(SPEC, 3), train.plus(moved) if refit else train, THREE, solution.value)
    _same_answers(solution.final, kept, head(SPEC, 3), train)
    torch.testing.assert_close(outputs_of(built, train), outputs_of(kept, train), atol=2e-2, rtol=1e-2)
    assert solution.images == (90 if refit else 60)
    if refit:
        with pytest.raises(AssertionError):
            _same_answers(solution.final, alone, head(SPEC, 3), train)


def _same_answers(state: dict[str, torch.Tensor], expected: ClosedForm, empty: ClosedForm, given: Examples) -> None:
    empty.load_state_dict(state)
    torch.testing.assert_close(outputs_of(empty, given), outputs_of(expected, given), atol=2e-2, rtol=1e-2)


# What they are made for, and what is refused


@pytest.mark.parametrize("head", HEADS)
def test_one_sigmoid_says_what_two_outputs_say(head: Head):
    train, val = examples(classes=2), examples(40, classes=2, seed=1)
    two = build_task("multiclass", ("a", "b"))
    single, double = head(SPEC, 1), head(SPEC, 2)
    assert solve(single, train, val, TWO).value == solve(double, train, val, two).value
    one, both = TWO.probabilities(outputs_of(single, val)), two.probabilities(outputs_of(double, val))
    torch.testing.assert_close(one, both, atol=1e-4, rtol=1e-3)


def test_ridge_finds_labels():
    given = examples(120, noise=0.5)
    labels = torch.stack((given.targets == 0, given.targets != 1), dim=1).float()
    task = build_task("multilabel", ("first", "not second"), train_targets=labels.numpy())
    head = Ridge(SPEC, 2)
    solution = solve(head, Examples(given.features, labels), Examples(given.features[:60], labels[:60]), task)
    assert "val/map" in solution.path[0]
    predicted = task.probabilities(outputs_of(head, given)) >= 0.5
    assert (predicted == labels.bool()).float().mean() > 0.95


@pytest.mark.parametrize("head", [LogisticRegression, NearestClassMean, NearestNeighbours])
def test_heads_for_one_class_refuse_numbers(head: Head):
    given = examples()
    task = build_task("regression", ("x",), train_targets=given.features[:, :1].numpy())
    with pytest.raises(ConfigError, match="task=binary or multiclass, not for task=regression; use head=ridge"):
        solve(head(SPEC, 1), given, given, task)


@pytest.mark.parametrize("head", HEADS)
def test_a_class_without_training_images_is_never_the_answer_and_breaks_nothing(head: Head):
    task = build_task("multiclass", ("a", "b", "c", "never"))
    built = head(SPEC, 4)
    solve(built, examples(), examples(30, seed=1), task)
    outputs = outputs_of(built, examples(50, seed=2))
    assert outputs.isfinite().all()
    assert (outputs.argmax(dim=1) != 3).all()


@pytest.mark.parametrize("head", HEADS)
def test_features_that_are_all_alike_or_few_break_nothing(head: Head):
    flat = Examples(torch.ones(6, WIDTH), torch.arange(6) % 3)
    built = head(SPEC, 3)
    solve(built, flat, flat, THREE)
    assert outputs_of(built, flat).isfinite().all()


def test_counts_beyond_the_training_images_are_left_out_or_refused():
    assert NearestNeighbours(SPEC, 3).values(7) == [5, 2, 1]
    with pytest.raises(ConfigError, match=r"head\.k=20 exceeds the 7 training images"):
        NearestNeighbours(SPEC, 3, k=[20, 30]).values(7)


@pytest.mark.parametrize("wrong", [0, -1.0, [1.0, 0.0], []])
def test_penalties_are_above_zero(wrong: float | list[float]):
    with pytest.raises(ConfigError, match=r"head\.l2="):
        LogisticRegression(SPEC, 3, l2=wrong)


@pytest.mark.parametrize(
    ("key", "arguments"),
    [("head.weighting", {"weighting": "odd"}), ("head.k", {"k": 0}), ("head.temperature", {"temperature": 0.0})],
)
def test_neighbours_refuse_nonsense(key: str, arguments: dict):
    with pytest.raises(ConfigError, match=key):
        NearestNeighbours(SPEC, 3, **arguments)


# Modules like any other


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "spec",
    [FeatureSpec(WIDTH, (WIDTH, 2, 3), "NCHW"), FeatureSpec(WIDTH, (4, WIDTH), "NLC", "token", 1)],
    ids=["map", "tokens"],
)
def test_they_pool_and_survive_a_round_trip(head: Head, spec: FeatureSpec):
    built, empty = head(spec, 3), head(spec, 3)
    solve(built, examples(), examples(30, seed=1), THREE)
    empty.load_state_dict(built.state_dict())
    features = torch.randn(5, *spec.shape)
    torch.testing.assert_close(empty(features), built(features), rtol=0, atol=0)
    torch.testing.assert_close(empty(built.pool(features)), built(features), rtol=0, atol=0)


@pytest.mark.parametrize("head", HEADS)
def test_they_answer_in_full_precision_under_autocast(head: Head):
    built = head(SPEC, 3)
    solve(built, examples(), examples(30, seed=1), THREE)
    asked = examples(20, seed=3).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = built(asked)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, built(asked), rtol=0, atol=0)


def test_the_number_of_threads_is_as_before():
    before = torch.get_num_threads()
    solve(Ridge(SPEC, 3), examples(), examples(30, seed=1), THREE)
    assert torch.get_num_threads() == before
