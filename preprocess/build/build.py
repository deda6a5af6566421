"""Build a cache from a COCO dataset, bring one up to date, or make only its damaged shards again.

A build plans the shards, makes those that are not there yet, and commits the index last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from pathlib import PurePath
from time import perf_counter

from cache import files
from cache.choices import SPLITS
from cache.errors import CacheCorruptError, CacheMissingError, CacheStaleError
from cache.index import INDEX_NAME, CacheIndex, Rejection
from cache.integrity import Damage
from cache.kernel import compiling_elsewhere
from cache.machine import memory
from cache.messages import joined, listed, message
from cache.spec import CacheSpec
from cache.storage import is_url
from preprocess.build.changes import SplitChanges, compare_split, find_changes, stale_reasons
from preprocess.build.commit import commit, tables_sound
from preprocess.build.folder import check_owner, check_space, clear, has_shards, lock_folder, make_folder, resolve_codec
from preprocess.build.pipeline import FinishedShards, make_shards, remove_stale_manifests
from preprocess.build.plan import Job, Split, SplitPlan, plan_split, read_split
from preprocess.build.record import compile_planes
from preprocess.cluster.client import ClusterAddress
from preprocess.dataset import Dataset, Location, open_dataset
from preprocess.errors import DatasetError
from preprocess.resize import RESIZING

Progress = Callable[[int, int], None]
"""Called with (images done, images in all), from the calling thread."""

_SHOWN_REJECTIONS = 10  # how many rejections the error of `strict` names


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build, from what."""

    coco: Location  # the dataset; see `open_dataset`
    out: PurePath  # the cache's folder; a `Path` or a `StorageUrl`
    spec: CacheSpec
    auto_codec: bool = False  # choose between raw and JPEG by the size of memory, whatever the spec says
    splits: tuple[str, ...] = ("train", "val")
    workers: int = 0  # threads; 0 takes one per processor. On a cluster: threads that make one shard; 0 takes one.
    cluster: ClusterAddress | None = None  # the Dask cluster that makes the shards; None makes them in this process
    # Replace a cache that is there, even a damaged one or one of other sources; an unfinished build of the same cache
    # is still resumed.
    force: bool = False
    content: bool = False  # recognise changed images by their bytes, not only by their sizes
    strict: bool = False  # a rejected image, or an annotation without an image, is an error

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise DatasetError("workers={workers} is negative; 0 takes one per processor", workers=self.workers)
        for location in (self.coco, self.out):
            if isinstance(location, PurePath) and is_url(location) and len(location.parts) < 2:
                raise DatasetError("{location} names no bucket; use {location}BUCKET/FOLDER", location=location)
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits:
            names = ", ".join(self.splits)
            raise DatasetError("splits={splits} is not known; use {known}", splits=names, known=listed(SPLITS, "and"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did."""

    index: CacheIndex
    # In all shards of the splits that were asked for, and annotations without an image.
    rejections: tuple[Rejection, ...]
    images: dict[str, int]  # in the annotations of each split that was asked for, whether or not they are selected
    written: int  # images that this run worked on
    resumed: int  # images in shards that were there already
    seconds: float  # that making the shards took
    # Between the cache that was there before and the dataset; empty if there was none.
    changes: tuple[SplitChanges, ...]
    doubts: tuple[str, ...]  # what is doubtful of the masks of each split, with the split's name; see `DoubtfulMasks`
    # Photos of `val` whose bytes are those of a photo of `train`; known where both were asked for.
    leaks: tuple[str, ...]
    layout: str  # the name of the dataset's layout
    fresh: bool  # the cache was already complete and from the same sources: nothing was done


def build_cache(
    config: BuildConfig, progress: Progress | None = None, *, damaged: Collection[tuple[str, str]] = ()
) -> BuildReport:
    """Make a cache, resume an interrupted build, bring a cache up to date, or find that there is nothing to do.

    A finished shard is kept if it was made from the images and annotations as they are now. The others are made under
    new names; the cache that was there before stays valid until the new index takes its place. Splits that are not
    asked for stay as they are. Shards `damaged`, by split and name, are made again whatever their manifests say.

    Raises:
        DatasetError: the dataset is incomplete or unreadable, no image is left, or `strict` and something was rejected.
        CacheStaleError: `out` holds a cache of another spec, or what is left of one, and `force` is not set.
        CacheError: `out` holds other things, is in use by another build, or lacks the space.
        CacheWriteError: writing failed. After this error and the next two, the next run resumes from finished shards.
        ClusterError: the cluster cannot be used, or a shard has killed its workers.
        StorageError: object storage fails.
    """
    make_folder(config.out)
    with lock_folder(config.out):
        check_owner(config.out)
        dataset = open_dataset(config.coco)
        with compiling_elsewhere("preprocess.image.compile_resizing", *RESIZING):  # what reads and draws is as much
            splits = [read_split(dataset, name, config.spec, content=config.content) for name in config.splits]
            compile_planes(splits[0].table, config.spec)
        before = _finished_index(config)
        spec = _spec(config, dataset, before, splits)
        if before and (differences := before.spec.differences(spec)):
            raise CacheStaleError(
                "{out} holds a cache made otherwise ({differences}); use another --out, or --force to replace it",
                out=config.out,
                differences=joined("; ", differences),
            )
        plans = [
            plan_split(config.out, spec, split, before, {shard for name, shard in damaged if name == split.name})
            for split in splits
        ]
        _clear_leftovers(config, before, plans)
        changes = tuple(
            compare_split(config.out, before, plan) for plan in plans if before and plan.split.name in before.splits
        )
        jobs = [job for plan in plans for job in plan.jobs]
        written = sum(len(job.rows) for job in jobs)
        resumed = sum(len(split.rows) for split in splits) - written
        unchanged = len(changes) == len(plans) and all(change.none for change in changes)
        index = before if before and unchanged and tables_sound(config.out, before) else None
        fresh, start = index is not None, perf_counter()
        if not index:
            check_space(config.out, spec, written)
            for plan in plans:
                make_folder(config.out / plan.split.name)
            made = dict(_make(config, spec, jobs, resumed, progress))
            plans = [plan.complete(made) for plan in plans]
        seconds = perf_counter() - start
        rejections = tuple(chain.from_iterable(plan.rejections for plan in plans))
        if config.strict and rejections:
            raise _strict_error(rejections)  # finished shards stay, so that nothing is done twice
        index = index or commit(config.out, spec, plans, before)
    return BuildReport(
        index=index,
        rejections=rejections,
        images={split.name: len(split.table) for split in splits},
        written=written,
        resumed=resumed,
        seconds=seconds,
        changes=changes,
        doubts=tuple(joined(": ", (split.name, line)) for split in splits for line in split.doubts),
        leaks=_leaks(plans),
        layout=dataset.layout,
        fresh=fresh,
    )


def _finished_index(config: BuildConfig) -> CacheIndex | None:
    """The index of the finished cache in the folder; None if there is none, it is damaged, or `force` has removed it.

    Raises `CacheVersionError`: it has a format version that this release does not know.
    """
    if not config.force:
        try:
            return CacheIndex.load(config.out)
        except (CacheMissingError, CacheCorruptError):
            return None
    if INDEX_NAME in files.names(config.out):
        clear(config.out)
    return None


def _spec(config: BuildConfig, dataset: Dataset, before: CacheIndex | None, splits: list[Split]) -> CacheSpec:
    """The spec asked for. A codec that may be chosen is that of the cache that is there, else one by memory."""
    spec = dataclasses.replace(config.spec, val_share=dataset.share(config.spec.val_share))
    if not config.auto_codec:
        return spec
    if before:
        return dataclasses.replace(spec, codec=before.spec.codec)
    return resolve_codec(spec, sum(len(split.rows) for split in splits), memory()[0])


def _clear_leftovers(config: BuildConfig, before: CacheIndex | None, plans: list[SplitPlan]) -> None:
    """Remove the shards of another cache that has no index, or refuse to: if there are some and none of them fits.

    Raises `CacheStaleError`: there are such shards, and `force` is not set.
    """
    if before or any(plan.manifests for plan in plans) or not has_shards(config.out):
        return
    if not config.force:
        raise CacheStaleError(
            "{out} holds an unfinished or damaged cache of something else; use another --out, or --force to replace it",
            out=config.out,
        )
    clear(config.out)


def _make(
    config: BuildConfig, spec: CacheSpec, jobs: list[Job], done: int, progress: Progress | None
) -> FinishedShards:
    """Make every shard that is not there; `done` images are in shards that are."""
    total = done + sum(len(job.rows) for job in jobs)

    def on_images(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    if done:
        on_images(0)  # before the work begins, so that the rate that is shown is the rate of the work
    remove_stale_manifests(jobs)
    if not config.cluster or not jobs:
        return make_shards(jobs, spec, config.workers, on_images)
    from preprocess.cluster.engine import make_shards_on_cluster

    return make_shards_on_cluster(jobs, spec, config.workers, on_images, address=config.cluster)


def _strict_error(rejections: tuple[Rejection, ...]) -> DatasetError:
    shown = rejections[:_SHOWN_REJECTIONS]
    named = [joined(": ", (f"{each.split}/{each.file_name}", each.reason)) for each in shown]
    if len(rejections) > _SHOWN_REJECTIONS:
        named.append(message("and {count:,} more", count=len(rejections) - _SHOWN_REJECTIONS))
    return DatasetError(
        "--strict: {count:,} rejected ({named}); mend the dataset and run it again, or leave --strict out: what is "
        "finished is kept",
        count=len(rejections),
        named=joined("; ", named),
    )


def _leaks(plans: list[SplitPlan]) -> tuple[str, ...]:
    """The photos of `val` that are in `train`, too: validation would not be independent of training."""
    contents = {
        plan.split.name: {
            (source.file_bytes, source.content): source.file_name
            for manifest in plan.manifests
            for source in manifest.sources
            if source.content
        }
        for plan in plans
    }
    train, val = contents.get("train", {}), contents.get("val", {})
    return tuple(name for photo, name in val.items() if photo in train)


def repair_cache(
    cache: PurePath, coco: Location, damages: Iterable[Damage], progress: Progress | None = None
) -> BuildReport:
    """Make the shards that `verify_cache` found damaged again, from the dataset `coco` that the cache was made from.

    Raises:
        CacheError: the index cannot be read.
        CacheStaleError: the dataset has changed: the new shards would differ from the lost ones.
        DatasetError: the dataset is incomplete or unreadable.
    """
    index = CacheIndex.load(cache)
    reasons = [reason for change in find_changes(cache, coco) for reason in stale_reasons(change)]
    if reasons:
        values = {"coco": coco, "cache": cache, "reasons": joined("; ", reasons)}
        raise CacheStaleError(
            "{coco} has changed since {cache} was made ({reasons}); bring it up to date with `preprocess`, "
            "then repair it",
            **values,
        )
    damaged = {(damage.split, damage.shard) for damage in damages if damage.shard}
    config = BuildConfig(coco=coco, out=cache, spec=index.spec, splits=tuple(index.splits))
    return build_cache(config, progress, damaged=damaged)
