"""`cli.py preprocess`."""

from __future__ import annotations

import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from commands.options import CACHE, CONTENT_HELP, DEFAULT_CACHE, DEFAULT_COCO, IMAGES_HELP, RULES, photo_options

if TYPE_CHECKING:
    from cache.spec import CacheSpec


@click.command(short_help="Build the cache from COCO, once.")
@click.option(
    "--coco",
    type=CACHE,
    default=DEFAULT_COCO,
    show_default=True,
    help="Folder with annotations/, train2017/, val2017/; or a URL, s3://BUCKET/FOLDER.",
)
@click.option(
    "--out", type=CACHE, default=DEFAULT_CACHE, show_default=True, help="The cache's folder, or s3://BUCKET/FOLDER."
)
@click.option("--side", default=384, show_default=True, help="Side of the square images, pixels; a multiple of 32.")
@click.option(
    "--fit",
    type=click.Choice(["letterbox", "stretch"]),
    default="letterbox",
    show_default=True,
    help="Keep the aspect and pad, or fill the square.",
)
@click.option(
    "--image-codec",
    type=click.Choice(["auto", "raw", "jpeg"]),
    default="auto",
    show_default=True,
    help="auto: raw if the cache then fits in half of memory, else JPEG.",
)
@click.option(
    "--store",
    type=click.Choice(["lmdb", "zarr"]),
    default="lmdb",
    show_default=True,
    help="Equally fast. lmdb: one file a shard, raw or JPEG; zarr: any Zarr v3 reader opens it, raw only.",
)
@click.option("--images", "rule", type=RULES, default="person", show_default=True, help=IMAGES_HELP)
@click.option(
    "--crowd",
    type=click.Choice(["ignore", "person", "drop"]),
    default="ignore",
    show_default=True,
    help="Crowd regions: left out of the loss, part of the persons, or background.",
)
@click.option("--splits", default="train,val", show_default=True, help="Which splits to build.")
@click.option("--category", default="person", show_default=True, help="COCO category to segment.")
@photo_options
@click.option(
    "--limit", default=0, show_default=True, help="Take only so many images of each split, evenly over it; 0 takes all."
)
@click.option(
    "--workers",
    default=0,
    show_default=True,
    help="Threads; 0 takes one a processor. With --cluster: threads that make one shard; 0 takes one.",
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Make the shards on the workers of a Dask cluster: tcp://HOST:8786, where `dask scheduler` listens, or "
    "local:N for N processes of this machine.",
)
@click.option("--force", is_flag=True, help="Build anew: replace a cache that is damaged or made otherwise.")
@click.option("--content", is_flag=True, help=CONTENT_HELP)
@click.option("--strict", is_flag=True, help="A rejected image is an error: the cache is not finished.")
def preprocess(
    coco: PurePath,
    out: PurePath,
    image_codec: str,
    splits: str,
    workers: int,
    cluster: str | None,
    force: bool,
    content: bool,
    strict: bool,
    **spec: Any,
) -> None:
    """Decode, rasterize, resize and pack COCO into a cache, once.

    An interrupted build goes on where it stopped. Of a finished cache only the shards are made again whose images or
    annotations have changed.
    """
    from console.build import build_lines
    from console.language import _
    from console.progress import progress_bar
    from preprocess.build import BuildConfig, build_cache
    from preprocess.cluster.address import ClusterAddress

    config = BuildConfig(
        coco=coco,
        out=out,
        spec=_spec(image_codec, **spec),
        auto_codec=image_codec == "auto",
        splits=tuple(name.strip() for name in splits.split(",")),
        workers=workers,
        cluster=ClusterAddress(cluster) if cluster else None,
        force=force,
        content=content,
        strict=strict,
    )
    start = time.perf_counter()
    with progress_bar(_("Preprocessing")) as update:
        report = build_cache(config, update)
    click.echo("\n".join(build_lines(report, out, time.perf_counter() - start)))


def _spec(image_codec: str, *, rule: Any, **fields: Any) -> CacheSpec:
    from cache.spec import CacheSpec

    return CacheSpec(codec="jpeg" if image_codec == "jpeg" else "raw", images=rule, **fields)
