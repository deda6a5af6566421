"""How well an order mixes the shards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def pairs_of_one_shard(order: I64, shard_of: I64, batch_size: int) -> float:
    """Share of the pairs of samples of a batch that come from the same shard.

    What this costs follows from it: if samples of a shard resemble each other with an intraclass correlation of r, the
    mean over a batch varies 1 + r * (batch_size - 1) * (this share) times as much as of independent samples (the design
    effect of cluster sampling: Kish, "Survey Sampling", 1965).

    Args:
        order: `(samples,)` sample numbers of an epoch.
        shard_of: `(samples,)` shard of each sample.
        batch_size: at least 2; what is left at the end does not count.
    """
    batches = len(order) // batch_size
    shards = np.sort(shard_of[order[: batches * batch_size]].reshape(batches, batch_size), axis=1)
    # In a sorted batch a shard that comes n times has n - 1 neighbours at distance 1, n - 2 at distance 2, and so on.
    alike = sum(int((shards[:, far:] == shards[:, :-far]).sum()) for far in range(1, batch_size))
    return alike / (batches * batch_size * (batch_size - 1) / 2)


def most_shards_at_a_time(order: I64, shard_of: I64) -> int:
    """How many shards an epoch needs at the same time at most: each from its first sample to its last."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    by_shard = np.argsort(shard_of, kind="stable")
    begins = np.flatnonzero(np.diff(shard_of[by_shard], prepend=-1))
    first = np.minimum.reduceat(place[by_shard], begins)
    last = np.maximum.reduceat(place[by_shard], begins)
    change = np.zeros(len(order) + 1, np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    return int(np.cumsum(change).max())
