"""How many shards are at hand already when an epoch needs them: a simulation of a folder that holds a part of them."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np


def share_at_hand(shards: int, kept: int, *, epochs: int, seed: int = 0) -> float:
    """Share of the shards of an epoch that are in the folder still, once it is full.

    Each epoch needs each shard once, in a random order of its own, as the windowed order does; the folder lets go of
    that which was not needed for longest, as `cache.shard_folder` does.

    Args:
        shards: of the cache, all of the same size.
        kept: for how many the folder has room.
        epochs: after the first one, that are counted.
        seed: of the orders.
    """
    generator = np.random.default_rng(seed)
    folder: OrderedDict[int, None] = OrderedDict()
    found = 0
    for epoch in range(epochs + 1):
        for shard in generator.permutation(shards).tolist():
            if shard in folder:
                found += epoch > 0
                folder.move_to_end(shard)
                continue
            if len(folder) == kept:
                folder.popitem(last=False)
            folder[shard] = None
    return found / (epochs * shards)
