"""The files that say what a cache holds.

index.json              its spec, splits and shards. Written last and atomically: it is the commit mark
<split>/samples.npy     the sample table
<split>/00012.json      the manifest of the shard 00012, written after it: its sources, samples and rejections. With
                        it a shard can be judged alone: whether an interrupted build has finished it, and whether
                        it is what its sources would give. Two lines: the checksum of the second, and JSON
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from cache import files
from cache.atomic import write_atomically
from cache.errors import REBUILD, RESUME, CacheCorruptError, CacheMissingError, CacheVersionError
from cache.messages import UserError
from cache.record import RecordLayout
from cache.spec import FORMAT_VERSION, CacheSpec

INDEX_NAME = "index.json"
SAMPLES_NAME = "samples.npy"
REJECTED_NAME = "rejected.jsonl"

SAMPLE_DTYPE = np.dtype(
    [
        ("image_id", "<i8"),
        ("height", "<i4"),  # native size, pixels
        ("width", "<i4"),
        ("box_x", "<i4"),  # where the photo lies within the square, pixels
        ("box_y", "<i4"),
        ("box_width", "<i4"),
        ("box_height", "<i4"),
        ("shard", "<i4"),
        ("row", "<i4"),
        ("persons", "<i4"),  # annotated persons that are no crowd
        ("person_fraction", "<f4"),  # of the photo's pixels within the square
        ("checksum", "<u8"),  # of the record
    ]
)
"""One row a sample. A sample's number is its row here."""

_HEADER_BYTES = 4096  # more than the header of the table takes
_MOST = 2**31 - 1

SampleTable = npt.NDArray[np.void]

COLUMNS = tuple(name for name in SAMPLE_DTYPE.names or () if name not in ("shard", "row"))
"""Columns of the sample table that a shard knows before it has its number among the others."""

Folder = TypeVar("Folder", bound=PurePath)

# Names of splits, digests and names of shards become paths, some of which are deleted: none may lead out of the cache's
# folder. The index's checksum proves nothing, for it can be computed anew after an edit. msgspec checks these patterns;
# names of shards are checked where they are read, because a draft of a shard on a cluster has another name.
SplitName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """A finished shard: a file or folder of `bytes` bytes with `rows` records."""

    name: str
    rows: int
    bytes: int
    checksum: Digest  # XXH3-128 over its bytes
    key: str = ""  # digest of what it was made from: two shards of equal key hold equal records


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """The sources of a split: the annotation file's name, and a digest of its images and their annotations."""

    annotations: str
    images: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One split: its samples, how many images were rejected, its shards, its sources."""

    samples: int
    rejected: int
    table_checksum: Digest
    shards: tuple[ShardInfo, ...]
    source: SourceInfo
    rejected_checksum: str = ""  # XXH3-128 over `rejected.jsonl`; empty in a cache of an earlier release


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheIndex:
    """The content of `index.json`."""

    spec: CacheSpec
    fingerprint: str
    tools: dict[str, str]
    splits: dict[SplitName, SplitInfo]

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for split in self.splits.values() for shard in split.shards)

    def save(self, root: Path) -> None:
        """Commit the cache: from here on it exists."""
        write_atomically(root / INDEX_NAME, encode_index(self))

    @classmethod
    def load(cls, root: PurePath) -> CacheIndex:
        """Read and check `index.json`.

        Raises `StorageError` if object storage cannot be read, `CacheMissingError` without an index,
        `CacheVersionError` for a format that this release does not know, `CacheCorruptError` for a changed file.
        """
        path = root / INDEX_NAME
        try:
            text = files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            raise CacheMissingError(
                "{root} holds no finished cache ({name} is missing); make it with: cli.py preprocess --coco DIR --out "
                "{root}",
                root=root,
                name=INDEX_NAME,
            ) from None
        try:
            document = json.loads(text)
            version, body = document["format_version"], document.get("index")
            checksum = _digest(body)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _no_index(path, error) from None
        if version != FORMAT_VERSION:
            raise CacheVersionError(
                "{root} has cache format {version}; this release reads format {known}; rebuild it with this release's "
                "`preprocess --force`, or use the release that made it",
                root=root,
                version=version,
                known=FORMAT_VERSION,
            )
        if document.get("checksum") != checksum:
            raise _changed(path, RESUME)
        try:
            index = msgspec.convert(body, cls)
            for name, split in index.splits.items():
                _check_split(name, split, index.spec)
        except ValueError as error:  # msgspec's errors are such
            raise _no_index(path, error) from None
        return index


def _check_split(name: str, info: SplitInfo, spec: CacheSpec) -> None:
    """Raise a `UserError` for what cannot be, whatever the checksum says: it can be computed anew after an edit."""
    least = RecordLayout.of(spec).raw_bytes if spec.codec == "raw" else 1
    limits: dict[str, tuple[int, int, int]] = {}
    for number, shard in enumerate(info.shards):
        _check_shard_name(shard.name)
        limits[f"shards[{number}].rows"] = shard.rows, 0, _MOST
        limits[f"shards[{number}].bytes"] = shard.bytes, shard.rows * least, 2**63 - 1
    rows = sum(shard.rows for shard in info.shards)
    limits |= {"samples": (info.samples, max(rows, 1), min(rows, _MOST)), "rejected": (info.rejected, 0, _MOST)}
    for field, (value, low, high) in limits.items():
        if not low <= value <= high:
            values = {"split": name, "field": field, "value": value, "low": low, "high": high}
            raise UserError("{split}: {field}={value} is not within {low}..{high}", **values)
    names = {shard.name for shard in info.shards if shard.name.endswith(f".{spec.store}")}
    if len(names) < len(info.shards):
        raise UserError("{split}: its shards are not all in {store}, each named once", split=name, store=spec.store)


_SHARD_NAME = re.compile(r"[0-9]{5,9}\.(lmdb|zarr)")


def _check_shard_name(name: str) -> None:
    if not _SHARD_NAME.fullmatch(name):
        raise UserError(
            "{name!r} is not the name of a shard; they are called as 00012.lmdb or 00012.zarr", name=name[:80]
        )


def _no_index(path: PurePath, error: Exception) -> CacheCorruptError:
    return CacheCorruptError("{path} is not a cache index ({error}); {resume}", path=path, error=error, resume=RESUME)


def _changed(path: PurePath, remedy: str) -> CacheCorruptError:
    return CacheCorruptError(
        "{path} was changed after it was written (its checksum differs); {remedy}", path=path, remedy=remedy
    )


def encode_index(index: CacheIndex) -> bytes:
    """The bytes of `index.json`."""
    body = dataclasses.asdict(index)
    document = {"format_version": FORMAT_VERSION, "checksum": _digest(body), "index": body}
    return json.dumps(document, indent=1).encode() + b"\n"


def _digest(body: object) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())


def encode_table(table: SampleTable) -> tuple[bytes, str]:
    """A sample table as the bytes of `samples.npy`, and their checksum."""
    buffer = io.BytesIO()
    np.save(buffer, table)
    data = buffer.getvalue()
    return data, xxhash.xxh3_128_hexdigest(data)


def load_table(root: PurePath, split: str, info: SplitInfo, side: int) -> SampleTable:
    """Read `<root>/<split>/samples.npy`; raise `CacheCorruptError` if it is missing or not what the index says."""
    path = root / split / SAMPLES_NAME
    return decode_table(_read(path), path, info, side)


def _read(path: PurePath) -> bytes:
    try:
        return files.read(path)
    except FileNotFoundError:
        raise CacheCorruptError("{path} is missing; {rebuild}", path=path, rebuild=REBUILD) from None


def decode_table(data: bytes, path: PurePath, info: SplitInfo, side: int) -> SampleTable:
    """Undo `encode_table`, without a copy: the table is read only.

    Raises `CacheCorruptError` if the bytes, which were read at `path`, are not what the index says, or hold a value
    that cannot be in a cache of this side.
    """
    if xxhash.xxh3_128_hexdigest(data) != info.table_checksum:
        raise _changed(path, REBUILD)
    header = io.BytesIO(data[:_HEADER_BYTES])
    try:
        np.lib.format.read_magic(header)
        shape, _, dtype = np.lib.format.read_array_header_1_0(header)
        found, wanted = (
            (shape, dtype, len(data) - header.tell()),
            ((info.samples,), SAMPLE_DTYPE, info.samples * SAMPLE_DTYPE.itemsize),
        )
        if found != wanted:
            raise UserError("shape, type and bytes are {found}, not {wanted}", found=str(found), wanted=str(wanted))
    except Exception as error:  # NumPy parses it as Python, and may raise anything
        raise CacheCorruptError(
            "{path} is not the sample table in the index: {error}; {rebuild}", path=path, error=error, rebuild=REBUILD
        ) from None
    table: SampleTable = np.frombuffer(data, dtype, info.samples, header.tell())
    check_samples(table, [shard.rows for shard in info.shards], side, path)
    return table


def check_samples(table: SampleTable, rows: Sequence[int], side: int, path: PurePath) -> None:
    """Look for values that cannot be in the sample table of shards with so many rows, in a cache of this side (pixels).

    Samples are in the order of shards and rows. Raises `CacheCorruptError`: it names the first wrong value of `path`.
    """
    shard, starts = np.repeat(np.arange(len(rows)), rows), np.cumsum([0, *rows[:-1]])
    row = np.arange(len(shard)) - starts[shard]
    limits = {"shard": (shard, shard), "row": (row, row), "height": (1, _MOST), "width": (1, _MOST)}
    for axis, length in (("x", "width"), ("y", "height")):
        limits |= {f"box_{axis}": (0, side - 1), f"box_{length}": (1, side - table[f"box_{axis}"])}
    limits |= {"persons": (0, _MOST), "person_fraction": (0, 1)}
    for field, between in limits.items():
        values, low, high = np.broadcast_arrays(table[field], *between)
        wrong = ~((low <= values) & (values <= high))  # also where a value is no number
        if wrong.any():
            at = int(wrong.argmax())
            raise CacheCorruptError(
                "{path}: {field}={value} of sample {sample} is not within {low}..{high}; {rebuild}",
                path=path,
                field=field,
                value=values[at],
                sample=at,
                low=low[at],
                high=high[at],
                rebuild=REBUILD,
            )


def check_rejected(root: PurePath, split: str, info: SplitInfo) -> None:
    """Raise `CacheCorruptError` if `<root>/<split>/rejected.jsonl` is missing or not what was written."""
    path = root / split / REJECTED_NAME
    data = _read(path)
    if info.rejected_checksum and xxhash.xxh3_128_hexdigest(data) != info.rejected_checksum:
        raise _changed(path, REBUILD)


class ImageSource(NamedTuple):
    """The source of a record, or of a rejection."""

    image_id: int
    file_name: str  # in the split's folder
    file_bytes: int  # -1 where the file is missing
    annotations: int  # digest of everything that the annotation file says of the image
    content: int = 0  # XXH3 (64 bits) of the file's bytes as they were read; 0 where they were not


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """An image that was left out, and why; or an annotation without an image, by its file and with an id of -1."""

    split: str
    image_id: int
    file_name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardManifest:
    """All that is known of a finished shard."""

    shard: ShardInfo
    sources: tuple[ImageSource, ...]  # of all its images, those that were rejected included, in order
    samples: tuple[tuple[Any, ...], ...]  # a row of `COLUMNS` for each record
    rejections: tuple[Rejection, ...]  # the images that gave no record

    def table(self, shard: int) -> SampleTable:
        """Its rows of the sample table, when it is the split's shard number `shard`."""
        table = np.zeros(len(self.samples), SAMPLE_DTYPE)
        for column, values in zip(COLUMNS, zip(*self.samples, strict=True), strict=bool(self.samples)):
            table[column] = values
        table["shard"], table["row"] = shard, np.arange(len(table))
        return table

    def save(self, directory: PurePath) -> None:
        """Mark the shard as finished: it must be durable by now. Raises `StorageError`."""
        body = encode_json(self)
        digest = xxhash.xxh3_128_hexdigest(body).encode()
        files.write(manifest_path(directory, self.shard.name), digest + b"\n" + body + b"\n")

    @classmethod
    def load(cls, path: PurePath) -> ShardManifest:
        """Read a manifest; raise `CacheCorruptError` if it is missing, or not what was written."""
        return cls.decode(_read(path), path)

    @classmethod
    def decode(cls, data: bytes, path: PurePath) -> ShardManifest:
        """The manifest of bytes read at `path`; raise `CacheCorruptError` if they are not what was written."""
        try:
            digest, body, _ = data.split(b"\n")
        except ValueError:
            raise CacheCorruptError("{path} is no shard manifest; {rebuild}", path=path, rebuild=REBUILD) from None
        if xxhash.xxh3_128_hexdigest(body).encode() != digest:
            raise _changed(path, REBUILD)
        try:
            manifest = msgspec.json.decode(body, type=cls)
            _check_shard_name(manifest.shard.name)
            if len(manifest.table(0)) != manifest.shard.rows:
                raise UserError(
                    "it has {found} samples, not {rows}", found=len(manifest.samples), rows=manifest.shard.rows
                )
        except (ValueError, TypeError, OverflowError, RecursionError) as error:  # msgspec's are such, others NumPy's
            raise CacheCorruptError(
                "{path} is no manifest of this release ({error}); {rebuild}", path=path, error=error, rebuild=REBUILD
            ) from None
        if manifest_path(path.parent, name := manifest.shard.name) != path:
            raise CacheCorruptError(
                "{path} is the manifest of another shard, {name}; {rebuild}", path=path, name=name, rebuild=REBUILD
            )
        return manifest


encode_json = msgspec.json.Encoder(enc_hook=str.__str__).encode
"""JSON of manifests and rejections, in which a `Message` is its English text."""


def manifest_path(directory: Folder, shard: str) -> Folder:
    """The path of the manifest of a shard, by the shard's name."""
    return directory / PurePath(shard).with_suffix(".json")
