"""The moving average of weights, against the recursion written out."""

import torch
from torch import nn

from headstart.training.ema import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def names(model: nn.Module) -> frozenset[str]:
    return frozenset(model.state_dict())


def change(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn_like(tensor) if tensor.is_floating_point() else 1)


def test_the_average_follows_the_recursion():
    model = network()
    average = WeightAverage(model, names(model), decay=0.3)
    average.start()
    expected = {name: tensor.double().clone() for name, tensor in model.state_dict().items()}
    for step in range(1, 6):
        change(model, step)
        average.update()
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            old = expected[name]
            expected[name] = decay * old + (1 - decay) * tensor.double() if name != "1.num_batches_tracked" else tensor
    for name, tensor in average.averages().items():
        torch.testing.assert_close(tensor.double(), expected[name].double(), rtol=1e-5, atol=1e-6)


def test_what_stands_still_keeps_its_bits():
    model = network()
    average = WeightAverage(model, names(model), decay=0.9)
    average.start()
    for _ in range(20):
        average.update()
    assert all(torch.equal(average.averages()[name], tensor) for name, tensor in model.state_dict().items())


def test_showing_and_hiding_leaves_the_weights_as_they_were():
    model = network()
    average = WeightAverage(model, names(model), decay=0.9)
    average.start()
    change(model, 1)
    average.update()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average.show()
    assert torch.equal(model[0].weight, average.averages()["0.weight"])
    assert not torch.equal(model[0].weight, own["0.weight"])
    assert torch.equal(average.state_dict()["weights"]["0.weight"], own["0.weight"])
    average.hide()
    average.hide()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_a_restored_average_goes_on_as_if_it_had_never_stopped():
    model, other = network(), network()
    whole = WeightAverage(model, names(model), decay=0.9)
    whole.start()
    change(model, 1)
    whole.update()
    saved, averages = whole.state_dict(), {name: tensor.clone() for name, tensor in whole.averages().items()}
    other.load_state_dict(saved["weights"])
    resumed = WeightAverage(other, names(other), decay=0.9)
    resumed.load_state_dict(averages, saved["steps"])
    resumed.start()
    for each, kept in ((model, whole), (other, resumed)):
        change(each, 2)
        kept.update()
    assert all(torch.equal(tensor, resumed.averages()[name]) for name, tensor in whole.averages().items())
