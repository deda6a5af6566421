"""What has changed in a dataset since a cache was made from it, and which of its shards are affected."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

from cache.index import CacheIndex
from cache.messages import Message, message
from preprocess.build.plan import SplitPlan, plan_split, read_manifests, read_split, shards_there
from preprocess.dataset import Location


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitChanges:
    """How a split differs from what a cache was made from."""

    split: str
    new: tuple[str, ...]  # files of images that the cache does not have
    gone: tuple[str, ...]  # files of images that only the cache has
    # Files of images whose file is another: its name, its size or, where it was read, its bytes.
    photos: tuple[str, ...]
    annotations: tuple[str, ...]  # files of images whose annotations differ
    damaged: int  # number of shards whose files are missing or of another size, or whose manifest cannot be read
    # shards, stale_shards: number of shards that the split consists of now, and how many of them have to be made.
    shards: int
    stale_shards: int
    stale_images: int
    dropped_shards: int  # number of the cache's shards that the split no longer consists of

    @property
    def none(self) -> bool:
        """Whether the cache is still what the split gives."""
        return not (self.stale_shards or self.dropped_shards)


def find_changes(cache: PurePath, coco: Location, *, content: bool = False) -> list[SplitChanges]:
    """Compare a finished cache with a dataset, by the rules in the cache's own spec. Writes nothing.

    With `content`, the images are read, too, to find those that changed and kept their size. Raises `CacheError`: there
    is no readable cache. `DatasetError`: the dataset is incomplete or unreadable.
    """
    index = CacheIndex.load(cache)
    splits = [read_split(coco, name, index.spec, content=content) for name in index.splits]
    return [compare_split(cache, index, plan_split(cache, index.spec, split, index)) for split in splits]


def compare_split(cache: PurePath, index: CacheIndex, plan: SplitPlan) -> SplitChanges:
    """Compare what a finished cache holds of a split with what it should."""
    name = plan.split.name
    shards = index.splits[name].shards
    manifests = read_manifests(cache, index, name)
    was = {source.image_id: source for manifest in manifests for source in manifest.sources}
    now = {source.image_id: source for source in plan.split.sources}
    both = [(was[image_id], source) for image_id, source in now.items() if image_id in was]
    there = shards_there(cache / name)
    kept = {manifest.shard.name for manifest in plan.manifests}
    unread = len(shards) - len(manifests)
    return SplitChanges(
        split=name,
        # The images of a damaged manifest are unknown: they are not counted as new.
        new=() if unread else tuple(source.file_name for image_id, source in now.items() if image_id not in was),
        gone=tuple(source.file_name for image_id, source in was.items() if image_id not in now),
        photos=tuple(
            new.file_name
            for old, new in both
            if (old.file_name, old.file_bytes) != (new.file_name, new.file_bytes)
            or (new.content and old.content != new.content)
        ),
        annotations=tuple(new.file_name for old, new in both if old.annotations != new.annotations),
        damaged=unread + sum(there.get(each.shard.name) != each.shard.bytes for each in manifests),
        shards=len(plan.shards),
        stale_shards=len(plan.jobs),
        stale_images=sum(len(job.rows) for job in plan.jobs),
        dropped_shards=sum(info.name not in kept for info in shards),
    )


_REASONS = {
    "new": (
        message("{split}: 1 image is new in the dataset ({names})"),
        message("{split}: {count:,} images are new in the dataset ({names})"),
    ),
    "gone": (
        message("{split}: 1 image is no longer in the dataset ({names})"),
        message("{split}: {count:,} images are no longer in the dataset ({names})"),
    ),
    "photos": (
        message("{split}: 1 image is another file than before ({names})"),
        message("{split}: {count:,} images are another file than before ({names})"),
    ),
    "annotations": (
        message("{split}: 1 image is annotated otherwise ({names})"),
        message("{split}: {count:,} images are annotated otherwise ({names})"),
    ),
}
"""The templates for one image and for several, by the field of `SplitChanges` that has their names."""


def stale_reasons(change: SplitChanges) -> list[str]:
    """What has changed in a split's dataset, in words with counts and a first example."""
    reasons: list[str] = []
    for field, (one, several) in _REASONS.items():
        names: tuple[str, ...] = getattr(change, field)
        if names:
            template, more = (several, ", ...") if len(names) > 1 else (one, "")
            reasons.append(Message(template, split=change.split, count=len(names), names=f"{names[0]}{more}"))
    return reasons
