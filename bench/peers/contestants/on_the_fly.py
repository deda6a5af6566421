"""The usual way: photos decoded, drawn with pycocotools and resized in every epoch. In our own environment.

Options: `coco`, the dataset's folder, and `photos`, how many of it.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.baseline import CocoMasks, OnTheFly, plain_loader
from bench.peers.child import Feed
from bench.peers.task import Task
from cache.spec import CacheSpec
from preprocess.build.plan import read_split


def open_feed(task: Task, _stack: ExitStack) -> Feed:
    """A DataLoader in worker processes."""
    coco = Path(task.options["coco"])
    split = read_split(coco, "train", CacheSpec(side=task.side, limit=task.options["photos"]))
    paths = [Path(split.photo(row)) for row in split.rows]
    dataset = OnTheFly(paths, CocoMasks(coco, split), task.side, task.samples)
    loader = plain_loader(dataset, task.batch_size, task.threads)
    return lambda: loader
