"""Our loaders, in our own environment. Options: `cache`, its folder; `backend`; `level` of augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers.feed import Batch, Feed
from bench.peers.task import Task
from loader.augment import LEVELS
from loader.batch import LoaderConfig
from loader.loader import open_loader


@contextmanager
def open_feed(task: Task) -> Iterator[Feed]:
    """A loader of one of our caches, in random order."""
    config = LoaderConfig(
        cache=task.folder / task.options["cache"],
        batch_size=task.batch_size,
        backend=task.options["backend"],
        augment=LEVELS[task.options.get("level", "none")],
        threads=task.threads,
    )
    with open_loader(config) as loader:

        def epoch() -> Iterator[Batch]:
            for batch in loader:
                yield batch.image, batch.person, batch.ignore

        yield Feed(epoch, "maskcache")
