import numpy as np
import pytest

from loader.order import epoch_order, plan_epoch, steps_in_epoch


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


@pytest.mark.parametrize(("world", "batch"), [(1, 16), (2, 8), (8, 2)])
def test_ranks_are_disjoint_and_together_the_same_global_batches(world, batch):
    whole = plans(100, batch=16)
    ranks = [plans(100, batch=batch, rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(whole)} == {6}
    for step, plan in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([rank[step].samples for rank in ranks]), plan.samples)


def test_going_on_gives_the_batches_that_would_have_come():
    whole = plans(100, batch=16)
    rest = plans(100, batch=8, world=2, rank=1, consumed=48)
    assert len(rest) == 3
    for ours, full in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(ours.samples, full.samples[8:])


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
