"""Extra losses against slow, independent versions: loops and NumPy instead of tensor operations."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones.contract import Backbone, FeatureSpec, Stage
from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError
from headstart.heads import Linear
from headstart.model.transfer_model import TransferModel
from headstart.strategies import BSS, L2SP, CoTuning, Delta, Step
from headstart.strategies.bss import spectral_penalty
from headstart.strategies.cotuning import direct_relationship, reverse_relationship, source_targets
from headstart.strategies.delta import FeatureMapPenalty, map_distance
from headstart.strategies.delta_attention import silencing
from headstart.strategies.distill import adapted, soft_divergence
from headstart.strategies.wise_ft import WiseFt, interpolate
from headstart.training.rates import optimizer_groups
from headstart.weights.report import SourceClassifier, WeightsReport


class Tiny(Backbone):
    """Two convolutions, a stage each."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "tiny"
        self.input_spec = InputSpec(height=6, width=6)
        self.features = FeatureSpec(4, (4, 2, 2), "NCHW")
        self.weights = WeightsReport("none")
        self.source_classifier = None
        self.one, self.two = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)
        self.stages = tuple(Stage(n, (f"{n}.weight", f"{n}.bias"), (), (n,), n) for n in ("one", "two"))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(images)))


@pytest.fixture
def model() -> TransferModel:
    torch.manual_seed(0)
    backbone = Tiny()
    return TransferModel(backbone, Linear(backbone.features, 3))


def moved(model: TransferModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def step_of(model: TransferModel, images: torch.Tensor, targets: torch.Tensor | None = None) -> Step:
    features = model.features(images)
    wanted = torch.zeros(len(images), dtype=torch.long) if targets is None else targets
    return Step(images, wanted, features, model.head(features), epoch=0)


def test_l2sp_is_the_squared_distance_from_the_start_and_the_heads_norm(model):
    start = {name: parameter.detach().clone() for name, parameter in model.backbone.named_parameters()}
    losses = L2SP(alpha=0.3, beta=0.05).losses(model)
    moved(model)
    step = step_of(model, torch.randn(2, 3, 6, 6))
    distance = norm = 0.0
    for name, parameter in model.backbone.named_parameters():
        for now, then in zip(parameter.flatten().tolist(), start[name].flatten().tolist(), strict=True):
            distance += (now - then) ** 2
    for parameter in model.head.parameters():
        norm += sum(value**2 for value in parameter.flatten().tolist())
    assert losses["l2sp"](step).item() == pytest.approx(0.3 / 2 * distance, rel=1e-5)
    assert losses["l2"](step).item() == pytest.approx(0.05 / 2 * norm, rel=1e-5)


def test_l2sp_pulls_towards_the_start(model):
    start = model.backbone.one.weight.detach().clone()
    penalty = L2SP(alpha=0.3).losses(model)["l2sp"]
    moved(model)
    penalty(step_of(model, torch.randn(1, 3, 6, 6))).backward()
    torch.testing.assert_close(model.backbone.one.weight.grad, 0.3 * (model.backbone.one.weight.detach() - start))


@pytest.mark.parametrize("strategy", [L2SP(), Delta()], ids=["l2sp", "delta"])
def test_a_penalty_takes_the_place_of_weight_decay(strategy, model):
    groups = optimizer_groups(strategy.phases(model.describe(), max_epochs=2), model.describe())
    assert [group.name for group in groups if group.decays] == []


def test_delta_compares_every_channel_of_every_stage_with_the_source(model):
    torch.manual_seed(1)
    source = Tiny()
    source.load_state_dict(model.backbone.state_dict())
    penalty = Delta(alpha=0.2).start(model, None).losses["delta"]
    moved(model)
    images = torch.randn(2, 3, 6, 6)
    value = penalty(step_of(model, images)).item()
    total = 0.0
    with torch.no_grad():
        pairs = [(model.backbone.one(images), source.one(images))]
        pairs.append((model.backbone.two(torch.relu(pairs[0][0])), source.two(torch.relu(pairs[0][1]))))
    for now, then in pairs:
        a, b = now.numpy(), then.numpy()
        for n in range(a.shape[0]):
            for c in range(a.shape[1]):
                squares = [(a[n, c, y, x] - b[n, c, y, x]) ** 2 for y in range(a.shape[2]) for x in range(a.shape[3])]
                total += sum(squares) / len(squares) / a.shape[0]
    assert value == pytest.approx(0.2 / 2 * total, rel=1e-4)


def test_delta_is_zero_at_the_start_and_keeps_nothing_between_steps(model):
    penalty = FeatureMapPenalty(model.backbone, 1.0)
    assert penalty(step_of(model, torch.randn(2, 3, 6, 6))).item() == 0.0
    assert penalty.seen == penalty.wanted == {}
    assert not any("source" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("shape", "axis"), [((2, 4, 3, 5), 1), ((2, 3, 5, 4), -1), ((2, 7, 4), 1), ((2, 4), 1)], ids=str
)
def test_delta_weighs_channels_in_every_layout(shape, axis):
    torch.manual_seed(0)
    a, b, weights = torch.randn(shape), torch.randn(shape), torch.rand(4)
    channels = a.ndim - 1 if a.ndim != 4 or axis == -1 else 1
    expected = 0.0
    for c in range(4):
        squares = (a.select(channels, c) - b.select(channels, c)).double().square()
        expected += weights[c].item() * squares.mean().item()
    assert map_distance(a, b, weights, axis=axis).item() == pytest.approx(expected, rel=1e-5)


def test_silencing_a_channel_is_what_it_costs_where_the_loss_is_linear():
    """To first order, so exact for a linear function of the map."""
    torch.manual_seed(0)
    maps, slope = torch.randn(2, 3, 2, 2, requires_grad=True), torch.randn(2, 3, 2, 2)
    loss = (maps * slope).sum()
    (gradient,) = torch.autograd.grad(loss, maps)
    found = silencing(maps.detach(), gradient, axis=1)
    for c in range(3):
        without = maps.detach().clone()
        without[:, c] = 0
        assert found[c].item() == pytest.approx(((without * slope).sum() - loss).item(), rel=1e-4)


@pytest.mark.parametrize(("shape", "k"), [((5, 8), 1), ((8, 5), 2), ((3, 4), 9)])
def test_bss_is_the_sum_of_squares_of_the_smallest_singular_values(shape, k):
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    # The squares of singular values are the eigenvalues of the smaller Gram matrix.
    small = features @ features.T if shape[0] < shape[1] else features.T @ features
    eigenvalues = np.sort(np.linalg.eigvalsh(small.astype(np.float64)))
    value = spectral_penalty(torch.from_numpy(features), eta=0.1, k=k).item()
    assert value == pytest.approx(0.1 * eigenvalues[:k].sum(), rel=1e-4)


def test_bss_looks_at_pooled_features(model):
    images = torch.randn(3, 3, 6, 6)
    step = step_of(model, images)
    value = BSS(eta=0.1, k=1).losses(model)["bss"](step)
    pooled = step.features.detach().mean(dim=(2, 3)).double().numpy()
    assert value.item() == pytest.approx(0.1 * np.linalg.svd(pooled)[1][-1] ** 2, rel=1e-4)
    value.backward()
    assert model.backbone.two.weight.grad.abs().sum() > 0


def kl(wanted: list[float], found: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(wanted, found, strict=True))


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def test_distillation_is_the_scaled_divergence_from_the_teacher():
    torch.manual_seed(0)
    teacher, student = torch.randn(4, 3), torch.randn(4, 3)
    expected = 0.0
    for t, s in zip(teacher.tolist(), student.tolist(), strict=True):
        expected += 9.0 * kl(softmax([v / 3 for v in t]), softmax([v / 3 for v in s])) / 4
    assert soft_divergence(teacher, student, 3.0).item() == pytest.approx(expected, rel=1e-4)
    assert soft_divergence(teacher, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-6)


def test_a_sigmoid_student_can_learn_from_a_softmax_teacher():
    logit = torch.tensor([[0.7], [-1.2]])
    both = torch.cat((torch.zeros(2, 1), logit), dim=1)
    assert soft_divergence(both, logit, 2.0).item() == pytest.approx(0.0, abs=1e-6)


def test_a_teacher_sees_images_in_its_own_normalisation_and_size():
    given = InputSpec(height=8, width=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    wanted = InputSpec(height=4, width=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    pixels = torch.rand(1, 3, 1, 1).expand(2, 3, 8, 8)
    stats = [torch.tensor(values).view(1, 3, 1, 1) for values in (given.mean, given.std, wanted.mean, wanted.std)]
    seen = adapted((pixels - stats[0]) / stats[1], given, wanted)
    torch.testing.assert_close(seen, ((pixels - stats[2]) / stats[3])[..., :4, :4])


def test_the_direct_relationship_is_each_classs_mean_probability():
    probabilities = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    found = direct_relationship(probabilities, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.3], [0.1, 0.9]]))


@pytest.mark.parametrize("relationship", [direct_relationship, reverse_relationship])
def test_of_a_class_without_training_images_nothing_is_known(relationship):
    probabilities = torch.softmax(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    found = relationship(probabilities, torch.arange(40) % 2 * 2, 3)
    assert found.shape == (3, 5)
    assert torch.equal(found[1], torch.full((5,), 0.2))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3))


def test_the_reverse_relationship_is_a_distribution_that_finds_what_belongs_together():
    generator = np.random.default_rng(0)
    targets = torch.arange(3).repeat(20)
    # Source classes 2c and 2c+1 belong to target class c; source class 6 to none.
    logits = generator.normal(size=(60, 7))
    for row, target in enumerate(targets.tolist()):
        logits[row, 2 * target + row % 2] += 5
    found = reverse_relationship(torch.softmax(torch.from_numpy(logits), dim=1), targets, 3)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3))
    for target in range(3):
        assert found[target, 2 * target : 2 * target + 2].sum() > 0.7


def test_bayes_rule_turns_the_regression_around():
    """With p(y_t | y_s) and p(y_s) as the regression and the mean give them, sums over joint probabilities."""
    from sklearn.linear_model import LogisticRegression

    probabilities = torch.softmax(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    targets = torch.tensor([0] * 11 + [1])  # one image of class 1: no cross-validation
    found = reverse_relationship(probabilities, targets, 2)
    regression = LogisticRegression(fit_intercept=False, max_iter=5000).fit(probabilities.double(), targets)
    joint = [[0.0] * 3 for _ in range(2)]
    for s in range(3):
        sure = [[1.0 if i == s else 0.0 for i in range(3)]]
        for t in range(2):
            joint[t][s] = regression.predict_proba(sure)[0][t] * probabilities[:, s].double().mean().item()
    for t in range(2):
        assert found[t].tolist() == pytest.approx([value / sum(joint[t]) for value in joint[t]], rel=1e-3)


def test_mixed_images_belong_to_mixed_source_classes():
    relationship = torch.tensor([[0.7, 0.3], [0.1, 0.9]])
    torch.testing.assert_close(source_targets(relationship, torch.tensor([1, 0])), relationship.flip(0))
    torch.testing.assert_close(source_targets(relationship, torch.tensor([[0.5, 0.5]])), torch.tensor([[0.4, 0.6]]))


def test_cotuning_needs_the_source_classifier(model):
    with pytest.raises(ConfigError, match="source task's classifier"):
        CoTuning().prepare(model, None)


def test_cotuning_trains_the_source_classifier_at_the_backbones_rate(model):
    model.backbone.source_classifier = SourceClassifier(torch.randn(5, 4), torch.randn(5))
    strategy = CoTuning(backbone_lr_mult=0.1)
    strategy.prepare(model, None)
    (phase,) = strategy.phases(model.describe(), max_epochs=2)
    rates = {group.name: group.lr_mult for group in phase.groups}
    assert rates == {"one": 0.1, "two": 0.1, "head": 1.0, "source_classifier": 0.1}
    assert phase.learning == {name for name, _ in model.named_parameters()}


def test_interpolation_is_exact_at_its_ends_and_linear_between():
    start = {"w": torch.tensor([1.0, 0.1]), "n": torch.tensor(3)}
    end = {"w": torch.tensor([3.0, 0.7]), "n": torch.tensor(5)}
    assert torch.equal(interpolate(start, end, 0.0)["w"], start["w"])
    assert torch.equal(interpolate(start, end, 1.0)["w"], end["w"])
    torch.testing.assert_close(interpolate(start, end, 0.25)["w"], torch.tensor([1.5, 0.25]))
    assert {alpha: interpolate(start, end, alpha)["n"].item() for alpha in (0.0, 0.5, 1.0)} == {0.0: 5, 0.5: 5, 1.0: 5}


def test_wise_ft_keeps_the_alpha_that_validates_best(model):
    extras = WiseFt(alphas=(0.0, 0.5, 1.0)).start(model, None)
    start = model.head.linear.bias.detach().clone()
    moved(model)
    end = model.head.linear.bias.detach().clone()
    halfway = (start + end) / 2
    chosen = extras.finish(model, lambda: -float((model.head.linear.bias - halfway).abs().sum().detach()))
    assert chosen["alpha"] == 0.5
    assert set(chosen["scores"]) == {"0.0", "0.5", "1.0"}
    torch.testing.assert_close(model.head.linear.bias.detach(), halfway)


def test_wise_ft_prefers_fine_tuned_weights_when_nothing_tells_them_apart(model):
    extras = WiseFt().start(model, None)
    moved(model)
    assert extras.finish(model, lambda: math.nan)["alpha"] == 1.0


def test_wise_ft_refuses_alphas_outside(model):
    with pytest.raises(ConfigError, match=r"strategy\.alphas"):
        WiseFt(alphas=(0.5, 1.5)).phases(model.describe(), max_epochs=2)


def test_one_strategy_serves_two_trainings_with_a_start_each(model):
    """What is remembered belongs to a training, not to the strategy."""
    strategy = WiseFt(alphas=(0.0,))
    starts = []
    for _ in range(2):
        moved(model)
        starts.append((model.head.linear.bias.detach().clone(), strategy.start(model, None)))
    for bias, extras in starts:
        moved(model)
        extras.finish(model, lambda: 1.0)
        assert torch.equal(model.head.linear.bias.detach(), bias)
    assert vars(strategy) == vars(WiseFt(alphas=(0.0,)))


def test_hooks_that_need_only_the_model_are_part_of_what_starts(model):
    extras = L2SP(alpha=0.3).start(model, None)
    assert set(extras.losses) == {"l2sp", "l2"}
    assert extras.scores == {}
    assert extras.finish(model, lambda: 1.0) == {}
