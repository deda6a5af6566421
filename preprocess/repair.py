"""Make the damaged shards of a cache again, and only those."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from cache.errors import CacheStaleError
from cache.index import CacheIndex
from cache.integrity import Damage
from cache.messages import joined
from preprocess.build import BuildConfig, BuildReport, Progress, build_cache
from preprocess.changes import find_changes, stale_reasons


def repair_cache(
    cache: PurePath, coco: PurePath, damages: Iterable[Damage], progress: Progress | None = None, *, workers: int = 0
) -> BuildReport:
    """Make what `verify_cache` found damaged again, from the dataset that the cache was made from.

    Args:
        cache: the cache's folder.
        coco: the folder that it was made from.
        damages: what is wrong with it.
        progress: see `preprocess.build.Progress`.
        workers: threads; 0 takes one per processor.

    Raises:
        CacheError: the index cannot be read.
        CacheStaleError: the dataset has changed: the new shards would not be those that are lost.
        DatasetError: the dataset is incomplete or unreadable.
    """
    index = CacheIndex.load(cache)
    reasons = [reason for change in find_changes(cache, coco) for reason in stale_reasons(change)]
    if reasons:
        raise CacheStaleError(
            "{coco} has changed since {cache} was made ({reasons}); bring it up to date with `preprocess`, "
            "then repair it",
            coco=coco,
            cache=cache,
            reasons=joined("; ", reasons),
        )
    damaged = frozenset((damage.split, damage.shard) for damage in damages if damage.shard)
    config = BuildConfig(coco=coco, out=cache, spec=index.spec, splits=tuple(index.splits), workers=workers)
    return build_cache(config, progress, damaged=damaged)
