"""Order of the rows and division among processes: every row is counted once."""

from __future__ import annotations

import pytest

from nailseg.data.samplers import EpochSampler, EqualSizeSampler, equal_size_batches
from nailseg.errors import ConfigError


def epoch_of(length: int, epoch: int, world_size: int = 1, seed: int = 0) -> list[list[tuple[int, int]]]:
    shares = []
    for rank in range(world_size):
        sampler = EpochSampler(length, seed, world_size, rank)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler)
    return shares


def test_every_row_once_per_epoch() -> None:
    (share,) = epoch_of(17, 3)
    assert sorted(row for _, row in share) == list(range(17))
    assert {epoch for epoch, _ in share} == {3}


def test_epochs_and_seeds_differ_and_repeat() -> None:
    orders = {
        tuple(row for _, row in epoch_of(17, epoch, seed=seed)[0]) for epoch in (0, 1) for seed in (0, 1)
    }
    assert len(orders) == 4
    assert epoch_of(17, 1) == epoch_of(17, 1)


@pytest.mark.parametrize("length", [8, 9, 11])
def test_processes_get_equal_and_disjoint_shares(length: int) -> None:
    shares = epoch_of(length, 0, world_size=4)
    rows = [row for share in shares for _, row in share]
    assert {len(share) for share in shares} == {2}
    assert len(set(rows)) == 8


def test_balanced_strata_are_drawn_equally_often() -> None:
    strata = ["a"] * 20 + ["b"] * 3 + ["c"]
    orders = {}
    for epoch in range(9):
        rows = []
        for rank in range(2):
            sampler = EpochSampler(24, 0, 2, rank, strata)
            sampler.set_epoch(epoch)
            share = [row for _, row in sampler]
            assert len(share) == len(sampler) == 12
            rows += share
        counts = {stratum: sum(strata[row] == stratum for row in rows) for stratum in "abc"}
        assert counts == {"a": 8, "b": 8, "c": 8}
        assert len({row for row in rows if strata[row] == "a"}) == 8
        assert {row for row in rows if strata[row] == "b"} == {20, 21, 22}
        orders[epoch] = tuple(rows)
    assert set.union(*map(set, orders.values())) == set(range(24))
    assert len(set(orders.values())) == 9


def test_each_epoch_leaves_out_other_rows() -> None:
    left_out = [
        {*range(9)} - {row for share in epoch_of(9, epoch, world_size=4) for _, row in share}
        for epoch in range(8)
    ]
    assert len(set.union(*left_out)) > 3


def test_fewer_rows_than_processes_gives_each_process_one() -> None:
    assert [len(share) for share in epoch_of(2, 0, world_size=3)] == [1, 1, 1]


SIZES = [(10, 20), (10, 20), (30, 30), (10, 20), (30, 30), (20, 10), (10, 20)]


def test_batches_hold_one_size_in_the_order_of_the_rows() -> None:
    assert equal_size_batches(SIZES, 2) == [[0, 1], [2, 4], [3, 6], [5]]
    assert equal_size_batches(SIZES, 3) == [[0, 1, 3], [2, 4], [5], [6]]


def test_large_images_make_small_batches() -> None:
    assert equal_size_batches(SIZES, 4, max_pixels=400) == [[0, 1], [2], [3, 6], [4], [5]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_row_is_evaluated_exactly_once(world_size: int, batch_size: int) -> None:
    shares = [EqualSizeSampler(SIZES, batch_size, world_size, rank) for rank in range(world_size)]
    rows = [row for share in shares for batch in share for row in batch]
    assert sorted(rows) == list(range(len(SIZES)))
    # a process without a batch would block the end of the epoch
    assert all(len(share) >= 1 for share in shares)
    assert all(len(list(share)) == len(share) for share in shares)


def test_evaluation_order_does_not_change_with_the_epoch() -> None:
    sampler = EqualSizeSampler(SIZES, 2)
    first = list(sampler)
    sampler.set_epoch(5)
    assert list(sampler) == first


def test_fewer_images_than_processes_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"each of the 3 processes, found 2.*--trainer.devices 2"):
        EqualSizeSampler(SIZES[:2], 8, world_size=3, rank=0)
