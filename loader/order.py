"""The order of samples: a pure function, so that a run can be stopped and resumed anywhere, on any backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import PurePath

import numpy as np

from cache.arrays import I64
from cache.choices import Order
from cache.storage import is_url


def resolve_order(order: Order, cache: PurePath, *, in_place: bool = False) -> Order:
    """The order that `auto` stands for: `windowed` where whole shards have to be fetched, else `global`."""
    return order if order != "auto" else "windowed" if is_url(cache) and not in_place else "global"


def epoch_order(samples: int, seed: int, epoch: int, *, shuffle: bool = True) -> I64:
    """`(samples,)` the sample numbers of an epoch: a permutation that depends on nothing but the arguments."""
    if not shuffle:
        return np.arange(samples, dtype=np.int64)
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(samples).astype(np.int64, copy=False)


def windowed_order(shard_of: I64, seed: int, epoch: int, *, window: int) -> I64:
    """`(samples,)` the sample numbers of an epoch, shuffled so that only about `window` shards are needed at a time.

    The shards come in a random order, and each sample at a random place within half a window before or behind the
    middle of its shard: so samples of `window` shards are mixed, and the window moves on by one shard at a time. At
    either end, where half of it would be empty, it is folded back. A window of all shards gives `epoch_order`.

    `shard_of`, `(samples,)`, is the shard of each sample, from 0 on. The order depends on nothing but the arguments.
    """
    shards = int(shard_of.max(initial=-1)) + 1
    if window >= shards:
        return epoch_order(len(shard_of), seed, epoch)
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    place = generator.permutation(shards)[shard_of] + 0.5
    place += window * (generator.random(len(shard_of)) - 0.5)
    place = shards - np.abs(shards - np.abs(place))
    return np.argsort(place, kind="stable").astype(np.int64, copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class BatchPlan:
    """The samples of a rank's next batch, `(batch_size,)`; those from `valid` on only fill up a ragged last one."""

    epoch: int
    samples: I64
    valid: int


def steps_in_epoch(samples: int, global_batch: int, *, drop_last: bool) -> int:
    """Batches of an epoch."""
    return samples // global_batch if drop_last else -(-samples // global_batch)


def plan_epoch(
    order: I64, *, epoch: int, batch_size: int, rank: int, world: int, consumed: int, drop_last: bool
) -> Iterator[BatchPlan]:
    """The batches of one rank from `consumed` samples (of all ranks) on.

    Each global batch is a run of the order; a rank takes its slice of it. So the global batches do not depend on the
    number of ranks as long as `batch_size * world` stays the same.
    """
    global_batch = batch_size * world
    for step in range(consumed // global_batch, steps_in_epoch(len(order), global_batch, drop_last=drop_last)):
        start = step * global_batch + rank * batch_size
        samples = order[start : start + batch_size]
        valid = len(samples)
        if valid < batch_size:
            samples = np.concatenate((samples, np.full(batch_size - valid, order[0])))
        yield BatchPlan(epoch, samples, valid)
