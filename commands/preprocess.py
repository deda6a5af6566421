"""`cli.py preprocess`."""

from __future__ import annotations

from typing import Any, get_args

import click

from cache.choices import Codec, Crowd, Fit, Split, Store
from cache.messages import message
from commands import options
from commands.options import CACHE, DEFAULT_CACHE, DEFAULT_COCO, group, option
from console.language import _


def _comma_separated(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names one by one; `--splits train,val` is the older spelling."""
    return tuple(name.strip() for each in given for name in each.split(","))


@click.command(
    cls=options.GroupedCommand,
    short_help=message("Build the cache from a dataset, once."),
    help=message(
        "Decode, rasterize, resize and pack a dataset into a cache, once.\n\n"
        "An interrupted build continues where it stopped. Of a finished cache, only those shards are rebuilt "
        "whose images or annotations have changed."
    ),
)
@options.dataset(
    message("Data"),
    option(
        "--coco",
        "Read the dataset in this folder, of any known layout, by a dataset.toml, or at s3://BUCKET/FOLDER.  "
        "[default: COCO]",
        type=options.Location(file=True),
    ),
    DEFAULT_COCO,
)
@group(
    message("Data"),
    option(
        "--split",
        "Build this split, train or val; may be repeated.",
        "splits",
        aliases=["--splits"],
        multiple=True,
        default=get_args(Split),
        callback=_comma_separated,
    ),
    options.selection,
    option(
        "--crowd",
        "Leave crowd regions out of the loss, take them into the mask, or take them as background.",
        type=Crowd,
        default="ignore",
    ),
    option("--limit", "Take this many images of each split, evenly over it; 0 takes all.", default=0),
)
@group(
    message("Cache"),
    option("--out", "Write the cache to this folder or to s3://BUCKET/FOLDER.", type=CACHE, default=DEFAULT_CACHE),
    option("--side", "Make square images of this side, in pixels, a multiple of 32.", default=384),
    option("--fit", "Keep the aspect and pad, or stretch to fill the square.", type=Fit, default="letterbox"),
    option(
        "--image-codec",
        "Store pixels in this form. auto takes raw if the cache then fits in half of memory, else JPEG.",
        type=click.Choice(["auto", *get_args(Codec)]),
        default="auto",
    ),
    option(
        "--store",
        "Store shards in this format; both are equally fast. lmdb is one file per shard, raw or JPEG. zarr is raw "
        "only, and any Zarr v3 reader opens it.",
        type=Store,
        default="lmdb",
    ),
)
@group(
    message("Run"),
    options.threads,
    option(
        "--cluster",
        "Make the shards on the workers of a Dask cluster: tcp://HOST:8786, where `dask scheduler` listens, or "
        "local:N for N processes of this machine. --threads then counts those of each shard, and 0 uses one.",
        metavar=message("ADDRESS"),
    ),
    option("--force", "Build anew: replace a cache that is damaged or made otherwise.", is_flag=True),
    options.content,
    option("--strict", "Fail, and leave the cache unfinished, if an image is rejected.", is_flag=True),
)
def preprocess(image_codec: str, threads: int, cluster: str | None, **given: Any) -> None:
    from cache.spec import CacheSpec
    from console.build import build_lines
    from console.progress import progress_bar
    from preprocess.build.build import BuildConfig, build_cache
    from preprocess.cluster.client import ClusterAddress

    of_build = {name: given.pop(name) for name in ("coco", "out", "splits", "force", "content", "strict")}
    config = BuildConfig(
        **of_build,
        spec=CacheSpec(codec="jpeg" if image_codec == "jpeg" else "raw", images=given.pop("rule"), **given),
        auto_codec=image_codec == "auto",
        workers=threads,
        cluster=ClusterAddress(cluster) if cluster else None,
    )
    with progress_bar(_("Preprocessing")) as update:
        report = build_cache(config, update)
    click.echo("\n".join(build_lines(report, config.out)))
