"""Order as a function of seed and epoch, alone and shared between processes."""

import math
from collections import Counter

import numpy as np
import pytest

from headstart.data.sampler import EpochSampler, EvenBatches


def drawn(epoch: int = 0, length: int = 23, **choices: int | bool) -> list[int]:
    sampler = EpochSampler(length, **({"seed": 1, "shuffle": True} | choices))
    sampler.set_epoch(epoch)
    pairs = list(sampler)
    assert {pair[0] for pair in pairs} == {epoch}
    assert len(pairs) == len(sampler)
    return [pair[1] for pair in pairs]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert drawn(3) == drawn(3)
    assert sorted(drawn(3)) == list(range(23))
    assert len({tuple(drawn(epoch, seed=seed)) for epoch in range(3) for seed in range(3)}) == 9


def test_the_order_is_pinned() -> None:
    """Another version of NumPy must not change every result silently."""
    assert drawn(2, length=8, seed=5) == [4, 7, 6, 0, 1, 5, 2, 3]


def test_evaluation_keeps_the_order() -> None:
    assert drawn(4, shuffle=False) == list(range(23))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_training_shards_are_equally_long_and_cover_everything(world_size: int) -> None:
    shards = [drawn(1, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    counts = Counter(index for shard in shards for index in shard)
    assert set(counts) == set(range(23))
    assert sum(counts.values()) - 23 < world_size


def test_training_shards_without_repeats() -> None:
    shards = [drawn(1, rank=rank, world_size=4, drop_last=True) for rank in range(4)]
    assert [len(shard) for shard in shards] == [5] * 4
    assert max(Counter(index for shard in shards for index in shard).values()) == 1


def test_together_the_processes_see_the_order_of_one() -> None:
    shards = [drawn(1, length=24, rank=rank, world_size=2) for rank in range(2)]
    assert [index for pair in zip(*shards, strict=True) for index in pair] == drawn(1, length=24)


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 32, 33, 153])
@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_shards_have_each_image_once_in_equally_many_batches(length: int, world_size: int) -> None:
    batches = [
        list(EvenBatches(EpochSampler(length, seed=0, shuffle=False, rank=rank, world_size=world_size), 8))
        for rank in range(world_size)
    ]
    seen = [index for shard in batches for batch in shard for _, index in batch]
    assert sorted(seen) == list(range(length)) if length >= world_size else set(seen) == set(range(length))
    assert all(1 <= len(batch) <= 8 for shard in batches for batch in shard)
    assert len({len(shard) for shard in batches}) == 1


@pytest.mark.parametrize(("length", "world_size", "batch_size"), [(2, 3, 8), (1, 4, 1), (7, 3, 1), (9, 4, 2)])
def test_a_process_without_enough_images_repeats_one(length: int, world_size: int, batch_size: int) -> None:
    """It must neither wait for the others nor let them wait."""
    batches = [
        list(EvenBatches(EpochSampler(length, seed=0, shuffle=False, rank=rank, world_size=world_size), batch_size))
        for rank in range(world_size)
    ]
    assert {len(shard) for shard in batches} == {math.ceil(math.ceil(length / world_size) / batch_size)}
    assert {index for shard in batches for batch in shard for _, index in batch} == set(range(length))
    assert all(1 <= len(batch) <= batch_size for shard in batches for batch in shard)


def test_rank_must_be_below_world_size() -> None:
    with pytest.raises(ValueError, match="rank 2"):
        EpochSampler(3, seed=0, shuffle=True, rank=2, world_size=2)


UNEVEN = np.repeat([0, 1, 2], [40, 4, 10])[np.random.default_rng(0).permutation(54)]


def balanced(epoch: int = 0, **choices: int) -> list[int]:
    sampler = EpochSampler(54, **({"seed": 1, "shuffle": True, "classes": UNEVEN} | choices))
    sampler.set_epoch(epoch)
    return [index for _, index in sampler]


def test_a_balanced_epoch_has_every_class_equally_often() -> None:
    for epoch in range(4):
        indices = balanced(epoch)
        assert len(indices) == len(set(indices)) == 54
        times = Counter(index % 54 for index in indices)
        assert [sum(times[int(place)] for place in np.flatnonzero(one == UNEVEN)) for one in range(3)] == [18] * 3
        # Nothing of a large class comes twice, and all of a small one equally often, to one.
        assert [{times[int(place)] for place in np.flatnonzero(one == UNEVEN)} for one in (1, 2)] == [{4, 5}, {1, 2}]
        assert max(times[int(place)] for place in np.flatnonzero(UNEVEN == 0)) == 1
        repetitions = sorted(index // 54 for index in indices if index % 54 == indices[0] % 54)
        assert repetitions == list(range(len(repetitions)))


def test_a_balanced_order_is_a_function_of_seed_and_epoch_and_is_pinned() -> None:
    assert balanced(3) == balanced(3)
    assert len({tuple(balanced(epoch, seed=seed)) for epoch in range(3) for seed in range(3)}) == 9
    seen = {index % 54 for epoch in range(12) for index in balanced(epoch)}
    assert seen == set(range(54))
    small = EpochSampler(6, seed=5, shuffle=True, classes=np.array([0, 0, 0, 0, 0, 1]))
    assert small.order(2).tolist() == [11, 1, 3, 17, 0, 5]


def test_what_cannot_be_divided_evenly_goes_around() -> None:
    sampler = EpochSampler(5, seed=0, shuffle=True, classes=np.array([0, 0, 0, 1, 2]))
    counts = [[(np.array([0, 0, 0, 1, 2])[sampler.order(e) % 5] == one).sum() for one in range(3)] for e in range(3)]
    assert all(sorted(count) == [1, 2, 2] for count in counts)
    assert np.sum(counts, axis=0).tolist() == [5, 5, 5]


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_a_balanced_order(drop_last: bool) -> None:
    shards = [balanced(2, rank=rank, world_size=4, drop_last=drop_last) for rank in range(4)]
    assert {len(shard) for shard in shards} == {13 if drop_last else 14}
    together = [index for turn in zip(*shards, strict=True) for index in turn]
    assert together == np.resize(balanced(2), len(together)).tolist()
