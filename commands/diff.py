"""`cli.py diff`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from commands.options import CONTENT_HELP, DEFAULT_COCO, FOLDER
from commands.output import show_json


@click.command(short_help="What has changed since a cache was made?")
@click.argument("cache", type=FOLDER)
@click.option("--coco", type=FOLDER, default=DEFAULT_COCO, show_default=True, help="What it was made from.")
@click.option("--content", is_flag=True, help=CONTENT_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def diff(cache: Path, coco: Path, content: bool, as_json: bool) -> None:
    """What has changed in a dataset since CACHE was made from it, and which shards `preprocess` would make again.

    Writes nothing. Exits with 1 if the cache is stale.
    """
    from cache.index import CacheIndex
    from console.build import diff_lines
    from preprocess.changes import find_changes

    changes = find_changes(cache, coco, content=content)
    if as_json:
        show_json(changes)
    else:
        click.echo("\n".join(diff_lines(cache, coco, CacheIndex.load(cache).spec, changes)))
    if not all(change.none for change in changes):
        sys.exit(1)
