"""Collecting an epoch's outputs."""

import math

import pytest
import torch

from headstart.tasks import build_task
from headstart.tasks.predictions import EpochOutputs, Rows


@pytest.mark.parametrize("sizes", [[4] * 1000, [7, 7, 3], [1, 500, 2]], ids=["many", "last", "uneven"])
def test_rows_keep_their_order_in_few_blocks(sizes: list[int]):
    batches = [torch.randn(size, 3) for size in sizes]
    rows = Rows()
    for batch in batches:
        rows.append(batch)
    assert torch.equal(rows.all(), torch.cat(batches))
    assert len(rows.blocks) <= 8


def test_rows_of_another_type_or_width_start_anew():
    rows = Rows()
    for batch in (torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3)):
        rows.append(batch)
    assert rows.all().dtype == torch.float32
    rows = Rows()
    rows.append(torch.ones(2, 3))
    rows.append(torch.ones(2, 4))
    with pytest.raises(RuntimeError):
        rows.all()


def test_the_mean_loss_weighs_images_not_batches():
    collected = EpochOutputs()
    for size, loss in ((3, 1.0), (1, 5.0)):
        outputs = torch.zeros(size, 2, requires_grad=True)
        collected.add(outputs, torch.zeros(size).long(), torch.arange(size), torch.tensor(loss))
    found = collected.take(build_task("multiclass", ("a", "b")), differs=True)
    assert found == {"loss": pytest.approx(math.log(2)), "objective": 2.0, "acc": 1.0}
    assert collected.sizes == []
    assert collected.outputs.blocks == []
