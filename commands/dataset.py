"""`cli.py download` and `synth`, which make a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from cache.choices import Split
from cache.messages import message
from commands import options
from commands.options import FOLDER, option
from console.language import _


@click.command(
    short_help=message("Download COCO 2017, or what is missing of it."),
    help=message(
        "Download COCO 2017, or what is missing of it: annotations, val2017 and train2017, 20 GB; 40 GB "
        "while unpacking.\n\n"
        "You can stop it at any time: the same command continues with the next byte. Sizes, hashes and "
        "checksums are compared with COCO's. Images and annotations that are already there are left alone, "
        "and a zip file of COCO beside them is unpacked instead of downloaded."
    ),
)
@option("--dir", "Put the dataset into this folder.", "root", type=options.FOLDER, default=options.DEFAULT_COCO)
@option(
    "--split", "Download this split; may be repeated.", "splits", type=Split, multiple=True, default=get_args(Split)
)
@option("--keep-archives", "Keep the zip files beside the dataset instead of deleting them.", is_flag=True)
@option("--base-url", "Download from a mirror at this URL.  [default: http://images.cocodataset.org]")
@options.as_json
def download(base_url: str | None, as_json: bool, **given: Any) -> None:
    from console.download import DownloadPrinter, download_lines
    from preprocess.download.coco import download_coco
    from preprocess.download.plan import BASE_URL, DownloadConfig

    config = DownloadConfig(base_url=BASE_URL if base_url is None else base_url, **given)
    options.show(download_coco(config, DownloadPrinter(config)), download_lines, as_json=as_json)


@click.command(
    short_help=message("Draw a small dataset of people in the COCO layout."),
    help=message("Draw a small dataset of people into DIRECTORY, in the COCO layout."),
)
@click.argument("directory", type=FOLDER)
@option("--images", "Draw this many images, train and val together.", default=400)
@option("--seed", "Seed the drawing; the same seed gives the same pictures, bit for bit.", default=0)
def synth(directory: Path, images: int, seed: int) -> None:
    from console.progress import progress_bar
    from console.render import rendered
    from preprocess.synth.dataset import SynthConfig, make_dataset

    with progress_bar(_("Drawing")) as update:
        report = make_dataset(directory, SynthConfig(images=images, seed=seed), update)
    click.echo("\n".join(rendered("synth", report=report)))
