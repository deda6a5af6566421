"""`cli.py synth`."""

from __future__ import annotations

from pathlib import Path

import click

from cache.messages import message
from commands.options import FOLDER, option


@click.command(
    short_help=message("Draw a small dataset of people in the COCO layout."),
    help=message("Draw a small dataset of people into DIRECTORY, in the COCO layout."),
)
@click.argument("directory", type=FOLDER)
@option("--images", default=400, help=message("Draw this many images, train and val together."))
@option("--seed", default=0, help=message("Seed the drawing; the same seed gives the same pictures, bit for bit."))
def synth(directory: Path, images: int, seed: int) -> None:

    from console.build import synth_lines
    from console.language import _
    from console.progress import progress_bar
    from preprocess.synth import SynthConfig, make_dataset

    done = 0
    with progress_bar(_("Drawing")) as update:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            update(done, images)

        report = make_dataset(directory, SynthConfig(images=images, seed=seed), advance)
    click.echo("\n".join(synth_lines(report)))
