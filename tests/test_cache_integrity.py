"""A cache that was damaged says so: whatever bit of whatever file, and which records it concerns."""

import threading
from pathlib import Path

import numpy as np
import pytest

import cache.integrity
from cache.integrity import check_record, check_shard, check_split
from cache.reader import CacheReader
from cache.spec import CacheSpec
from cache.storage import shard_files
from preprocess.build.build import BuildConfig, build_cache
from preprocess.check.verify import verify_cache

SIDE = 32
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]
FLIPS = 200
"""Of each test and kind of cache."""

NO_PART_OF_IT = "build.lock"
"""The mark of a build under way."""


@pytest.fixture(scope="module")
def caches(tmp_path_factory, write_coco):
    """One cache of each kind, of several shards; whoever damages one mends it."""
    folder = tmp_path_factory.mktemp("caches")
    coco = write_coco(folder / "coco", counts=(14, 2))
    for store, codec in KINDS:
        spec = CacheSpec(side=SIDE, store=store, codec=codec, shard_samples=4)
        build_cache(BuildConfig(coco=coco, out=folder / store / codec, spec=spec))
    return {kind: folder.joinpath(*kind) for kind in KINDS}


@pytest.fixture
def no_records(monkeypatch):
    """Leave damaged shards at that: a process of its own for each of many would take minutes."""
    monkeypatch.setattr(cache.integrity, "_check_records_apart", lambda reader, samples: iter(()))


class Flipped:
    """A bit of a file is another one within the block."""

    def __init__(self, file, at, bit):
        self._file, self._at, self._bit = file, at, bit

    def __enter__(self):
        self._flip()

    def __exit__(self, *_):
        self._flip()

    def _flip(self):
        with self._file.open("r+b") as stream:
            stream.seek(self._at)
            byte = stream.read(1)[0]
            stream.seek(self._at)
            stream.write(bytes([byte ^ 1 << self._bit]))


def check(root, split):
    """What is found wrong with a split, or with the index."""
    return [damage for damage in verify_cache(root).damages if damage.where.split("/")[0] in (split, "index.json")]


def find_field(reader, sample, field):
    """The file that holds a field of a sample's record, and where in it."""
    entry = reader.samples[sample]
    path = reader.root / reader.split / reader.info.shards[entry["shard"]].name
    data = reader.layout.split(reader.record(sample))[field].tobytes()
    if path.is_file():  # the record is there in one piece; where, says the kernel, for LMDB may keep an old copy, too
        record = reader.record(sample)
        maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        (begin,) = (line[0].partition("-")[0] for line in maps if line[-1] == str(path))
        at = record.ctypes.data - int(begin, 16)
        assert path.read_bytes()[at : at + record.size] == record.tobytes()
        return path, at + record.tobytes().index(data)
    name = ("image", "person", "ignore")[field]
    return next((path / name).glob("c*")), int(entry["row"]) * len(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_found(caches, kind, no_records):
    root, rng = caches[kind], np.random.default_rng(0)
    assert check(root, "train") + check(root, "val") == []
    files = [file for file in root.rglob("*") if file.is_file() and file.stat().st_size and file.name != NO_PART_OF_IT]
    assert len(files) < FLIPS
    for number in range(FLIPS):
        file = files[number % len(files)]
        at, bit = int(rng.integers(file.stat().st_size)), int(rng.integers(8))
        with Flipped(file, at, bit):
            found = verify_cache(root).damages
        inside = file.relative_to(root).parts
        name = inside[-1] if len(inside) == 1 or inside[1] in ("samples.npy", "rejected.jsonl") else ""
        assert [(damage.where, damage.shard.split(".")[0]) for damage in found] == [
            ("/".join(inside), "") if name else (found[0].where, inside[1].split(".")[0])
        ], f"bit {bit} of byte {at} of {file}"
    assert check(root, "train") + check(root, "val") == []


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_flipped_record_is_named(caches, kind):
    root, rng = caches[kind], np.random.default_rng(1)
    with CacheReader(root, "train") as reader:
        places = [[find_field(reader, sample, field) for field in range(3)] for sample in range(len(reader))]
        sizes = [[part.size for part in reader.layout.split(reader.record(n))] for n in range(len(reader))]
    for _ in range(FLIPS):
        sample, field, bit = int(rng.integers(len(places))), int(rng.integers(3)), int(rng.integers(8))
        file, start = places[sample][field]
        with Flipped(file, start + int(rng.integers(sizes[sample][field])), bit), CacheReader(root, "train") as reader:
            (shard,) = (info for info in reader.info.shards if check_shard(reader, info))
            named = [number for number in range(len(reader)) if check_record(reader, number)]
        assert named == [sample]
        assert file.is_relative_to(root / "train" / shard.name)


@pytest.mark.parametrize("kind", KINDS)
def test_damages_come_in_the_order_of_the_shards(caches, kind):
    root, heard = caches[kind], []
    with CacheReader(root, "train") as reader:
        last = len(reader) - 1
        wrong = {0: find_field(reader, 0, 0), last: find_field(reader, last, 1)}
        shards = [reader.info.shards[shard].name for shard in reader.samples["shard"]]
        rows, images = reader.samples["row"], reader.samples["image_id"]
    with Flipped(*wrong[0], 3), Flipped(*wrong[last], 5), CacheReader(root, "train") as reader:
        damages = list(check_split(reader, heard.append))
    places = [(f"train/{shards[n]}", f"train/{shards[n]} row {rows[n]}, image {images[n]}") for n in wrong]
    assert [damage.where for damage in damages] == [*places[0], *places[1]]
    assert {damage.shard for damage in damages} == {shards[0], shards[last]}
    assert sum(heard) == last + 1
    assert len(heard) == len(set(shards))


def test_a_shard_that_crashes_its_reader_is_survived(caches):
    root = caches["lmdb", "raw"]
    with CacheReader(root, "train") as reader:
        info, images = reader.info.shards[0], reader.samples["image_id"][reader.samples["shard"] == 0]
    path = root / "train" / info.name
    whole = path.read_bytes()
    broken = bytearray(whole)
    for at in range(16, 2 * 4096, 64):  # the meta pages: LMDB follows their numbers wherever they lead
        broken[at] ^= 0x5A
    path.write_bytes(broken)
    damages = check(root, "train")
    path.write_bytes(whole)
    rows = [f"train/{info.name} row {row}, image {image}" for row, image in enumerate(images)]
    assert [damage.where for damage in damages] == [f"train/{info.name}", *rows]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_cut_and_foreign_files_are_named(caches, kind, no_records):
    root = caches[kind]
    with CacheReader(root, "val") as reader:
        (info,) = reader.info.shards
    for file in [*shard_files(root / "val" / info.name), (root / "val" / info.name).with_suffix(".json")]:
        whole = file.read_bytes()
        for content in (None, whole[: len(whole) // 2], b"", b"no shard " * 1000):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            assert {damage.shard for damage in check(root, "val")} == {info.name}, (file, content)
            file.write_bytes(whole)
    assert check(root, "val") == []


def test_a_manifest_of_another_shard_is_found(caches):
    root = caches["lmdb", "raw"]
    first, second = sorted(file for file in (root / "train").glob("*.json"))[:2]
    whole = second.read_bytes()
    second.write_bytes(first.read_bytes())
    (damage,) = check(root, "train")
    second.write_bytes(whole)
    assert damage.where == f"train/{second.name}"


def test_a_disk_that_fails_is_a_damage(caches, no_records, monkeypatch):
    def fail(path, rows):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(cache.integrity, "describe", fail)
    damages = check(caches["zarr", "raw"], "train")
    assert damages
    assert all("Input/output error" in damage.what for damage in damages)


def test_whoever_stops_listening_stops_the_check(caches, monkeypatch):
    seen, go_on = [], threading.Event()

    def describe(path, rows):
        seen.append(path)
        if len(seen) > 1:
            assert go_on.wait(20)
        raise OSError("busy")

    monkeypatch.setattr(cache.integrity, "describe", describe)
    monkeypatch.setattr(cache.integrity, "MOST_THREADS", 1)
    with CacheReader(caches["lmdb", "raw"], "train") as reader:
        assert len(reader.info.shards) > 2
        findings = check_split(reader)
        next(findings)
        threading.Timer(0.05, go_on.set).start()
        findings.close()
        assert len(seen) < len(reader.info.shards)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("integrity")]
