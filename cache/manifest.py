"""`<split>/00012.json`: all that is known of the shard 00012, written after it and before the index.

With it a shard can be judged alone: whether an interrupted build has finished it, whether it is still what its sources
would give, and which images were left out of it. The first line is the checksum of the second, which is JSON.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import xxhash

from cache import files
from cache.errors import REBUILD, CacheCorruptError
from cache.index import SAMPLE_DTYPE, SampleTable, ShardInfo, check_shard_name

Folder = TypeVar("Folder", bound=PurePath)

COLUMNS = tuple(name for name in SAMPLE_DTYPE.names or () if name not in ("shard", "row"))
"""Columns of the sample table that a shard knows before it has its place among the others."""


class ImageSource(NamedTuple):
    """The source of a record, or of a rejection.

    Attributes:
        image_id: the image's id.
        file_name: its name in the split's folder.
        file_bytes: size of the file; -1 where it is missing.
        annotations: digest of everything that the annotation file says of it.
        content: XXH3 (64 bits) of the file's bytes as they were read; 0 where they were not.
    """

    image_id: int
    file_name: str
    file_bytes: int
    annotations: int
    content: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """An image that was left out, and why; or an annotation without an image, by its file and with an id of -1."""

    split: str
    image_id: int
    file_name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardManifest:
    """A finished shard.

    Attributes:
        shard: name, size and checksum of its bytes.
        sources: of all its images, those that were rejected included, in order.
        samples: a row of `COLUMNS` for each record.
        rejections: the images that gave no record.
    """

    shard: ShardInfo
    sources: tuple[ImageSource, ...]
    samples: tuple[tuple[Any, ...], ...]
    rejections: tuple[Rejection, ...]

    def table(self, shard: int) -> SampleTable:
        """Its rows of the sample table, when it is the split's shard number `shard`."""
        table = np.zeros(len(self.samples), SAMPLE_DTYPE)
        for column, values in zip(COLUMNS, zip(*self.samples, strict=True), strict=bool(self.samples)):
            table[column] = values
        table["shard"], table["row"] = shard, np.arange(len(table))
        return table

    def save(self, directory: PurePath) -> None:
        """Mark the shard as finished: it must be durable by now.

        Raises:
            StorageError: object storage cannot be written.
        """
        body = msgspec.json.encode(self)
        digest = xxhash.xxh3_128_hexdigest(body).encode()
        files.write(manifest_path(directory, self.shard.name), digest + b"\n" + body + b"\n")

    @classmethod
    def load(cls, path: PurePath) -> ShardManifest:
        """Read and check a manifest.

        Raises:
            CacheCorruptError: it is missing, or not what was written.
            StorageError: object storage cannot be read.
        """
        try:
            data = files.read(path)
        except FileNotFoundError:
            raise CacheCorruptError("{path} is missing; {rebuild}", path=path, rebuild=REBUILD) from None
        return cls.decode(data, path)

    @classmethod
    def decode(cls, data: bytes, path: PurePath) -> ShardManifest:
        """Check the bytes of a manifest that were read at `path`.

        Raises:
            CacheCorruptError: they are not what was written.
        """
        try:
            digest, body, _ = data.split(b"\n")
        except ValueError:
            raise CacheCorruptError("{path} is no shard manifest; {rebuild}", path=path, rebuild=REBUILD) from None
        if xxhash.xxh3_128_hexdigest(body).encode() != digest:
            raise CacheCorruptError(
                "{path} was changed after it was written (its checksum differs); {rebuild}", path=path, rebuild=REBUILD
            )
        try:
            manifest = msgspec.json.decode(body, type=cls)
            check_shard_name(manifest.shard.name)
        except ValueError as error:  # msgspec's errors are such
            raise CacheCorruptError(
                "{path} is no manifest of this release ({error}); {rebuild}", path=path, error=error, rebuild=REBUILD
            ) from None
        if manifest_path(path.parent, manifest.shard.name) != path:
            raise CacheCorruptError(
                "{path} is the manifest of another shard, {name}; {rebuild}",
                path=path,
                name=manifest.shard.name,
                rebuild=REBUILD,
            )
        return manifest


def manifest_path(directory: Folder, shard: str) -> Folder:
    """The path of the manifest of a shard, by the shard's name."""
    return directory / PurePath(shard).with_suffix(".json")
