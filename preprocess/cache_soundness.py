"""Check of a whole cache against its checksums and, if asked, against its dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cache.errors import CacheError
from cache.index import INDEX_NAME, CacheIndex
from cache.integrity import Damage, check_split
from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.changes import find_changes, stale_reasons
from preprocess.errors import DatasetError
from preprocess.soundness import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRecords:
    """What was checked in a split of a cache."""

    split: str
    samples: int
    rejected: int
    shards: int
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What `verify_cache` found.

    Attributes:
        cache: the cache's folder.
        spec: its spec; None if its index cannot be read.
        splits: what was checked.
        damages: shards and records that are not as written.
        stale: why it no longer agrees with the dataset; None if it was not compared with one.
    """

    cache: str
    spec: CacheSpec | None
    splits: tuple[SplitRecords, ...]
    damages: tuple[Damage, ...]
    stale: tuple[str, ...] | None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages and not self.stale


def verify_cache(cache: Path, progress: Progress | None = None, *, coco: Path | None = None) -> CacheReport:
    """Compare every shard of a cache with its index and, given `coco`, the cache with that dataset.

    Faults are reported as damages or reasons to be stale, never raised.

    Args:
        cache: the cache's folder.
        progress: called with (samples done, samples in all).
        coco: the folder that it was made from.
    """
    try:
        index = CacheIndex.load(cache)
    except CacheError as error:
        damage = Damage(where=INDEX_NAME, what=str(error))
        return CacheReport(cache=str(cache), spec=None, splits=(), damages=(damage,), stale=None)
    total, done = sum(info.samples for info in index.splits.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    damages, records = list[Damage](), list[SplitRecords]()
    for split, info in index.splits.items():
        size = sum(shard.bytes for shard in info.shards)
        records.append(
            SplitRecords(split=split, samples=info.samples, rejected=info.rejected, shards=len(info.shards), bytes=size)
        )
        try:
            with CacheReader(cache, split) as reader:
                damages += check_split(reader, advance)
        except CacheError as error:
            damages.append(Damage(where=split, what=str(error)))
    stale = None if coco is None else tuple(_stale(cache, coco))
    return CacheReport(cache=str(cache), spec=index.spec, splits=tuple(records), damages=tuple(damages), stale=stale)


def _stale(cache: Path, coco: Path) -> list[str]:
    try:
        changes = find_changes(cache, coco)
    except (CacheError, DatasetError) as error:
        return [str(error)]
    return [reason for change in changes for reason in stale_reasons(change)]
