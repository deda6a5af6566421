"""`cli.py download`."""

from __future__ import annotations

from pathlib import Path

import click

from commands.options import DEFAULT_COCO, FOLDER
from commands.output import show_json


@click.command(short_help="Fetch COCO 2017, or what is missing of it.")
@click.option("--dir", "root", type=FOLDER, default=DEFAULT_COCO, show_default=True, help="Where to put it.")
@click.option(
    "--split",
    "splits",
    type=click.Choice(["train", "val"]),
    multiple=True,
    default=["train", "val"],
    help="Only this one; may be repeated.  [default: both]",
)
@click.option("--keep-archives", is_flag=True, help="Move the zip files there, too; else they go once unpacked.")
@click.option("--base-url", help="Of a mirror with the same files.  [default: http://images.cocodataset.org]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def download(root: Path, splits: tuple[str, ...], keep_archives: bool, base_url: str | None, as_json: bool) -> None:
    """Fetch COCO 2017, or what is missing of it: annotations, val2017 and train2017, 20 GB; 40 GB while unpacking.

    May be stopped at any time: the same command goes on with the next byte. Sizes, hashes and checksums are compared
    with COCO's. Images and annotations that are there are left alone; so is a zip file of COCO's beside them, which is
    unpacked instead of fetched.
    """
    from console.download import DownloadPrinter, download_lines
    from preprocess.download.coco import download_coco
    from preprocess.download.plan import BASE_URL, DownloadConfig

    config = DownloadConfig(
        root=root, splits=splits, keep_archives=keep_archives, base_url=BASE_URL if base_url is None else base_url
    )
    report = download_coco(config, DownloadPrinter(config))
    if as_json:
        show_json(report)
    else:
        click.echo("\n".join(download_lines(report)))
