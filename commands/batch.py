"""`cli.py batch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.choices import Backend, Level
from cache.messages import message
from commands import options
from commands.options import FOLDER, option
from console.language import _

if TYPE_CHECKING:
    from preprocess.dataset import Location

MOST_COLUMNS = 6
"""Samples in the gallery of `batch --gallery`."""


@click.command(
    short_help=message("Draw one augmented batch as a contact sheet."),
    help=message("Draw one augmented batch with its masks over the images, as a contact sheet."),
)
@option("--cache", "Take the batch from this cache.", type=FOLDER, default=options.DEFAULT_CACHE)
@options.dataset(
    "Options",
    option(
        "--coco",
        "Take the batch from this dataset: a small cache is built of a few of its images.",
        type=options.DATASET,
    ),
)
@options.category
@options.photos
@option("--split", "Take the batch from this split, train or val.", default="train")
@option("--batch-size", "Put this many images in the batch.", default=16)
@option("--augment", "Augment images this strongly.", type=Level, default="light")
@option("--loader", "Load with this backend.", type=Backend, default="auto")
@option("--seed", "Seed the order and the augmentation.", default=0)
@option("--picture", "Write the contact sheet to this file.", type=options.FILE, default=Path("batch.png"))
@option("--gallery", "Draw what each augmentation level makes of the first few samples of --cache.", is_flag=True)
@options.as_json
def batch(cache: Path, coco: Location | None, picture: Path, gallery: bool, as_json: bool, **given: Any) -> None:
    from cache.spec import CacheSpec
    from console.batch import draw_batch, draw_dataset_batch, draw_gallery
    from console.render import rendered

    of_dataset = {name: given.pop(name) for name in ("category", "val_share", "orientation", "outside")}
    if gallery:
        if coco:
            raise click.UsageError(_("--gallery needs a --cache, not --coco; make one with `preprocess`"))
        del given["augment"]  # it shows all levels
        draw_gallery(cache, picture, **{**given, "batch_size": min(given["batch_size"], MOST_COLUMNS)})
        said = [_("🖼️  Picture: {path}", path=picture)]
        options.show({"picture": picture}, lambda _picture: said, as_json=as_json)
        return
    if coco:
        spec = CacheSpec(side=256, limit=given["batch_size"], **of_dataset)
        summary = draw_dataset_batch(coco, picture, spec, **given)
    else:
        summary = draw_batch(cache, picture, **given)
    options.show(summary, lambda found: rendered("batch", summary=found), as_json=as_json)
