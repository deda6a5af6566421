"""Options, choices and defaults that several commands share, and how a command prints its result."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from cache.choices import SPLITS, Device, ImageRule, NetworkName, Orientation, Precision
from console.language import _

DEFAULT_COCO = Path("COCO")
DEFAULT_CACHE = Path("data/cache")
DEFAULT_RUN = Path("runs/latest")

Decorator = Callable[[Any], Any]


class Location(click.Path):
    """A folder of this machine, or with `file` a file, or a URL such as `s3://bucket/cache`, which `local` refuses."""

    def __init__(self, *, local: bool = False, file: bool = False) -> None:
        super().__init__(file_okay=file, path_type=Path)
        self.local = local

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """See `click.ParamType`."""
        if isinstance(value, str) and "://" in value:
            from cache.storage import place

            value = place(value)
        if isinstance(value, str | Path):
            return super().convert(value, param, context)
        if self.local:
            said = _("{value} is in object storage, and this has to be a folder of this machine", value=value)
            self.fail(said, param, context)
        return value


FOLDER = Location(local=True)
CACHE = Location()
DATASET = Location(local=True, file=True)
"""A dataset's folder, or its `dataset.toml`."""
FILE = click.Path(dir_okay=False, path_type=Path)


class AliasedOption(click.Option):
    """An option with further spellings that are accepted and not shown."""

    def __init__(self, *arguments: Any, aliases: Sequence[str], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.aliases = list(aliases)

    def add_to_parser(self, parser: Any, context: click.Context) -> None:
        """See `click.Option`."""
        super().add_to_parser(parser, context)
        if self.aliases:
            shown, self.opts = self.opts, self.aliases
            super().add_to_parser(parser, context)
            self.opts = shown


def option(
    flag: str, help: str, *names: str, type: Any = None, aliases: Sequence[str] = (), **attributes: Any
) -> Decorator:
    """`click.option` with its help as the second argument, where Babel finds it, and with aliases that help hides.

    The type may be one of `cache.choices`.
    """
    choices = get_args(type)
    attributes |= {"cls": AliasedOption, "type": click.Choice(choices) if choices else type, "aliases": aliases}
    return click.option(flag, *names, help=help, **attributes)


def group(heading: str, *options: Decorator) -> Decorator:
    """Options as one decorator; the help of a `GroupedCommand` lists them in this order below a heading."""

    def decorate(command: Any) -> Any:
        known = len(getattr(command, "__click_params__", ()))
        for each in reversed(options):
            command = each(command)
        for parameter in command.__click_params__[known:]:
            parameter.heading = heading
        return command

    return decorate


class GroupedCommand(click.Command):
    """A command whose help lists its options in the groups of `group`, and those without one at the end."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """See `click.Command`."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            row = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if row:
                rows.setdefault(getattr(parameter, "heading", "Options"), []).append(row)
        for heading in sorted(rows, key="Options".__eq__):
            with formatter.section(_(heading)):
                formatter.write_dl(rows[heading])


def _newest_checkpoint(context: click.Context, _option: click.Parameter, named: Path | None) -> Path | None:
    """The checkpoint that was named, or else the best network of the newest run, or else the sample."""
    if named or context.resilient_parsing:
        return named
    from predict.config import SAMPLE, newest_checkpoint

    newest = newest_checkpoint()
    what = _("the sample network; train one of your own for better masks") if newest == SAMPLE else _("the newest run")
    click.echo(_("Checkpoint: {path} ({what})", path=newest, what=what), err=True)
    return newest


as_json = option("--json", "Print JSON instead of text.", "as_json", is_flag=True)
_FILES = (
    option("--train-json", "Read the annotations of train from this file.", type=FILE),
    option("--train-images", "Find the photos of train in this folder.", type=FOLDER),
    option("--val-json", "Read the annotations of val from this file.", type=FILE),
    option("--val-images", "Find the photos of val in this folder.", type=FOLDER),
)
"""The files of a dataset that has none of the known layouts."""


def dataset(heading: str, coco: Decorator, default: Path | None = None) -> Decorator:
    """The option `coco` and those that name a dataset's files one by one, as the command's one parameter `coco`.

    Without any of them it is the default.
    """

    def decorate(command: Any) -> Any:
        @functools.wraps(command)
        def with_dataset(*arguments: Any, coco: Path | None, **given: Any) -> Any:
            named = {
                f"{split}-{what}": path
                for split in SPLITS
                for what in ("json", "images")
                if (path := given.pop(f"{split}_{what}"))
            }
            if named:
                from preprocess.dataset import named_files

                return command(*arguments, coco=named_files(named, coco), **given)
            return command(*arguments, coco=coco or default, **given)

        return group(heading, coco, *_FILES)(with_dataset)

    return decorate


content = option("--content", "Read the photos to find those that changed and kept their size.", is_flag=True)
category = option(
    "--category",
    "Take the annotations of this category, by its name or number; may be repeated for the union of several.",
    multiple=True,
    default=["person"],
)
val_share = option(
    "--val-share",
    "Take this share of the photos for val, chosen by their names, if the dataset has no such split: 0.1 is a tenth.",
    default=0.0,
)
batch_size = option(
    "--batch-size", "Put this many images in a batch.  [default: the profile's]", aliases=["--batch"], type=int
)
precision = option("--precision", "Compute convolutions in this format.  [default: the profile's]", type=Precision)
compiled = option("--compile/--no-compile", "Use torch.compile.  [default: the profile's]", default=None)
threads = option("--threads", "Use this many CPU threads; 0 uses one per processor.", aliases=["--workers"], default=0)
checkpoint = option(
    "--checkpoint",
    "Use this best_model.pth or last_model.pth.  [default: best_model.pth of the newest run, or the sample network]",
    aliases=["--model"],
    type=click.Path(path_type=Path),
    callback=_newest_checkpoint,
)

network = group(
    "Options",
    option(
        "--network",
        "Use this network.  [default: the profile's]",
        "network_name",
        aliases=["--model"],
        type=NetworkName,
    ),
    option(
        "--width",
        "Give the first level this many channels, a multiple of 8.  [default: the profile's]",
        "network_width",
        type=int,
    ),
)

inference = group(
    "Options",
    option("--batch-size", "Put this many images in a batch; 0 uses the batch size of training.", default=0),
    option("--device", "Run on this device.  [default: a GPU if there is one]", type=Device),
    option(
        "--precision",
        "Compute convolutions in this format.  [default: as in training, if the device supports it]",
        type=Precision,
    ),
    threads,
)
"""How a trained network is run."""


def coco_or_cache(command: Any) -> Any:
    """What the commands look at that change nothing."""
    command = group("Options", option("--cache", "Look at this cache.", type=CACHE), as_json)(command)
    coco = option("--coco", "Look at this dataset.  [default: COCO if no --cache]", type=DATASET)
    return dataset("Options", coco)(command)


photos = group(
    "Options",
    val_share,
    option(
        "--orientation",
        "Say whether annotations were drawn on the stored pixels or on the photo turned upright by its EXIF. auto "
        "decides by the sizes in the JSON; photos whose sizes leave it open are rejected.",
        type=Orientation,
        default="auto",
    ),
    option("--outside", "Allow file names that lead out of the dataset's folder.", is_flag=True),
)
"""How a dataset is split, and how its photos are found and turned."""

selection = group(
    "Options",
    option(
        "--select",
        "Take the images with an annotation, those with one that has keypoints, those with at least ten labelled "
        "keypoints, or all images.",
        "rule",
        aliases=["--images"],
        type=ImageRule,
        default="person",
    ),
    category,
    photos,
)
"""Which images and annotations of a dataset count."""

thresholds = group(
    "Options",
    option("--min-coverage", "Set the threshold of coverage, the percent of the photo in the mask.", default=15.0),
    option("--min-contrast", "Set the threshold of contrast, how far colours differ across the outline.", default=60.0),
    option("--min-edge", "Set the threshold of edge, how much of that difference lies at the outline.", default=50.0),
    option("--min-resolution", "Set the threshold of resolution, how wide masks are for the network.", default=70.0),
)


def taken(given: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take the values whose names begin with a prefix out of a command's values; give them without it."""
    return {name.removeprefix(prefix): given.pop(name) for name in list(given) if name.startswith(prefix)}


def as_json_text(value: Any) -> str:
    """Dataclasses, structs, paths and what they hold, as indented JSON; messages are in English."""
    import msgspec

    # A message is a subclass of str, of which `str()` gives the message itself.
    return json.dumps(msgspec.to_builtins(value, enc_hook=lambda other: str.__str__(str(other))), indent=1)


def show(value: Any, lines: Callable[[Any], Iterable[str]], *, as_json: bool) -> None:
    """Print a result as JSON, or as the lines that a function makes of it."""
    click.echo(as_json_text(value) if as_json else "\n".join(lines(value)))
