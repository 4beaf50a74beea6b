"""Heads in closed form, from one pass over the training images."""

from types import SimpleNamespace

import pytest
import torch

from headstart.errors import ConfigError
from headstart.model.head_init import class_means, probe, source_rows


def clusters(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    targets = torch.arange(classes).repeat(15)
    centres = torch.randn(classes, 6) * 3 + 5
    return centres[targets] + torch.randn(len(targets), 6), targets


def test_class_means_choose_the_nearest_mean():
    features, targets = clusters(4)
    weight, bias = class_means(features, targets, 4)
    means = torch.stack([features[targets == c].mean(dim=0) for c in range(4)])
    queries = torch.randn(50, 6) * 4 + 5
    nearest = [min(range(4), key=lambda c: float((query - means[c]).norm())) for query in queries]
    assert (queries @ weight.T + bias).argmax(dim=1).tolist() == nearest


def test_class_means_have_the_scale_of_the_lowest_loss():
    features, targets = clusters(3)
    weight, bias = class_means(features, targets, 3)

    def loss(scale: float) -> float:
        return torch.nn.functional.cross_entropy(scale * (features @ weight.T + bias), targets).item()

    assert loss(1.0) <= min(loss(0.4), loss(2.5))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_logistic_regression_on_the_features_as_they_are(classes):
    from sklearn.linear_model import LogisticRegression

    features, targets = clusters(classes)
    weight, bias = probe(features, targets, classes)
    assert weight.shape == (classes, 6)
    standardised = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    expected = LogisticRegression(max_iter=2000).fit(standardised, targets).predict_proba(standardised)
    found = torch.softmax(features @ weight.T + bias, dim=1)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-2, atol=1e-3)


def test_a_feature_that_never_changes_does_no_harm():
    features, targets = clusters(3)
    features[:, 2] = 1.5
    weight, bias = probe(features, targets, 3)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


def of_source(*classes: str, classifier: bool = True) -> SimpleNamespace:
    rows = torch.arange(len(classes), dtype=torch.float32)
    known = SimpleNamespace(weight=rows[:, None].expand(-1, 3), bias=-rows) if classifier else None
    return SimpleNamespace(source_classifier=known, weights=SimpleNamespace(classes=classes, source="mine.safetensors"))


def test_the_sources_rows_are_found_by_name():
    weight, bias = source_rows(of_source("ant", "bee", "cat", "dog"), ("dog", "bee"))
    assert weight.tolist() == [[3.0] * 3, [1.0] * 3]
    assert bias.tolist() == [-3.0, -1.0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (of_source("ant", "bee"), "1 of 2 classes are not among the source's 2 .such as 'cat'; the source knows 'ant'"),
        (of_source("ant", "cat", classifier=False), "mine.safetensors brings none; use head_init=class_means"),
        (of_source(), "brings none"),
    ],
)
def test_a_source_without_the_classes_is_refused(source, message):
    with pytest.raises(ConfigError, match=message):
        source_rows(source, ("ant", "cat"))
