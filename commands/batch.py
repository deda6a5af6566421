"""`cli.py batch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from commands.options import DEFAULT_CACHE, FILE, FOLDER, LOADERS, photo_options
from commands.output import show_json
from console.language import _

MOST_COLUMNS = 6
"""Samples in the gallery of `batch --gallery`."""


@click.command(short_help="What does a batch look like? A contact sheet.")
@click.option("--cache", type=FOLDER, default=DEFAULT_CACHE, show_default=True, help="The cache's folder.")
@click.option(
    "--coco",
    type=FOLDER,
    help="Look at this dataset instead: a few of its images go through a small cache of their own.",
)
@photo_options
@click.option("--split", default="train", show_default=True, help="train or val.")
@click.option("--batch-size", default=16, show_default=True, help="Samples in the batch.")
@click.option(
    "--augment",
    type=click.Choice(["none", "light", "heavy"]),
    default="light",
    show_default=True,
    help="How strongly to augment.",
)
@click.option("--loader", type=LOADERS, default="auto", show_default=True, help="Which loader.")
@click.option("--seed", default=0, show_default=True, help="Of order and augmentation.")
@click.option(
    "--picture", type=FILE, default=Path("batch.png"), show_default=True, help="Where to draw the contact sheet."
)
@click.option(
    "--gallery", is_flag=True, help="Draw what each augmentation level makes of the first few samples of --cache."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def batch(
    cache: Path,
    coco: Path | None,
    orientation: Any,
    outside: bool,
    picture: Path,
    gallery: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """What does a batch look like? Draws one, augmented, with its masks over it."""
    from console.batch import batch_lines, draw_batch, draw_dataset_batch, draw_gallery

    if gallery:
        if coco:
            raise click.UsageError(_("--gallery needs a --cache, not --coco; make one with `preprocess`"))
        del options["augment"]  # all of them
        draw_gallery(cache, picture, **{**options, "batch_size": min(options["batch_size"], MOST_COLUMNS)})
        said = _("🖼️  Picture: {path}").format(path=picture)
        click.echo(json.dumps({"picture": str(picture)}) if as_json else said)
        return
    if coco:
        summary = draw_dataset_batch(coco, picture, orientation=orientation, outside=outside, **options)
    else:
        summary = draw_batch(cache, picture, **options)
    if as_json:
        show_json(summary)
    else:
        click.echo("\n".join(batch_lines(summary)))
