"""One contract for every store."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from cache.errors import CacheCorruptError, CacheError
from cache.index import SAMPLE_DTYPE, CacheIndex, SourceInfo, SplitInfo, encode_table
from cache.integrity import check_shard, check_split
from cache.reader import CacheReader
from cache.record import RecordLayout, checksum
from cache.shards import describe, open_reader, write_shard
from cache.spec import CacheSpec

SIDE = 32
STORES = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]


def make_records(codec, count, seed=0):
    rng = np.random.default_rng(seed)
    layout = RecordLayout(SIDE, codec)
    records = []
    for _ in range(count):
        shape = (SIDE, SIDE, 3) if codec == "raw" else int(rng.integers(1, 3000))
        records.append(
            layout.pack(
                rng.integers(0, 256, shape, dtype=np.uint8), *rng.integers(0, 2, (2, SIDE, SIDE), dtype=np.uint8)
            )
        )
    return layout, records


def make_cache(root, store, codec, shards=(5, 3)):
    """A finished cache with one split, written through the public pieces."""
    layout, records = make_records(codec, sum(shards))
    table = np.zeros(len(records), SAMPLE_DTYPE)
    infos, at = [], 0
    (root / "train").mkdir(parents=True)
    for number, rows in enumerate(shards):
        with write_shard(root / "train", number, store, layout, rows) as writer:
            for row in range(rows):
                writer.append(records[at])
                table[at]["shard"], table[at]["row"], table[at]["image_id"] = number, row, 1000 + at
                table[at]["checksum"] = checksum(records[at])
                at += 1
        infos.append(describe(root / "train" / f"{number:05d}.{store}", rows))
    data, table_checksum = encode_table(table)
    (root / "train" / "samples.npy").write_bytes(data)
    split = SplitInfo(
        samples=len(table),
        rejected=0,
        table_checksum=table_checksum,
        shards=tuple(infos),
        source=SourceInfo(annotations="", images=""),
    )
    spec = CacheSpec(side=SIDE, store=store, codec=codec)
    CacheIndex(spec=spec, fingerprint="", tools={}, splits={"train": split}).save(root)
    return records


@pytest.mark.parametrize(("store", "codec"), STORES)
@pytest.mark.parametrize("count", [0, 1, 70])
def test_what_was_written_is_read(store, codec, count, tmp_path):
    layout, records = make_records(codec, count)
    with write_shard(tmp_path, 0, store, layout, capacity=count + 7) as writer:
        for record in records:
            writer.append(record)
    assert [path.name for path in tmp_path.iterdir()] == [f"00000.{store}"], "no temporary file stays"
    reader = open_reader(store, tmp_path / f"00000.{store}", layout)
    for row in np.random.default_rng(0).permutation(count):
        np.testing.assert_array_equal(reader.record(int(row)), records[row])
    with pytest.raises(CacheCorruptError):
        reader.record(count)
    reader.close()


@pytest.mark.parametrize(("store", "codec"), STORES)
def test_a_failed_shard_leaves_nothing(store, codec, tmp_path):
    layout, records = make_records(codec, 3)

    def fail_midway():
        with write_shard(tmp_path, 0, store, layout, 3) as writer:
            writer.append(records[0])
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail_midway()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("store", "codec"), STORES)
def test_reader_finds_samples_over_shards_and_survives_pickling(store, codec, tmp_path):
    records = make_cache(tmp_path / "c", store, codec)
    with CacheReader(tmp_path / "c", "train") as reader:
        assert len(reader) == 8
        np.testing.assert_array_equal(reader.record(6), records[6])
        twin = pickle.loads(pickle.dumps(reader))
    with twin:
        for sample, record in enumerate(records):
            np.testing.assert_array_equal(twin.record(sample), record)
        assert list(check_split(twin)) == []


def test_addresses_point_at_the_records(tmp_path):
    import ctypes

    records = make_cache(tmp_path / "c", "lmdb", "jpeg")
    with CacheReader(tmp_path / "c", "train") as reader:
        where, size = reader.addresses()
        for sample, record in enumerate(records):
            assert ctypes.string_at(int(where[sample]), int(size[sample])) == record.tobytes()


@pytest.mark.parametrize(("store", "codec"), STORES)
def test_two_readers_share_a_file_and_part_in_any_order(store, codec, tmp_path):
    records = make_cache(tmp_path / "c", store, codec)
    first, second = CacheReader(tmp_path / "c", "train"), CacheReader(tmp_path / "c", "train")
    np.testing.assert_array_equal(first.record(2), second.record(2))
    first.close()
    np.testing.assert_array_equal(second.record(2), records[2])
    np.testing.assert_array_equal(first.record(3), records[3])  # opens again
    second.close()
    first.close()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_unknown_split_is_named(tmp_path):
    make_cache(tmp_path / "c", "lmdb", "raw")
    with pytest.raises(CacheError, match="has no split 'test'; it has train"):
        CacheReader(tmp_path / "c", "test")


@pytest.mark.parametrize(("store", "codec"), STORES)
def test_every_flipped_bit_is_found(store, codec, tmp_path):
    root = tmp_path / "c"
    make_cache(root, store, codec, shards=(3,))
    path = root / "train" / f"00000.{store}"
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    rng = np.random.default_rng(0)
    for _ in range(200):
        file = files[rng.integers(len(files))]
        data = bytearray(file.read_bytes())
        at, bit = int(rng.integers(len(data))), int(rng.integers(8))
        data[at] ^= 1 << bit
        file.write_bytes(data)
        reader = CacheReader(root, "train")
        assert check_shard(reader, reader.info.shards[0]), f"bit {bit} of byte {at} of {file}"
        data[at] ^= 1 << bit
        file.write_bytes(data)


def test_damage_is_named_by_record(tmp_path):
    root = tmp_path / "c"
    records = make_cache(root, "lmdb", "raw", shards=(3,))
    path = root / "train" / "00000.lmdb"
    data = bytearray(path.read_bytes())
    at = data.index(records[1][:200].tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    with CacheReader(root, "train") as reader:
        damages = list(check_split(reader))
    assert [damage.where for damage in damages] == ["train/00000.lmdb", "train/00000.lmdb row 1, image 1001"]


def test_a_shard_that_crashes_its_reader_is_survived(tmp_path):
    root = tmp_path / "c"
    make_cache(root, "lmdb", "raw", shards=(3,))
    path = root / "train" / "00000.lmdb"
    data = bytearray(path.read_bytes())
    for at in range(16, 2 * 4096, 64):  # the meta pages: LMDB follows their numbers wherever they lead
        data[at] ^= 0x5A
    path.write_bytes(data)
    with CacheReader(root, "train") as reader:
        damages = list(check_split(reader))
    assert [damage.where.split(",")[0] for damage in damages] == [
        "train/00000.lmdb",
        *(f"train/00000.lmdb row {row}" for row in range(3)),
    ]


def test_missing_and_foreign_shards_are_corrupt(tmp_path):
    root = tmp_path / "c"
    make_cache(root, "lmdb", "raw")
    (root / "train" / "00000.lmdb").unlink()
    (root / "train" / "00001.lmdb").write_bytes(b"no lmdb" * 1000)
    with CacheReader(root, "train") as reader:
        with pytest.raises(CacheCorruptError, match="cannot open the shard"):
            reader.record(0)
        with pytest.raises(CacheCorruptError, match=r"00001\.lmdb has 7,000 bytes, not "):
            reader.record(7)
        wheres = {damage.where.split(" ")[0] for damage in check_split(reader)}
    assert wheres == {"train/00000.lmdb", "train/00001.lmdb"}


def test_any_zarr_reader_opens_a_shard(tmp_path):
    import zarr

    records = make_cache(tmp_path / "c", "zarr", "raw", shards=(5,))
    group = zarr.open_group(str(tmp_path / "c" / "train" / "00000.zarr"), mode="r")
    assert group["image"].shape == (5, SIDE, SIDE, 3)
    assert group.attrs["side"] == SIDE
    layout = RecordLayout(SIDE, "raw")
    np.testing.assert_array_equal(np.asarray(group["image"][3]).reshape(-1), layout.split(records[3]).image)
    np.testing.assert_array_equal(
        np.unpackbits(np.asarray(group["person"][3]), axis=1, bitorder="little"),
        layout.unpack_plane(layout.split(records[3]).person),
    )
