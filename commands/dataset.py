"""`cli.py download`.

`cli.py synth`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from cache.choices import Split
from cache.messages import message
from commands import options
from commands.options import FOLDER, option


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
@option(
    "--dir",
    "root",
    type=options.FOLDER,
    default=options.DEFAULT_COCO,
    help=message("Put the dataset into this folder."),
)
@option(
    "--split",
    "splits",
    type=Split,
    multiple=True,
    default=get_args(Split),
    help=message("Download this split; may be repeated."),
)
@option(
    "--keep-archives", is_flag=True, help=message("Keep the zip files beside the dataset instead of deleting them.")
)
@option("--base-url", help=message("Download from a mirror at this URL.  [default: http://images.cocodataset.org]"))
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
@option("--images", default=400, help=message("Draw this many images, train and val together."))
@option("--seed", default=0, help=message("Seed the drawing; the same seed gives the same pictures, bit for bit."))
def synth(directory: Path, images: int, seed: int) -> None:

    from console.build import synth_lines
    from console.language import _
    from console.progress import progress_bar
    from preprocess.synth.dataset import SynthConfig, make_dataset

    done = 0
    with progress_bar(_("Drawing")) as update:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            update(done, images)

        report = make_dataset(directory, SynthConfig(images=images, seed=seed), advance)
    click.echo("\n".join(synth_lines(report)))
