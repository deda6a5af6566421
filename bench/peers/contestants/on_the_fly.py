"""The usual way: photos decoded, drawn with pycocotools and resized in every epoch. In our own environment.

Options: `coco`, the dataset's folder, and `photos`, how many of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from bench.baseline import CocoMasks, OnTheFly, plain_loader
from bench.peers.feed import Feed
from bench.peers.task import Task
from cache.spec import CacheSpec
from preprocess.sources import read_split


@contextmanager
def open_feed(task: Task) -> Iterator[Feed]:
    """A DataLoader in worker processes."""
    coco = Path(task.options["coco"])
    split = read_split(coco, "train", CacheSpec(side=task.side, limit=task.options["photos"]))
    paths = [Path(split.photo(row)) for row in split.rows]
    dataset = OnTheFly(paths, CocoMasks(coco, split), task.side, task.samples)
    loader = plain_loader(dataset, task.batch_size, task.threads)
    yield Feed(lambda: loader, f"pycocotools {version('pycocotools')}")
