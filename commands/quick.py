"""`cli.py quick`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from commands.options import DEFAULT_COCO, coco_or_cache
from commands.output import show_json


@click.command(short_help="Is everything there? Names and sizes, in a second.")
@coco_or_cache
def quick(coco: Path | None, cache: Path | None, as_json: bool) -> None:
    """Is everything there? Looks at names and sizes only; takes a second."""
    from console.inspect import show_structure
    from preprocess.structure import check_cache, check_structure

    found = {}
    if coco or not cache:
        found["coco"] = check_structure(coco or DEFAULT_COCO)
    if cache:
        found["cache"] = check_cache(cache)
    ok = all(check.ok for checks in found.values() for check in checks)
    if as_json:
        show_json({"ok": ok, **found})
    else:
        for checks in found.values():
            show_structure(checks)
    if not ok:
        sys.exit(1)
