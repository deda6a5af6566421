"""Assign images to shards, and find the shards that need not be made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from itertools import count, pairwise
from pathlib import Path, PurePath

import msgspec
import xxhash

from cache import files
from cache.errors import CacheCorruptError
from cache.index import CacheIndex
from cache.manifest import ImageSource, Rejection, ShardManifest, manifest_path
from cache.place import is_url
from cache.shards import describe, shard_name
from cache.spec import CacheSpec
from preprocess.sources import Split


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A shard to be made.

    Attributes:
        split: what its images are of.
        directory: the folder that it goes to.
        name: of its file.
        key: digest of what it is made from.
        rows: its images, as rows of the split's table.
        sources: what each of them consists of.
    """

    split: Split
    directory: PurePath
    name: str
    key: str
    rows: list[int]
    sources: tuple[ImageSource, ...]


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A split and the shards that it consists of, in order: manifests of finished ones, and jobs."""

    split: Split
    shards: tuple[ShardManifest | Job, ...]

    @property
    def jobs(self) -> list[Job]:
        """The shards that have to be made."""
        return [shard for shard in self.shards if isinstance(shard, Job)]

    @property
    def manifests(self) -> list[ShardManifest]:
        """The manifests of the shards that are finished."""
        return [shard for shard in self.shards if isinstance(shard, ShardManifest)]

    @property
    def rejections(self) -> list[Rejection]:
        """Everything that is left out: annotations without an image, then images of the finished shards."""
        split = self.split
        orphans = [
            Rejection(split=split.name, image_id=-1, file_name=split.annotations.name, reason=reason)
            for reason in split.orphans
        ]
        return [*orphans, *(rejection for manifest in self.manifests for rejection in manifest.rejections)]

    def complete(self, made: Mapping[Job, ShardManifest]) -> SplitPlan:
        """The same plan when each of its jobs has been done."""
        return SplitPlan(self.split, tuple(made[shard] if isinstance(shard, Job) else shard for shard in self.shards))


def cut(image_ids: Sequence[int], mean: int) -> list[int]:
    """The ends of shards that hold `mean` images on average, at least half and at most twice as many.

    A shard ends with an image whose hashed id is a multiple of a number, wherever that image stands: one that comes or
    goes moves the ends of its own shard and perhaps of the next, not of all that follow (content-defined chunking, as
    in Muthitacharoen, Chen and Mazieres, "A low-bandwidth network file system", 2001).
    """
    least, most = -(-mean // 2), 2 * mean
    ends = []
    begin = 0
    for number, image_id in enumerate(image_ids, 1):
        size = number - begin
        divides = xxhash.xxh3_64_intdigest(int(image_id).to_bytes(8, "little", signed=True)) % max(1, mean // 2) == 0
        if size >= most or (size >= least and divides):
            ends.append(number)
            begin = number
    if begin < len(image_ids):
        ends.append(len(image_ids))
    return ends


def shard_key(spec: CacheSpec, sources: Sequence[ImageSource]) -> str:
    """Digest of what a shard is made from."""
    known = [source._replace(content=0) for source in sources]  # it is not known before the file is read
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode([spec.record_fingerprint(), known]))


def plan_split(
    out: PurePath, spec: CacheSpec, split: Split, index: CacheIndex | None, damaged: Collection[str] = ()
) -> SplitPlan:
    """Cut a split into shards, and find those that are already there.

    Shards that the index names are trusted if their size is right, as readers do; those that an interrupted build left
    are read and compared with their checksum.

    Args:
        out: the cache's folder.
        spec: of the cache.
        split: what it is made from.
        index: of the finished cache in `out`, if there is one. Its shards keep their names, so that it stays valid
            until the next index takes its place.
        damaged: names of shards that are made again whatever their manifests say.
    """
    directory = out / split.name
    info = index.splits.get(split.name) if index else None
    committed = {shard.name for shard in info.shards} if info else set()
    sound = [manifest for manifest in _manifests(directory, committed) if manifest.shard.name not in damaged]
    found = {manifest.shard.key: manifest for manifest in sound}
    content = {source.image_id: source.content for source in split.sources}
    kept = {key: manifest for key, manifest in found.items() if _same_content(manifest, content)}
    ends = [0, *cut([source.image_id for source in split.sources], spec.shard_samples)]
    parts = [(split.rows[begin:end], tuple(split.sources[begin:end])) for begin, end in pairwise(ends)]
    keys = [shard_key(spec, sources) for _, sources in parts]
    taken = {kept[key].shard.name for key in keys if key in kept}
    taken |= {manifest.shard.name for manifest in found.values()} & committed
    # A new shard is named by its place if that name is free, else by a number above all others.
    numbers = count(max([len(parts), *(int(PurePath(name).stem) + 1 for name in taken)]))
    shards: list[ShardManifest | Job] = []
    for place, (key, (rows, sources)) in enumerate(zip(keys, parts, strict=True)):
        if key in kept:
            shards.append(kept[key])
            continue
        name = shard_name(place, spec.store)
        name = shard_name(next(numbers), spec.store) if name in taken else name
        shards.append(Job(split=split, directory=directory, name=name, key=key, rows=rows, sources=sources))
    return SplitPlan(split, tuple(shards))


def read_manifests(out: PurePath, index: CacheIndex, split: str) -> list[ShardManifest]:
    """The manifests of a finished cache's split, in the order of its shards; those that are damaged are left out."""
    shards = index.splits[split].shards
    found = _load([manifest_path(out / split, info.name) for info in shards])
    return [manifest for manifest, info in zip(found, shards, strict=True) if manifest and manifest.shard == info]


def shards_there(directory: PurePath) -> dict[str, int]:
    """Bytes of each shard, and of whatever else there is, in a folder."""
    totals: dict[str, int] = {}
    for name, size in files.sizes(directory).items():
        top = name.partition("/")[0]
        totals[top] = totals.get(top, 0) + size
    return totals


def _manifests(directory: PurePath, committed: set[str]) -> list[ShardManifest]:
    """The manifests of the finished shards in a folder."""
    there = shards_there(directory)
    found = _load([directory / name for name in sorted(there) if name.endswith(".json")])
    return [
        manifest
        for manifest in found
        if manifest
        and there.get(manifest.shard.name) == manifest.shard.bytes
        and (manifest.shard.name in committed or _is_as_written(directory, manifest))
    ]


def _load(paths: list[PurePath]) -> list[ShardManifest | None]:
    """The manifests of these paths; None for one that is missing or damaged."""
    manifests: list[ShardManifest | None] = []
    for path, data in zip(paths, files.read_all(paths), strict=True):
        try:
            manifests.append(ShardManifest.decode(data, path) if data else None)
        except CacheCorruptError:
            manifests.append(None)
    return manifests


def _is_as_written(directory: PurePath, manifest: ShardManifest) -> bool:
    """Whether a shard that no index names has the bytes that were written.

    In object storage nothing is there in part, nor is anything lost in a power cut: it need not be fetched to see.
    """
    shard = manifest.shard
    return is_url(directory) or describe(Path(directory / shard.name), shard.rows).checksum == shard.checksum


def _same_content(manifest: ShardManifest, content: dict[int, int]) -> bool:
    """Whether the images are byte for byte those that the shard was made from, as far as `content` is known."""
    return all(content.get(source.image_id, 0) in (0, source.content) for source in manifest.sources)
