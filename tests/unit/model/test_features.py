"""Heads in closed form, from one pass over the training images."""

from types import SimpleNamespace

import pytest
import torch

from headstart.backbones.contract import FeatureSpec
from headstart.errors import ConfigError
from headstart.heads import Linear, LogisticRegression
from headstart.heads.closed_form import PENALTIES, Examples
from headstart.model.head_init import calibrate, class_means, probe, source_rows, standardised_probe
from headstart.tasks import build_task


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
    weight, bias = standardised_probe(features, targets, classes)
    assert weight.shape == (classes, 6)
    standardised = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    expected = LogisticRegression(max_iter=2000).fit(standardised, targets).predict_proba(standardised)
    found = torch.softmax(features @ weight.T + bias, dim=1)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("classes", [3, 4])
def test_a_class_without_images_has_a_row_in_the_probe_and_is_never_its_answer(classes: int):
    features, targets = clusters(classes)
    there = targets != 1
    weight, bias = standardised_probe(features[there], targets[there], classes)
    answers = (features[there] @ weight.T + bias).argmax(dim=1)
    assert weight.shape == (classes, 6)
    assert set(answers.tolist()) == set(range(classes)) - {1}
    assert (answers == targets[there]).float().mean() > 0.9


def fitted(train: Examples, val: Examples, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    return probe(train, val, classes, build_task("multiclass", tuple(map(str, range(classes)))))


def test_a_feature_that_never_changes_does_no_harm():
    features, targets = clusters(3)
    features[:, 2] = 1.5
    examples = Examples(features, targets)
    for weight, bias in (standardised_probe(features, targets, 3), fitted(examples, examples, 3)):
        assert torch.isfinite(weight).all()
        assert torch.isfinite(bias).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probes_penalty_has_the_lowest_loss_on_validation(classes: int):
    features, targets = clusters(classes)
    noise = 2 * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    train, val = Examples(features + noise, targets), Examples(features - noise, targets)

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> float:
        return torch.nn.functional.cross_entropy(val.features @ weight.T + bias, val.targets).item()

    head = LogisticRegression(FeatureSpec(6, (6,), "NC"), classes)
    path = []
    for _ in head.solutions(train, build_task("multiclass", tuple("abcd"[:classes])), PENALTIES):
        path.append(loss(head.linear.weight.detach(), head.linear.bias.detach()))
    assert loss(*fitted(train, val, classes)) == pytest.approx(min(path), abs=1e-5)
    assert min(path) < min(path[0], path[-1])


def test_a_feature_that_is_almost_always_zero_gets_no_huge_weight():
    """Divided by its own deviation it would have one: training moves it a little, and the loss explodes."""
    features, targets = clusters(3)
    dead = torch.zeros(len(targets), 1)
    dead[0] = 1e-4
    features = torch.cat((features, dead), dim=1)
    examples = Examples(features, targets)
    weight, _ = fitted(examples, examples, 3)
    assert weight[:, -1].abs().max() < weight[:, :-1].abs().max()
    dividing, _ = standardised_probe(features, targets, 3)
    assert dividing[:, -1].abs().max() > 100 * dividing[:, :-1].abs().max()


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
        (of_source("cat", "ant", "cat"), "2 of the source's classes are called 'cat'"),
    ],
)
def test_a_source_without_the_classes_is_refused(source, message):
    with pytest.raises(ConfigError, match=message):
        source_rows(source, ("ant", "cat"))


class Normalised(torch.nn.Module):
    """A backbone of one BatchNorm layer whose running statistics are far from a batch's, and a linear head."""

    def __init__(self, away: float, weight: float) -> None:
        super().__init__()
        self.backbone = torch.nn.BatchNorm2d(2, affine=False)
        self.backbone.running_mean.fill_(away)
        self.head = Linear(FeatureSpec(2, (2, 1, 1), "NCHW"), 2)
        with torch.no_grad():
            self.head.linear.weight.copy_(weight * torch.eye(2))
            self.head.linear.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images))


def images_of(values: torch.Tensor, targets: torch.Tensor, batch_size: int = 8) -> SimpleNamespace:
    items = [{"images": v[:, None, None], "targets": t} for v, t in zip(values, targets, strict=True)]
    return SimpleNamespace(dataset=lambda split: items, batch_size=batch_size, classes=("a", "b"))


def noisy(rightness: float) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(2)
    targets = torch.arange(64) % 2
    values = rightness * torch.nn.functional.one_hot(targets, 2) + torch.randn(64, 2, generator=generator)
    return images_of(values, targets)


def training_loss(model: Normalised, data: SimpleNamespace) -> float:
    items = data.dataset("train")
    images, targets = torch.stack([i["images"] for i in items]), torch.stack([i["targets"] for i in items])
    whole = (images - images.mean(dim=0)) / images.std(dim=0, correction=0)
    return torch.nn.functional.cross_entropy(model.head(whole), targets).item()


def test_the_heads_confidence_becomes_that_of_training_mode():
    model, data = Normalised(0.0, 6.0), noisy(0.7)
    before, buffers = training_loss(model, data), {n: b.clone() for n, b in model.named_buffers()}
    model.train()
    calibrate(model, data, build_task("multiclass", data.classes), torch.device("cpu"))
    weight = model.head.linear.weight.detach()
    assert 0.6 < float(weight[0, 0]) < 5.0
    assert torch.equal(weight, weight[0, 0] * torch.eye(2))
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
    assert training_loss(model, data) < before - 0.2


def test_a_head_is_never_made_surer_and_without_batch_statistics_stays():
    model, data = Normalised(0.0, 0.05), noisy(4.0)
    task = build_task("multiclass", data.classes)
    calibrate(model.train(), data, task, torch.device("cpu"))
    assert float(model.head.linear.weight.detach()[0, 0]) == pytest.approx(0.05)
    sure = Normalised(0.0, 6.0).eval()
    calibrate(sure, noisy(0.0), task, torch.device("cpu"))
    assert float(sure.head.linear.weight.detach()[0, 0]) == 6.0


def test_a_head_whose_modes_in_training_are_those_that_it_was_fitted_in_stays_as_it_is():
    model = Normalised(0.0, 6.0)
    model.backbone = torch.nn.Sequential(model.backbone).train()
    model.backbone[0].eval()
    task = build_task("multiclass", ("a", "b"))
    calibrate(model, noisy(0.0), task, torch.device("cpu"))
    assert float(model.head.linear.weight.detach()[0, 0]) == 6.0


def test_a_head_that_knows_nothing_of_training_mode_is_refused_with_numbers():
    model, data = Normalised(0.0, -200.0), noisy(3.0)
    numbers = r"loss is \d+\.\d\d, and \d+\.\d\d at 0\.1 of .* guessing has 0\.69; use batchnorm"
    with pytest.raises(ConfigError, match=numbers):
        calibrate(model.train(), data, build_task("multiclass", data.classes), torch.device("cpu"))
    assert float(model.head.linear.weight.detach()[0, 0]) == -200.0
