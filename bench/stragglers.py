"""How long many workers take for the shards of a build: a simulation, where arithmetic is not enough.

Each worker takes the next shard when it has finished one, as Dask's workers do. What is lost against the ideal, all
workers busy to the end, is the wait for the last shards, for slow workers, and work that died with its worker.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    """The machines of a cluster.

    Attributes:
        workers: how many shards are made at a time.
        slow: share of them that need `slowness` times as long for everything: a busy neighbour, a worn disk.
        slowness: see there.
        losses: workers lost, for each shard that is begun; the shard is begun anew by another.
        restart: seconds until a lost worker's place is taken.
    """

    workers: int
    slow: float = 0.0
    slowness: float = 1.0
    losses: float = 0.0
    restart: float = 60.0


def simulate(shard_seconds: F64, fleet: Fleet, seed: int = 0) -> float:
    """Seconds until the last shard is finished.

    Args:
        shard_seconds: `(N,)` what each shard takes on a worker that is not slow, in the order of the queue.
        fleet: who makes them.
        seed: of who is slow, and of what is lost when.
    """
    generator = np.random.default_rng(seed)
    factor = np.where(generator.random(fleet.workers) < fleet.slow, fleet.slowness, 1.0)
    free = [(0.0, worker) for worker in range(fleet.workers)]  # when each is free: a heap
    queue, last = deque(shard_seconds.tolist()), 0.0
    while queue:
        now, worker = heapq.heappop(free)
        seconds = queue.popleft()
        spent = seconds * factor[worker]
        if fleet.losses and generator.random() < fleet.losses:
            queue.append(seconds)
            now += generator.random() * spent + fleet.restart
        else:
            now += spent
            last = max(last, now)
        heapq.heappush(free, (now, worker))
    return last


def efficiency(shard_seconds: F64, fleet: Fleet, seed: int = 0) -> float:
    """Share of the workers' time that goes into shards that are kept, if all of them were of usual speed: at most 1."""
    return float(shard_seconds.sum()) / fleet.workers / simulate(shard_seconds, fleet, seed)
