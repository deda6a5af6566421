"""`cli.py diff`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cache.messages import message
from commands import options
from commands.options import option


@click.command(
    short_help=message("List what has changed in the dataset since a cache was built."),
    help=message(
        "List what has changed in a dataset since CACHE was built from it, and which shards `preprocess` "
        "would rebuild.\n\n"
        "Nothing is written. The exit code is 1 if the cache is stale."
    ),
)
@click.argument("cache", type=options.FOLDER)
@option("--coco", type=options.FOLDER, default=options.DEFAULT_COCO, help=message("Compare with this dataset."))
@options.content
@options.as_json
def diff(cache: Path, coco: Path, content: bool, as_json: bool) -> None:

    from cache.index import CacheIndex
    from console.build import diff_lines
    from preprocess.changes import find_changes

    changes = find_changes(cache, coco, content=content)
    options.show(changes, lambda found: diff_lines(cache, coco, CacheIndex.load(cache).spec, found), as_json=as_json)
    if not all(change.none for change in changes):
        sys.exit(1)
