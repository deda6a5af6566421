"""`cli.py synth`."""

from __future__ import annotations

from pathlib import Path

import click

from commands.options import FOLDER


@click.command(short_help="Make a small dataset of drawn people, COCO layout.")
@click.argument("directory", type=FOLDER)
@click.option("--images", default=400, show_default=True, help="How many, train and val together.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same pictures, bit for bit.")
def synth(directory: Path, images: int, seed: int) -> None:
    """Make a procedural dataset of people in the COCO layout."""
    from console.build import synth_lines
    from console.language import _
    from console.progress import progress_bar
    from preprocess.synth import SynthConfig, make_dataset

    config = SynthConfig(images=images, seed=seed)
    done = 0
    with progress_bar(_("Drawing")) as update:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            update(done, images)

        report = make_dataset(directory, config, advance)
    click.echo("\n".join(synth_lines(report)))
