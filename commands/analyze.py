"""`cli.py analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commands.options import DEFAULT_COCO, FILE, coco_or_cache
from commands.output import show_json


@click.command(short_help="What is in it? Statistics and a picture.")
@coco_or_cache
@click.option("--category", default="person", show_default=True, help="COCO category to count.")
@click.option(
    "--picture", type=FILE, default=Path("analysis.png"), show_default=True, help="Where to draw the histograms."
)
def analyze(coco: Path | None, cache: Path | None, as_json: bool, category: str, picture: Path) -> None:
    """What is in it? Images, persons, sizes, what each --images rule selects; and a picture of the distributions."""
    from cache.index import CacheIndex
    from cache.reader import CacheReader
    from console.histogram import draw_histograms
    from console.inspect import show_cache_statistics, show_statistics
    from preprocess.analyze import analyze as analyze_table
    from preprocess.analyze import analyze_cache, cache_distributions, distributions
    from preprocess.coco import annotation_file, load_persons
    from preprocess.sources import SPLIT_FOLDERS

    found: dict[str, dict[str, Any]] = {}
    drawn = []
    if coco or not cache:
        root, found["coco"] = coco or DEFAULT_COCO, {}
        for split, folder in SPLIT_FOLDERS.items():
            table = load_persons(annotation_file(root, folder), category)
            found["coco"][split] = analyze_table(table)
            drawn.append(distributions(table, split))
    if cache:
        found["cache"] = {}
        for split in CacheIndex.load(cache).splits:
            with CacheReader(cache, split) as reader:
                found["cache"][split] = analyze_cache(reader)
                if "coco" not in found:  # the picture is of one thing: the dataset if both are given
                    drawn.append(cache_distributions(reader))
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_histograms(drawn, picture, str(coco or cache or DEFAULT_COCO))
    if as_json:
        show_json({**found, "picture": picture})
        return
    for split, statistics in found.get("coco", {}).items():
        show_statistics(statistics, split)
    for statistics in found.get("cache", {}).values():
        show_cache_statistics(statistics)
    click.echo(f"🖼️  Picture: {picture}")
