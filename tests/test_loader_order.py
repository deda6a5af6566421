import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cache.storage import place
from loader.order import epoch_order, plan_epoch, resolve_order, steps_in_epoch, windowed_order

MANY = settings(derandomize=True, database=None, deadline=None, max_examples=150)

shard_sizes = st.lists(st.integers(0, 9), min_size=1, max_size=40)
seeds = st.integers(0, 2**32 - 1)


def shards_of(sizes):
    """The shard of each sample, as in a sample table."""
    return np.repeat(np.arange(len(sizes)), sizes)


def plans(n, *, batch, rank=0, world=1, consumed=0, drop_last=True, epoch=0):
    order = epoch_order(n, seed=3, epoch=epoch)
    return list(
        plan_epoch(order, epoch=epoch, batch_size=batch, rank=rank, world=world, consumed=consumed, drop_last=drop_last)
    )


def test_order_is_a_pure_permutation():
    first = epoch_order(1000, seed=3, epoch=5)
    np.testing.assert_array_equal(first, epoch_order(1000, seed=3, epoch=5))
    np.testing.assert_array_equal(np.sort(first), np.arange(1000))
    assert (first != epoch_order(1000, seed=3, epoch=6)).any()
    assert (first != epoch_order(1000, seed=4, epoch=5)).any()
    np.testing.assert_array_equal(epoch_order(9, seed=3, epoch=5, shuffle=False), np.arange(9))


@MANY
@given(sizes=shard_sizes, seed=seeds, epoch=st.integers(0, 1000), window=st.integers(1, 50))
def test_the_windowed_order_is_a_permutation_that_depends_on_nothing_else(sizes, seed, epoch, window):
    shard_of = shards_of(sizes)
    order = windowed_order(shard_of, seed, epoch, window=window)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(len(shard_of)))
    np.random.default_rng(0).random(3)
    np.testing.assert_array_equal(order, windowed_order(shard_of.astype("<i4"), seed, epoch, window=window))


@MANY
@given(sizes=shard_sizes, seed=seeds, window=st.integers(1, 50))
def test_no_more_shards_than_the_window_and_one_are_open_at_a_time(sizes, seed, window):
    shard_of = shards_of(sizes)
    shards = shard_of[windowed_order(shard_of, seed, 0, window=window)]
    steps = np.arange(len(shards))
    spans = [(steps[shards == shard].min(), steps[shards == shard].max()) for shard in np.unique(shards)]
    open_at = sum(((steps >= first) & (steps <= last)).astype(int) for first, last in spans)
    assert np.max(open_at, initial=0) <= window + 1


@MANY
@given(sizes=shard_sizes, seed=seeds, epoch=st.integers(0, 9), more=st.integers(0, 5))
def test_a_window_of_all_shards_is_the_global_order(sizes, seed, epoch, more):
    shard_of = shards_of(sizes)
    order = windowed_order(shard_of, seed, epoch, window=len(sizes) + more)
    np.testing.assert_array_equal(order, epoch_order(len(shard_of), seed, epoch))


def test_the_windowed_order_changes_with_seed_and_epoch_and_mixes_its_window():
    shard_of = shards_of([50] * 100)
    orders = [windowed_order(shard_of, seed, epoch, window=16) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    firsts = [shard_of[order[:50]] for order in orders]
    assert len({tuple(first.tolist()) for first in firsts}) == 3
    for order in orders:
        shards = shard_of[order]
        alike = (shards[1:] == shards[:-1]).mean()  # neighbours of one shard: 1 in 16 by chance, in a perfect mixture
        assert 0.8 / 16 < alike < 1.5 / 16
        # A sample lies anywhere in its window: as far from its shard's middle as a uniform number is from its mean.
        places = np.empty(len(order))
        places[order] = np.arange(len(order)) / 50
        spread = np.sqrt(np.mean([places[shard_of == shard].var() for shard in range(100)]))
        assert spread == pytest.approx(16 / np.sqrt(12), rel=0.1)


def test_auto_is_windowed_where_whole_shards_are_fetched():
    url, here = place("s3://bucket/cache"), place("data/cache")
    assert (resolve_order("auto", url), resolve_order("auto", here)) == ("windowed", "global")
    assert resolve_order("auto", url, in_place=True) == "global"
    assert [resolve_order(order, each) for order in ("global", "windowed") for each in (url, here)] == [
        *("global", "global"),
        *("windowed", "windowed"),
    ]


@pytest.mark.parametrize(("world", "batch"), [(1, 16), (2, 8), (8, 2)])
def test_ranks_are_disjoint_and_together_the_same_global_batches(world, batch):
    whole = plans(100, batch=16)
    ranks = [plans(100, batch=batch, rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(whole)} == {6}
    for step, plan in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([rank[step].samples for rank in ranks]), plan.samples)


@MANY
@given(
    sizes=shard_sizes, seed=seeds, window=st.integers(1, 50), windowed=st.booleans(), drop_last=st.booleans(),
    each=st.integers(1, 3), worlds=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4), data=st.data(),
)  # fmt: skip
def test_an_epoch_is_the_same_however_often_the_number_of_ranks_changes_in_it(
    sizes, seed, window, windowed, drop_last, each, worlds, data
):
    """Global batches are the order cut into pieces, each sample once, whoever takes which part of which of them."""
    shard_of = shards_of(sizes)
    n, batch = len(shard_of), 8 * each
    assume(n)
    order = windowed_order(shard_of, seed, 1, window=window) if windowed else epoch_order(n, seed, 1)
    steps, step, seen = steps_in_epoch(n, batch, drop_last=drop_last), 0, []
    for part, world in enumerate(worlds):
        until = steps if part == len(worlds) - 1 else data.draw(st.integers(step, steps))
        consumed = step * batch
        ranks = [
            list(
                plan_epoch(
                    order, epoch=1, batch_size=batch // world, rank=rank, world=world, consumed=consumed,
                    drop_last=drop_last,
                )
            )[: until - step]
            for rank in range(world)
        ]  # fmt: skip
        assert {len(plans) for plans in ranks} == {until - step}
        for plans in zip(*ranks, strict=True):
            assert {len(plan.samples) for plan in plans} == {batch // world}
            seen += [sample for plan in plans for sample in plan.samples[: plan.valid].tolist()]
        step = until
    assert seen == order[: steps * batch].tolist()


@pytest.mark.parametrize("n", [1, 5, 16, 17, 31, 33])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_ragged_end_is_filled_up_and_counted(n, world):
    order = epoch_order(n, seed=3, epoch=0)
    seen = []
    for rank in range(world):
        for plan in plans(n, batch=4, rank=rank, world=world, drop_last=False):
            assert len(plan.samples) == 4
            seen += plan.samples[: plan.valid].tolist()
    assert sorted(seen) == sorted(order.tolist())
    assert steps_in_epoch(n, 4 * world, drop_last=False) == -(-n // (4 * world))
