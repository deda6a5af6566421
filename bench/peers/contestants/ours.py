"""Our loaders, in our own environment. Options: `cache`, its folder; `backend`; `level` of augmentation."""

from __future__ import annotations

from contextlib import ExitStack

from bench.peers.child import Feed
from bench.peers.task import Task
from loader.augment import LEVELS
from loader.batch import LoaderConfig
from loader.loader import open_loader


def open_feed(task: Task, stack: ExitStack) -> Feed:
    """A loader of one of our caches, in random order."""
    config = LoaderConfig(
        cache=task.folder / task.options["cache"],
        batch_size=task.batch_size,
        backend=task.options["backend"],
        augment=LEVELS[task.options.get("level", "none")],
        threads=task.threads,
    )
    loader = stack.enter_context(open_loader(config))
    return lambda: ((batch.image, batch.person, batch.ignore) for batch in loader)
