"""Options, choices and defaults that several commands share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from model.network import NetworkConfig

DEFAULT_COCO = Path("COCO")
DEFAULT_CACHE = Path("data/cache")
DEFAULT_RUN = Path("runs/latest")

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

IMAGES_HELP = (
    "Which images count: with a person annotation, with a person that has keypoints, with at least ten labelled "
    "keypoints, or all."
)
CONTENT_HELP = "Read the photos to find those that changed and kept their size."
LOADERS = click.Choice(["auto", "native", "dali", "resident"])
RULES = click.Choice(["person", "keypoints", "keypoints10", "all"])
NETWORKS = click.Choice(["unet", "attention_unet", "resunet"])
LOSSES = click.Choice(["bce_dice", "focal_dice", "bce", "dice", "focal"])
PRECISIONS = click.Choice(["fp32", "bf16", "fp16"])


def coco_or_cache(command: Any) -> Any:
    """The options `--coco`, `--cache` and `--json` of the commands that look."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text."),
        click.option("--cache", type=FOLDER, help="Look at this cache."),
        click.option("--coco", type=FOLDER, help=f"Look at this dataset.  [default: {DEFAULT_COCO} if no --cache]"),
    ):
        command = option(command)
    return command


def network_of(base: NetworkConfig, name: Any, width: int | None) -> NetworkConfig:
    """A profile's network with what was asked for on top."""
    return dataclasses.replace(base, name=name or base.name, width=base.width if width is None else width)
