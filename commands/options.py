"""Options, choices and defaults that several commands share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.language import _, message

if TYPE_CHECKING:
    from model.network import NetworkConfig
    from preprocess.quality import QualityThresholds

DEFAULT_COCO = Path("COCO")
DEFAULT_CACHE = Path("data/cache")
DEFAULT_RUN = Path("runs/latest")


class LocalFolder(click.Path):
    """A folder of this machine; a URL is refused here, and not taken for a folder of that name."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """See `click.ParamType`."""
        place = _place(value)
        if not isinstance(place, str | Path):
            said = _("{value} is in object storage, and this has to be a folder of this machine")
            self.fail(said.format(value=value), param, context)
        return super().convert(place, param, context)


class CachePlace(LocalFolder):
    """A folder of this machine, or a URL as `s3://bucket/cache`."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """See `click.ParamType`."""
        place = _place(value)
        return super().convert(place, param, context) if isinstance(place, str | Path) else place


def _place(value: Any) -> Any:
    """A URL as `cache.place` has it, everything else as it was given."""
    if not isinstance(value, str) or "://" not in value:
        return value
    from cache.place import place

    return place(value)


FOLDER = LocalFolder()
CACHE = CachePlace()
FILE = click.Path(dir_okay=False, path_type=Path)
CHECKPOINT = click.Path(path_type=Path)
"""What is there is looked at when it is loaded, which can say what else it is."""

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
        click.option("--cache", type=CACHE, help="Look at this cache."),
        click.option("--coco", type=FOLDER, help=f"Look at this dataset.  [default: {DEFAULT_COCO} if no --cache]"),
    ):
        command = option(command)
    return command


def photo_options(command: Any) -> Any:
    """The options `--orientation` and `--outside` of the commands that read a dataset's photos."""
    for option in (
        click.option("--outside", is_flag=True, help="Allow file names that lead out of the dataset's folder."),
        click.option(
            "--orientation",
            type=click.Choice(["auto", "stored", "upright"]),
            default="auto",
            show_default=True,
            help="Whether annotations were drawn on the stored pixels or on the photo turned upright by its EXIF. auto "
            "decides by the sizes in the JSON; photos whose sizes leave it open are rejected.",
        ),
    ):
        command = option(command)
    return command


def network_of(base: NetworkConfig, name: Any, width: int | None) -> NetworkConfig:
    """A profile's network with what was asked for on top."""
    return dataclasses.replace(base, name=name or base.name, width=base.width if width is None else width)


def quality_thresholds(command: Any) -> Any:
    """The options `--min-coverage`, `--min-contrast`, `--min-edge` and `--min-resolution`."""
    for name, value, text in (
        (
            "resolution",
            70.0,
            message("Threshold of the score resolution: how wide in pixels persons are, as the network sees them."),
        ),
        ("edge", 50.0, message("Threshold of the score edge: how much of that difference lies at the outline.")),
        ("contrast", 60.0, message("Threshold of the score contrast: how far colours differ across the outline.")),
        ("coverage", 15.0, message("Threshold of the score coverage: percent of the photo that is person.")),
    ):
        option = click.option(
            f"--min-{name}",
            default=value,
            show_default=True,
            help=text,
        )
        command = option(command)
    return command


def thresholds_of(given: dict[str, Any]) -> QualityThresholds:
    """Take what these options were given out of a command's values."""
    from preprocess.quality import NAMES, QualityThresholds

    return QualityThresholds(**{name: given.pop(f"min_{name}") for name in NAMES})
