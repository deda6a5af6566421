"""`cli.py quick`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cache.messages import message
from commands import options


@click.command(
    short_help=message("Check that all files are there, in a second."),
    help=message(
        "Check that all files of a dataset or a cache are there. This takes a second: it reads names and sizes only."
    ),
)
@options.coco_or_cache
def quick(coco: Path | None, cache: Path | None, as_json: bool) -> None:

    from console.inspect import show_structure
    from preprocess.structure import check_cache, check_structure

    found = {}
    if coco or not cache:
        found["coco"] = check_structure(coco or options.DEFAULT_COCO)
    if cache:
        found["cache"] = check_cache(cache)
    ok = all(check.ok for checks in found.values() for check in checks)
    if as_json:
        click.echo(options.as_json_text({"ok": ok, **found}))
    else:
        for checks in found.values():
            show_structure(checks)
    if not ok:
        sys.exit(1)
