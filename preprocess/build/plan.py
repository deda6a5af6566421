"""Plan a build: read the splits of a dataset, assign their images to shards, find the shards that are finished."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import count, pairwise
from pathlib import Path, PurePath

import msgspec
import numpy as np
import xxhash

from cache import files
from cache.errors import CacheCorruptError
from cache.index import CacheIndex, ImageSource, Rejection, ShardManifest, manifest_path
from cache.messages import joined, message
from cache.shards import describe, shard_name
from cache.spec import CacheSpec
from cache.storage import is_url
from preprocess.annotations.doubtful import doubtful_masks
from preprocess.annotations.select import annotation_digests, select_images
from preprocess.annotations.table import PersonTable, Problem, take_images
from preprocess.dataset import Location, SplitContent, missing_folder, read_content
from preprocess.errors import DatasetError, ImageError
from preprocess.image import read_file
from preprocess.photos import PhotoFolder, photo_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A split, `train` or `val`: its annotations and the selected images in `folder`."""

    name: str
    folder: PurePath
    table: PersonTable  # all its images and person annotations; see `SplitContent`
    rows: list[int]  # the images that the rule selects, as ascending rows of the table
    sources: list[ImageSource]  # what each selected image consists of, in the order of `rows`
    annotations: PurePath  # path of the annotation file
    problems: dict[int, str]  # why an image cannot be used although it is selected, by row
    orphans: tuple[Rejection, ...]  # annotations that belong to no image of the file
    doubts: tuple[str, ...]  # what is doubtful of its masks; see `DoubtfulMasks`

    def photo(self, row: int) -> PurePath:
        """The path of an image's photo."""
        return photo_path(self.folder, self.table.file_name[row])

    def read(self, row: int) -> bytes:
        """The bytes of an image's photo.

        Raises `ImageError`: the image is among the `problems`, or its file cannot be read. `StorageError`: see
        `read_file`.
        """
        if row in self.problems:  # its name may lead to what is no photo, and not of the dataset
            raise ImageError(self.problems[row])
        return read_file(self.photo(row))


def read_split(location: Location, name: str, spec: CacheSpec, *, content: bool = False) -> Split:
    """Read a split's annotations and pick the images that the spec's rule and limit select.

    With `content`, the images are read, too, and identified by their bytes, not only by their names and sizes. Raises
    `DatasetError`: files or folders are missing or unreadable, no image is selected, or most masks are useless.
    `StorageError`: the dataset is in object storage, which cannot be read.
    """
    found = read_content(location, name, spec)
    table, photos, annotations = found.table, found.photos, found.files.annotations
    if found.missing:
        raise DatasetError(missing_folder(found.files))
    rows = np.flatnonzero(select_images(table, spec.images)).tolist()
    orphans = [problem for problem in table.problems if problem.image < 0]
    if not rows and orphans and not len(table.annotation_id):
        values = {"annotations": annotations, "count": len(orphans), "first": _text(orphans[0])}
        raise DatasetError(
            "no image of {annotations} is selected: {count} of its entries belong to no image, the first because of "
            "this: {first}",
            **values,
        )
    if not rows:
        raise DatasetError(none_selected(found, spec))
    if 0 < spec.limit < len(rows):
        rows = [rows[at * len(rows) // spec.limit] for at in range(spec.limit)]
    problems = annotation_problems(table) | found.nameless
    return Split(
        name=name,
        folder=photos.folder,
        table=table,
        rows=rows,
        sources=_image_sources(photos, table, rows, problems, content=content),
        annotations=annotations,
        problems=problems,
        orphans=tuple(
            Rejection(split=name, image_id=-1, file_name=annotations.name, reason=_text(problem)) for problem in orphans
        ),
        doubts=_doubts(table, rows, annotations, spec),
    )


def _doubts(table: PersonTable, rows: list[int], annotations: PurePath, spec: CacheSpec) -> tuple[str, ...]:
    """What is doubtful of the masks of a split. Raises `DatasetError`: most of them are useless."""
    found = doubtful_masks(table, spec.orientation, spec.crowd)
    if found.error:
        raise DatasetError("{path}: {reason}", path=annotations, reason=found.error)
    shared = [name for name, uses in Counter(table.file_name[row] for row in rows).items() if name and uses > 1]
    if not shared:
        return found.lines
    text = message(
        "photos of several images: {count:,}, such as {file}; each image has the masks of its own annotations "
        "alone, so give all annotations of a photo one image_id",
        count=len(shared),
        file=shared[0],
    )
    return (*found.lines, text)


def none_selected(content: SplitContent, spec: CacheSpec) -> str:
    """What to do where the rule of a spec selects no image of a split."""
    return message(
        "no image for {split} in {annotations} satisfies the rule {rule}, with {count:,} annotations of {category} "
        "among {images:,} images; export it with its masks, or take all images: `preprocess --select all`",
        split=content.name,
        annotations=content.files.annotations,
        rule=spec.images,
        count=len(content.table.annotation_id),
        category=joined(", ", spec.categories),
        images=len(content.table),
    )


def split_part(split: Split, rows: list[int]) -> Split:
    """The part of a split with the images `rows` of its table, which become rows 0, 1, 2, ...; for another machine.

    The sources, and annotations without an image, belong to the split and are left out.
    """
    return dataclasses.replace(
        split,
        table=take_images(split.table, np.array(rows, np.int64)),
        rows=list(range(len(rows))),
        sources=[],
        problems={number: split.problems[row] for number, row in enumerate(rows) if row in split.problems},
        orphans=(),
    )


def content_digest(data: bytes) -> int:
    """XXH3 (64 bits) of an image file's bytes."""
    return xxhash.xxh3_64_intdigest(data)


def annotation_problems(table: PersonTable) -> dict[int, str]:
    """Why images cannot be used, by their rows: their own faults, else the first annotation that cannot be used."""
    found = {problem.image: _text(problem) for problem in reversed(table.problems) if problem.image >= 0}
    return found | table.faults


def _text(problem: Problem) -> str:
    if problem.annotation is None:
        return problem.reason
    return message("annotation {annotation}: {reason}", annotation=problem.annotation, reason=problem.reason)


def _file_digest(path: PurePath) -> int:
    """Digest of a photo's file; 0 if it cannot be read."""
    try:
        return content_digest(read_file(path))
    except ImageError:
        return 0


def _image_sources(
    photos: PhotoFolder, table: PersonTable, rows: list[int], problems: dict[int, str], *, content: bool
) -> list[ImageSource]:
    """What each image consists of. The photo of one that cannot be used is not looked at."""
    sizes = [-1 if row in problems else photos.size(table.file_name[row]) for row in rows]
    there = [row for row, size in zip(rows, sizes, strict=True) if content and size >= 0]
    digests = files.for_each(_file_digest, (photo_path(photos.folder, table.file_name[row]) for row in there))
    contents = dict(zip(there, digests, strict=True))
    marks = annotation_digests(table, np.array(rows, np.int64)).tolist()
    return [
        ImageSource(
            image_id=int(table.image_id[row]),
            file_name=table.file_name[row],
            file_bytes=size,
            annotations=mark ^ xxhash.xxh3_64_intdigest(problems[row].encode()) if row in problems else mark,
            content=contents.get(row, 0),
        )
        for row, size, mark in zip(rows, sizes, marks, strict=True)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A shard to be made in `directory`, from the images `rows` of the split's table; `key` is `shard_key`'s."""

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
        return [*self.split.orphans, *(rejection for manifest in self.manifests for rejection in manifest.rejections)]

    def complete(self, made: Mapping[Job, ShardManifest]) -> SplitPlan:
        """The same plan when each of its jobs has been done."""
        return SplitPlan(self.split, tuple(made[shard] if isinstance(shard, Job) else shard for shard in self.shards))


def cut(image_ids: Sequence[int], mean: int) -> list[int]:
    """The ends of shards that hold `mean` images on average, at least half and at most twice as many.

    A shard ends with an image whose hashed id is a multiple of a number, wherever that image stands: an image that is
    added or removed moves the ends of its own shard and perhaps of the next, not of all that follow (content-defined
    chunking, as in Muthitacharoen, Chen and Mazieres, "A low-bandwidth network file system", 2001).
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
    are read and compared with their checksum. `index` is that of the finished cache in `out`, if there is one: its
    shards keep their names, so that it stays valid until the next index takes its place. Shards of the names `damaged`
    are made again whatever their manifests say.
    """
    directory = out / split.name
    info = index.splits.get(split.name) if index else None
    committed = {shard.name for shard in info.shards} if info else set()
    sound = [manifest for manifest in _manifests(directory, committed) if manifest.shard.name not in damaged]
    content = {source.image_id: source.content for source in split.sources}
    # Those whose images are byte for byte those that the shard was made from, as far as `content` is known.
    kept = {
        manifest.shard.key: manifest
        for manifest in sound
        if all(content.get(source.image_id, 0) in (0, source.content) for source in manifest.sources)
    }
    ends = [0, *cut([source.image_id for source in split.sources], spec.shard_samples)]
    parts = [(split.rows[begin:end], tuple(split.sources[begin:end])) for begin, end in pairwise(ends)]
    keys = [shard_key(spec, sources) for _, sources in parts]
    taken = {kept[key].shard.name for key in keys if key in kept}
    taken |= {manifest.shard.name for manifest in sound} & committed
    # A new shard is named by its number in the split if that name is free, else by a number above all others.
    free = count(max([len(parts), *(int(PurePath(name).stem) + 1 for name in taken)]))
    shards: list[ShardManifest | Job] = []
    for number, (key, (rows, sources)) in enumerate(zip(keys, parts, strict=True)):
        if key in kept:
            shards.append(kept[key])
            continue
        name = shard_name(number, spec.store)
        name = shard_name(next(free), spec.store) if name in taken else name
        shards.append(Job(split=split, directory=directory, name=name, key=key, rows=rows, sources=sources))
    return SplitPlan(split, tuple(shards))


def read_manifests(out: PurePath, index: CacheIndex, split: str) -> list[ShardManifest]:
    """The manifests of a finished cache's split, in the order of its shards; those that are damaged are left out."""
    shards = index.splits[split].shards
    found = _load([manifest_path(out / split, info.name) for info in shards])
    return [manifest for manifest, info in zip(found, shards, strict=True) if manifest and manifest.shard == info]


def shards_there(directory: PurePath) -> dict[str, int]:
    """Bytes of each shard, and of whatever else there is, in a folder, by name."""
    totals: dict[str, int] = {}
    for name, size in files.sizes(directory).items():
        top = name.partition("/")[0]
        totals[top] = totals.get(top, 0) + size
    return totals


def _manifests(directory: PurePath, committed: set[str]) -> list[ShardManifest]:
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

    One in object storage is not fetched: there, nothing is stored in part, nor lost in a power cut.
    """
    shard = manifest.shard
    return is_url(directory) or describe(Path(directory / shard.name), shard.rows).checksum == shard.checksum
