"""A reader of caches that was written from docs/cache-format.md alone. It imports nothing of maskcache."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import lmdb
import numpy as np
import xxhash

COLUMNS = struct.Struct("<q9ifQ")
NAMES = (
    *("image_id", "height", "width", "box_x", "box_y", "box_width", "box_height", "shard", "row", "persons"),
    *("person_fraction", "checksum"),
)


class RefusedError(Exception):
    """It is no cache that this reader knows, or a damaged one."""


def read_split(root: Path, split: str) -> Iterator[dict[str, Any]]:
    """The samples of a split: the columns of the table, the `image` (bytes), the planes (S x S) of 0 and 1."""
    index = read_index(root)
    spec, info = index["spec"], index["splits"][split]
    shards: dict[int, Iterator[bytes]] = {}
    for sample in read_table(root / split / "samples.npy", info):
        number = sample["shard"]
        if number not in shards:
            shards[number] = read_shard(root / split, spec, info["shards"][number])
        record = next(shards[number])
        if xxhash.xxh3_64_intdigest(record) != sample["checksum"]:
            raise RefusedError(f"the record of image {sample['image_id']} is damaged")
        yield {**sample, **split_record(record, spec)}


def read_index(root: Path) -> dict[str, Any]:
    """The member `index` of index.json."""
    try:
        document = json.loads((root / "index.json").read_bytes())
    except FileNotFoundError:
        raise RefusedError("no index.json: there is no cache, or an unfinished one") from None
    if document["format_version"] != 2:
        raise RefusedError(f"format version {document['format_version']} is not known")
    canonical = json.dumps(document["index"], sort_keys=True).encode()
    if xxhash.xxh3_128_hexdigest(canonical) != document["checksum"]:
        raise RefusedError("index.json was changed")
    index: dict[str, Any] = document["index"]
    if index["spec"]["codec"] not in ("raw", "jpeg") or index["spec"]["store"] not in ("lmdb", "zarr"):
        raise RefusedError("an unknown codec or store")
    return index


def read_table(path: Path, info: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of samples.npy."""
    data = path.read_bytes()
    if xxhash.xxh3_128_hexdigest(data) != info["table_checksum"]:
        raise RefusedError("samples.npy was changed")
    assert data[:8] == b"\x93NUMPY\x01\x00"
    rows = data[10 + int.from_bytes(data[8:10], "little") :]
    assert len(rows) == info["samples"] * COLUMNS.size
    for values in COLUMNS.iter_unpack(rows):
        yield dict(zip(NAMES, values, strict=True))


def read_shard(folder: Path, spec: dict[str, Any], shard: dict[str, Any]) -> Iterator[bytes]:
    """The records of a shard, in order."""
    path = folder / shard["name"]
    files = [path] if spec["store"] == "lmdb" else sorted(file for file in path.rglob("*") if file.is_file())
    if sum(file.stat().st_size for file in files if file.exists()) != shard["bytes"]:
        raise RefusedError(f"{path} is missing or of another size")
    if spec["store"] == "lmdb":
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as file, file.begin() as transaction:
            for row in range(shard["rows"]):
                record = transaction.get(row.to_bytes(4, "big"))
                if record is None:
                    raise RefusedError(f"row {row} of {path} is missing")
                yield record
    else:
        area = spec["side"] ** 2
        image = read_chunks(path / "image" / "c.0.0.0.0", 3 * area, shard["rows"])
        person, ignore = (
            read_chunks(path / name / "c.0.0.0", area // 8, shard["rows"]) for name in ("person", "ignore")
        )
        yield from (b"".join(parts) for parts in zip(image, person, ignore, strict=True))


def read_chunks(path: Path, size: int, rows: int) -> list[bytes]:
    """The rows of a Zarr data file, each of so many bytes."""
    data = path.read_bytes()
    index = b"".join(struct.pack("<QQ", row * size, size) for row in range(rows))
    end = index + google_crc32c.value(index).to_bytes(4, "little")
    if len(data) != rows * size + len(end) or data[rows * size :] != end:
        raise RefusedError(f"{path} does not end with its index")
    return [data[row * size : (row + 1) * size] for row in range(rows)]


def split_record(record: bytes, spec: dict[str, Any]) -> dict[str, Any]:
    """The three parts of a record."""
    area = spec["side"] ** 2
    begin, size = 0, 3 * area
    if spec["codec"] == "jpeg":
        begin, size = 4, int.from_bytes(record[:4], "little")
    if len(record) != begin + size + area // 4:
        raise RefusedError(f"a record has {len(record)} bytes")
    planes = record[begin + size :]
    return {
        "image": record[begin : begin + size],
        "person": unpack(planes[: area // 8], spec["side"]),
        "ignore": unpack(planes[area // 8 :], spec["side"]),
    }


def unpack(packed: bytes, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A plane as `(S, S)`, y before x."""
    bits = [byte >> bit & 1 for byte in packed for bit in range(8)]
    return np.array(bits, np.uint8).reshape(side, side)
