"""The files of a cache, signed anew: its index, tables, manifests, records and Zarr shards."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numba
import numpy as np
import pytest
import simplejpeg
import xxhash

import cache.integrity
from cache.errors import CacheError
from cache.index import FORMAT_VERSION, ShardManifest, SplitInfo, decode_table
from cache.reader import CacheReader
from cache.record import RecordLayout, checksum
from cache.spec import CacheSpec
from cache.zarr_shards import ZarrReader, ZarrWriter
from loader.records import IMAGE, RecordMap
from preprocess.build.build import BuildConfig, build_cache
from preprocess.check.structure import check_cache
from preprocess.check.verify import verify_cache
from tests.conftest import _write_coco
from tests.fuzz import Target
from tests.fuzz.mutation import mutate_json

SIDE = 32
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]

FOLDER = tempfile.TemporaryDirectory(prefix="maskcache-fuzz-")


def build(root: Path, store: str, codec: str) -> None:
    """Build a cache below a folder, of photos that are drawn there."""
    if not (root / "coco").exists():
        _write_coco(root / "coco", counts=(7, 4))
    spec = CacheSpec(side=SIDE, store=store, codec=codec, shard_samples=2)
    build_cache(BuildConfig(coco=root / "coco", out=root / f"{store}-{codec}", spec=spec, workers=1))


class Sound:
    """A cache of five and three images, its files as they were, and its records."""

    def __init__(self, store: str, codec: str) -> None:
        root = Path(FOLDER.name)
        self.root = root / f"{store}-{codec}"
        if numba.config.DISABLE_JIT:  # a build needs compiled kernels
            code = f"from tests.fuzz.cached import *; build(Path({str(root)!r}), {store!r}, {codec!r})"
            subprocess.run([sys.executable, "-c", code], env={**os.environ, "NUMBA_DISABLE_JIT": "0"}, check=True)
        else:
            build(root, store, codec)
        self.files = {path: path.read_bytes() for path in self.root.rglob("*") if path.suffix in (".json", ".npy")}
        self.index = json.loads(self.files[self.root / "index.json"])["index"]
        self.records = {}
        for split in self.index["splits"]:
            with CacheReader(self.root, split) as reader:
                self.records[split] = [reader.record(row).tobytes() for row in range(len(reader))]

    def sign(self, index: Any) -> bytes:
        """The bytes of an index file."""
        body = json.dumps(index, sort_keys=True).encode()
        document = {"format_version": FORMAT_VERSION, "checksum": xxhash.xxh3_128_hexdigest(body), "index": index}
        return json.dumps(document).encode()

    def check(self, changed: dict[Path, bytes]) -> None:
        """With some files changed, all is read as it was, or refused, or its checksum tells; `verify` never raises."""
        for path, data in changed.items():
            path.write_bytes(data)
        try:
            if zlib.crc32(b"".join(changed.values())) % 4 == 0:  # it takes far longer than the rest
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(cache.integrity, "_check_records_apart", lambda *_: ())  # in another process
                    verify_cache(self.root)
                check_cache(self.root)
            for split, records in self.records.items():
                with suppress(CacheError), CacheReader(self.root, split) as reader:
                    _compare(reader, records)
        finally:
            for path in changed:
                path.write_bytes(self.files[path])


def _compare(reader: CacheReader, records: list[bytes]) -> None:
    found = RecordMap(reader, "skip")
    samples = np.arange(len(reader))
    places = found.find(samples, len(samples))
    assert len(samples) == len(records)
    for row in samples[places[:, IMAGE] != 0].tolist():
        assert reader.record(row).tobytes() == records[row]


def sound(number: int) -> Sound:
    """The cache of a kind, by any number."""
    return _sound(number % len(KINDS))


@lru_cache
def _sound(number: int) -> Sound:
    return Sound(*KINDS[number])


# --- index, table, manifests -----------------------------------------------------------------------------------------


def check_index(data: bytes) -> None:
    """`[kind, index]` as JSON."""
    try:
        number, index = json.loads(data)
        base = sound(int(number))
        signed = base.sign(index)
    except (ValueError, RecursionError, TypeError, OverflowError):
        return
    base.check({base.root / "index.json": signed})


def check_index_file(data: bytes) -> None:
    """Any bytes in place of an index."""
    base = sound(0)
    base.check({base.root / "index.json": data})


def index_files() -> list[bytes]:
    base = sound(0)
    empty = xxhash.xxh3_128_hexdigest(b"null")
    return [
        base.files[base.root / "index.json"],
        json.dumps({"format_version": 2, "checksum": empty, "index": None}).encode(),
    ]


def check_table(data: bytes) -> None:
    """The kind in one byte, and a sample table."""
    base = sound(data[0] if data else 0)
    index, path = json.loads(json.dumps(base.index)), base.root / "train" / "samples.npy"
    index["splits"]["train"]["table_checksum"] = xxhash.xxh3_128_hexdigest(data[1:])
    with suppress(CacheError):
        decode_table(data[1:], path, msgspec.convert(index["splits"]["train"], SplitInfo), SIDE)
    if zlib.crc32(data) % 16 == 0:
        base.check({path: data[1:], base.root / "index.json": base.sign(index)})


def check_manifest(data: bytes) -> None:
    """The kind in one byte, and the JSON of a manifest; a digest is put in front of it."""
    base, body = sound(data[0] if data else 0), data[1:]
    path = sorted((base.root / "train").glob("*.json"))[0]
    signed = xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body + b"\n"
    with suppress(CacheError):
        manifest = ShardManifest.decode(signed, path)
        manifest.table(3)
    if zlib.crc32(data) % 16 == 0:
        base.check({path: signed})


def mutate_behind_kind(data: bytes, draw: random.Random) -> bytes | None:
    body = mutate_json(data[1:], draw)
    return None if body is None else bytes([draw.randrange(3)]) + body


def _bodies(name: str) -> list[bytes]:
    found = []
    for number in range(len(KINDS)):
        base = sound(number)
        for path, data in sorted(base.files.items()):
            if path.parent.name == "train" and path.suffix == name:
                found.append(bytes([number]) + (data if name == ".npy" else data.split(b"\n")[1]))
    return found


# --- records ---------------------------------------------------------------------------------------------------------

GUARD = 64


class Sampled(SimpleNamespace):
    """What is asked of a reader: by its attributes, and by its length."""

    def __len__(self) -> int:
        return len(self.samples)


def check_record(data: bytes) -> None:
    """The codec in one byte, and a record: nothing is written beside the buffer for its pixels."""
    codec = "jpeg" if data and data[0] % 2 else "raw"
    record = np.frombuffer(data[1:], np.uint8)
    layout = RecordLayout(SIDE, codec)
    samples = np.zeros(2, [("image_id", "<i8"), ("checksum", "<u8"), ("shard", "<i4")])
    samples["checksum"] = checksum(record)
    reader = Sampled(
        samples=samples, layout=layout, in_place=False, fetches=False, root="cache", split="train",
        record=lambda _: record, fields=lambda _: layout.split(record), watch=lambda _: None,
    )  # fmt: skip
    found = RecordMap(reader, "skip")
    numbers = np.arange(1)
    places = found.find(numbers, 1)
    if places[0, IMAGE] == 0:
        assert found._bad
        return
    fields = layout.split(record)
    assert fields.person.size == fields.ignore.size == layout.plane_bytes
    if codec == "jpeg":
        room = np.full(layout.image_bytes + 2 * GUARD, 7, np.uint8)
        out = room[GUARD:-GUARD].reshape(1, -1)
        found.decode(numbers, places, out)
        assert (room[:GUARD] == 7).all()
        assert (room[-GUARD:] == 7).all()
        if places[0, IMAGE]:
            again = simplejpeg.decode_jpeg(fields.image.tobytes(), "RGB")
            assert np.array_equal(out.reshape(again.shape), again)


def records() -> list[bytes]:
    found = [bytes([0]) + sound(0).records["train"][0]]
    return found + [bytes([1]) + each for each in sound(1).records["train"][:2]]


# --- Zarr shards -----------------------------------------------------------------------------------------------------


@lru_cache
def zarr_shard() -> Path:
    path, layout = Path(FOLDER.name) / "shard.zarr", RecordLayout(SIDE, "raw")
    shutil.rmtree(path, ignore_errors=True)
    writer = ZarrWriter(path, layout)
    for number in range(2):
        writer.append(np.full(layout.raw_bytes, number + 1, np.uint8))
    writer.close()
    return path


def check_zarr(data: bytes) -> None:
    """The number of a file in one byte, and its content."""
    files = sorted(path for path in zarr_shard().rglob("c.*"))
    path = files[data[0] % len(files)] if data else files[0]
    before = path.read_bytes()
    path.write_bytes(data[1:])
    try:
        reader = ZarrReader(zarr_shard(), RecordLayout(SIDE, "raw"))
        for row in range(reader.rows):
            reader.fields(row)
        reader.close()
    except CacheError:
        return
    finally:
        path.write_bytes(before)


def zarr_files() -> list[bytes]:
    return [bytes([number]) + path.read_bytes() for number, path in enumerate(sorted(zarr_shard().rglob("c.*")))]


TARGETS = {
    "index": Target(
        check=check_index,
        seeds=lambda: [json.dumps([number, sound(number).index]).encode() for number in range(len(KINDS))],
        mutate=mutate_json,
    ),
    "index_file": Target(check=check_index_file, seeds=index_files, mutate=mutate_json),
    "table": Target(check=check_table, seeds=lambda: _bodies(".npy")),
    "manifest": Target(check=check_manifest, seeds=lambda: _bodies(".json"), mutate=mutate_behind_kind),
    "record": Target(check=check_record, seeds=records),
    "zarr": Target(check=check_zarr, seeds=zarr_files),
}
