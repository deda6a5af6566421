"""One contract for every store."""

import pickle
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from cache.errors import CacheCorruptError, CacheError, CacheWriteError
from cache.index import SAMPLE_DTYPE, CacheIndex, SourceInfo, SplitInfo, encode_table
from cache.reader import CacheReader
from cache.record import RecordLayout, checksum
from cache.shards import describe, open_reader, write_shard
from cache.spec import CacheSpec
from tests.packing import pack_record

SIDE = 32
STORES = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]


def make_records(codec, count, seed=0):
    rng = np.random.default_rng(seed)
    layout = RecordLayout(SIDE, codec)
    records = []
    for _ in range(count):
        shape = (SIDE, SIDE, 3) if codec == "raw" else int(rng.integers(1, 3000))
        records.append(
            pack_record(
                layout,
                rng.integers(0, 256, shape, dtype=np.uint8),
                *rng.integers(0, 2, (2, SIDE, SIDE), dtype=np.uint8),
            )
        )
    return layout, records


def write(folder, store, layout, records):
    """One shard, of fewer records than it might have had."""
    folder.mkdir(exist_ok=True)
    with write_shard(folder, 0, store, layout, capacity=len(records) + 7) as writer:
        for record in records:
            writer.append(record)


def flip_last_byte(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def make_cache(root, store, codec, shards=(5, 3)):
    """A finished cache with one split, written through the public pieces."""
    layout, records = make_records(codec, sum(shards))
    table = np.zeros(len(records), SAMPLE_DTYPE)
    table["height"] = table["width"] = table["box_height"] = table["box_width"] = SIDE
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
    write(tmp_path, store, layout, records)
    assert [path.name for path in tmp_path.iterdir()] == [f"00000.{store}"], "no temporary file stays"
    reader = open_reader(store, tmp_path / f"00000.{store}", layout, count)
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


@pytest.mark.parametrize(("store", "codec"), STORES)
def test_fields_are_views_of_the_parts(store, codec, tmp_path):
    records = make_cache(tmp_path / "c", store, codec)
    with CacheReader(tmp_path / "c", "train") as reader:
        for sample, record in enumerate(records):
            parts = zip(reader.fields(sample), reader.fields(sample), reader.layout.split(record), strict=True)
            for field, again, part in parts:
                np.testing.assert_array_equal(field, part)
                assert field.ctypes.data == again.ctypes.data
                assert not field.flags.writeable


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


@pytest.mark.parametrize("name", ["image", "person", "ignore"])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:100], lambda data: b"", flip_last_byte])
def test_a_zarr_shard_that_is_not_ours_is_corrupt(name, change, tmp_path):
    layout, records = make_records("raw", 3)
    write(tmp_path, "zarr", layout, records)
    (file,) = (tmp_path / "00000.zarr" / name).glob("c*")
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CacheCorruptError, match="cannot open the shard"):
        open_reader("zarr", tmp_path / "00000.zarr", layout, 3)


def read_with_zarr(path):
    group = zarr.open_group(str(path), mode="r")
    return {name: np.asarray(group[name]) for name in ("image", "person", "ignore")}


def read_with_zarrs(path):
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return read_with_zarr(path)


def read_with_tensorstore(path):
    tensorstore = pytest.importorskip("tensorstore")

    def read(name):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path / name}/"}}
        return tensorstore.open(spec, read=True).result().read().result()

    return {name: read(name) for name in ("image", "person", "ignore")}


@pytest.mark.parametrize("read", [read_with_zarr, read_with_zarrs, read_with_tensorstore])
@pytest.mark.parametrize("count", [0, 1, 70])
def test_any_zarr_reader_opens_a_shard(read, count, tmp_path):
    layout, records = make_records("raw", count)
    for record in records[::2]:
        layout.split(record).ignore[:] = 0  # Zarr may leave out what is all zero: nothing goes wrong with it
    write(tmp_path, "zarr", layout, records)
    arrays = read(tmp_path / "00000.zarr")
    assert arrays["image"].shape == (count, SIDE, SIDE, 3)
    assert arrays["person"].shape == arrays["ignore"].shape == (count, SIDE, SIDE // 8)
    for row, record in enumerate(records):
        for name, field in zip(("image", "person", "ignore"), layout.split(record), strict=True):
            np.testing.assert_array_equal(arrays[name][row].reshape(-1), field)


def test_a_zarr_shard_says_what_it_is(tmp_path):
    layout, records = make_records("raw", 2)
    write(tmp_path, "zarr", layout, records)
    group = zarr.open_group(str(tmp_path / "00000.zarr"), mode="r")
    assert group.attrs["side"] == SIDE
    assert group.attrs["planes"] == "8 pixels a byte, least significant bit first"
    assert (group["image"].chunks, group["image"].shards) == ((1, SIDE, SIDE, 3), (2, SIDE, SIDE, 3))
    assert group["image"].metadata.dimension_names == ("sample", "y", "x", "channel")
    bits = np.unpackbits(np.asarray(group["person"][1]), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits, layout.unpack_plane(layout.split(records[1]).person))


def test_zarr_shards_of_equal_records_are_equal(tmp_path):
    layout, records = make_records("raw", 5)
    for folder in (tmp_path / "a", tmp_path / "b"):
        write(folder, "zarr", layout, records)
    first, second = (describe(folder / "00000.zarr", 5) for folder in (tmp_path / "a", tmp_path / "b"))
    assert (first.bytes, first.checksum) == (second.bytes, second.checksum)


@pytest.mark.parametrize(("store", "codec"), STORES)
def test_a_writer_is_done_with_a_record_when_it_returns(store, codec, tmp_path):
    layout, records = make_records(codec, 40)
    buffer = np.empty(max(record.size for record in records), np.uint8)
    with write_shard(tmp_path, 0, store, layout, len(records)) as writer:
        for record in records:
            buffer[: record.size] = record
            writer.append(buffer[: record.size])
            buffer[:] = 0
    reader = open_reader(store, tmp_path / f"00000.{store}", layout, len(records))
    for row, record in enumerate(records):
        np.testing.assert_array_equal(reader.record(row), record)
    reader.close()


@pytest.mark.parametrize("store", ["lmdb", "zarr"])
def test_a_write_that_fails_leaves_nothing(store, tmp_path):
    layout, records = make_records("raw", 64)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write_within(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))  # as a full disk: the kernel refuses to write on
        try:
            write(tmp_path, store, layout, records)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    with pytest.raises(CacheWriteError, match=rf"cannot write .*00000\.{store}"):
        write_within(20_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("store", "codec"), STORES)
def test_threads_share_a_reader(store, codec, tmp_path):
    records = make_cache(tmp_path / "c", store, codec, shards=(4,) * 8)
    together = threading.Barrier(8)

    def read(seed):
        order = np.random.default_rng(seed).permutation(len(records)).tolist()
        together.wait()
        return [
            np.array_equal(reader.record(sample), records[sample])
            and all(map(np.array_equal, reader.fields(sample), reader.layout.split(records[sample])))
            for sample in order
        ]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            with CacheReader(tmp_path / "c", "train") as reader:
                assert all(all(found) for found in pool.map(read, range(8)))
            assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.fixture
def few_files():
    """This process may have few files open, unless it asks for more."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))


@pytest.mark.parametrize("store", ["lmdb", "zarr"])
def test_more_shards_than_a_process_may_usually_open(store, tmp_path, few_files, monkeypatch):
    records = make_cache(tmp_path / "c", store, "raw", shards=(1,) * 120)
    with CacheReader(tmp_path / "c", "train") as reader:
        for sample, record in enumerate(records):
            np.testing.assert_array_equal(reader.record(sample), record)
    monkeypatch.setattr("cache.reader.resource.getrlimit", lambda _: (100, 200))
    with (
        CacheReader(tmp_path / "c", "train") as reader,
        pytest.raises(CacheError, match=r"616 files .* the limit is 200; raise it: ulimit -n 616"),
    ):
        reader.record(0)
