"""Bad records, made by flipping bits on disk: a loader stops at them or skips them, and nothing else changes."""

import dataclasses
import shutil
import struct
import threading
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loader.records
from cache.errors import CacheCorruptError
from cache.index import encode_table
from cache.reader import CacheReader
from cache.record import checksum
from cache.spec import CacheSpec
from loader import LEVELS, LoaderConfig, open_loader
from loader.dataset import MaskDataset
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset

SIDE, SAMPLES, BATCH = 64, 22, 4
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]
BAD = {3: "image", 9: "person", 20: "image"}
"""Samples of whose records one bit is flipped, and in which field."""

SOUND = set(range(SAMPLES)) - set(BAD)
REASON = "its checksum differs"

dali = pytest.param(
    "dali", marks=pytest.mark.skipif(find_spec("nvidia.dali") is None, reason="NVIDIA DALI is not installed")
)
backends = pytest.mark.parametrize("backend", ["native", dali])
kinds = pytest.mark.parametrize("kind", KINDS, ids="-".join)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """One synthetic dataset as a cache of each kind."""
    root = tmp_path_factory.mktemp("sound")
    make_dataset(root / "coco", SynthConfig(images=26, val_fraction=4 / 26, seed=5, empty_share=0))
    made = {}
    for store, codec in KINDS:
        made[store, codec] = root / f"{store}-{codec}"
        spec = CacheSpec(side=SIDE, store=store, codec=codec, shard_samples=8)
        build_cache(BuildConfig(coco=root / "coco", out=made[store, codec], spec=spec))
    return made


@pytest.fixture(scope="module")
def damaged(sound, tmp_path_factory):
    """The same caches with the records `BAD`."""
    made = {}
    for kind, path in sound.items():
        made[kind] = shutil.copytree(path, tmp_path_factory.mktemp("damaged") / path.name)
        for sample, field in BAD.items():
            change(made[kind], sample, field, flip_a_bit)
    return made


def flip_a_bit(data):
    return data[:300] + bytes([data[300] ^ 8]) + data[301:]


def change(root, sample, field, edit):
    """Change a field of a record where it lies on disk; `edit` takes its bytes and gives as many."""
    with CacheReader(root, "train") as reader:
        old = getattr(reader.layout.split(reader.record(sample)), field).tobytes()
        shard = root / "train" / reader.info.shards[reader.samples["shard"][sample]].name
    new = edit(old)
    assert len(new) == len(old)
    files = [shard] if shard.is_file() else [path for path in shard.rglob("*") if path.is_file()]
    (path,) = (path for path in files if path.read_bytes().count(old) == 1)
    path.write_bytes(path.read_bytes().replace(old, new))


def bless(root, *samples):
    """Give samples the checksum of what their records hold now, as if they had been written like that."""
    with CacheReader(root, "train") as reader:
        table, index = reader.samples.copy(), reader.index
        for sample in samples:
            table["checksum"][sample] = checksum(reader.record(sample))
    data, digest = encode_table(table)
    (root / "train" / "samples.npy").write_bytes(data)
    split = dataclasses.replace(index.splits["train"], table_checksum=digest)
    dataclasses.replace(index, splits={**index.splits, "train": split}).save(root)


def config(cache, **changes):
    values = {"batch_size": BATCH, "seed": 1, "threads": 2, "drop_last": False, "on_bad_record": "skip"}
    return LoaderConfig(cache=cache, **{**values, **changes})


def take(batches, count=None):
    """The next batches: (samples, image, person, ignore, valid, skipped samples)."""
    taken = []
    for batch in batches:
        tensors = (tensor.clone().numpy() for tensor in (batch.image, batch.person, batch.ignore))
        taken.append((batch.samples.copy(), *tensors, batch.valid, [record.sample for record in batch.skipped]))
        if len(taken) == count:
            break
    return taken


def assert_same_but(mine, others, bad):
    """Batches are equal, but that the rows of `bad` samples are black, empty and ignored in the first of the two."""
    assert len(mine) == len(others) > 0
    for one, other in zip(mine, others, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[4] == other[4]
        rows = np.isin(one[0], list(bad)) & (np.arange(BATCH) < one[4])
        assert one[5] == one[0][rows].tolist()
        for position, blank in ((1, 0), (2, 0), (3, 1)):
            assert (one[position][rows] == blank).all()
            np.testing.assert_array_equal(one[position][~rows], other[position][~rows])


@kinds
@backends
@pytest.mark.parametrize("sample", BAD)
def test_stopping_names_the_record_and_the_remedies(damaged, kind, backend, sample):
    root = damaged[kind]
    with (
        CacheReader(root, "train") as reader,
        open_loader(config(root, backend=backend, shuffle=False, on_bad_record="stop")) as batches,
    ):
        batches.load_state_dict({"epoch": 0, "consumed": sample // BATCH * BATCH})
        with pytest.raises(CacheCorruptError) as caught:
            take(batches)
        assert str(caught.value) == (
            f"sample {sample} (image {reader.samples['image_id'][sample]}) of {root}/train cannot be read: {REASON}; "
            f"run `verify --cache {root}`, which finds all bad records, or train without them: `--on-bad-record skip`"
        )
        assert batches.bad_records == ()
        batches.load_state_dict({"epoch": 0, "consumed": 12})
        assert [batch[0].tolist() for batch in take(batches, 2)] == [[12, 13, 14, 15], [16, 17, 18, 19]]


@kinds
@backends
@pytest.mark.parametrize("level", ["none", "heavy"])
def test_skipping_changes_the_bad_rows_and_nothing_else(sound, damaged, kind, backend, level):
    """One bad record is in the ragged last batch, and another one's number fills that up."""
    same = config(damaged[kind], backend=backend, augment=LEVELS[level], seed=6)
    with open_loader(same) as batches, open_loader(dataclasses.replace(same, cache=sound[kind])) as others:
        for _ in range(2):
            mine = take(batches)
            assert [batch[4] for batch in mine] == [4, 4, 4, 4, 4, 2]
            assert_same_but(mine, take(others), BAD)
        image_ids = batches.reader.samples["image_id"]
        assert [dataclasses.astuple(record) for record in batches.bad_records] == [
            ("train", sample, image_ids[sample], REASON) for sample in BAD
        ]
        assert others.bad_records == ()


@kinds
@backends
def test_going_on_from_a_state_skips_the_same(sound, damaged, kind, backend):
    same = config(damaged[kind], backend=backend, augment=LEVELS["light"])
    with open_loader(dataclasses.replace(same, cache=sound[kind])) as others:
        expected = take(others)
    with open_loader(same) as batches:
        assert_same_but(take(batches, 3), expected[:3], BAD)
        state = batches.state_dict()
        before = [record.sample for record in batches.bad_records]
    with open_loader(same) as batches:
        batches.load_state_dict(state)
        assert_same_but(take(batches), expected[3:], BAD)
        after = [record.sample for record in batches.bad_records]
    assert sorted(before + after) == list(BAD)
    assert before
    assert after


@backends
def test_only_what_was_handed_out_is_counted(damaged, backend):
    """However far ahead the threads are, and also when the epoch is abandoned."""
    root = damaged["lmdb", "raw"]
    with open_loader(config(root, backend=backend, shuffle=False, prefetch=6)) as batches:
        for _ in range(3):
            batches.load_state_dict({"epoch": 0, "consumed": 0})
            take(batches, 2)
            assert [record.sample for record in batches.bad_records] == [3]
        take(batches)
        assert [record.sample for record in batches.bad_records] == list(BAD)


def test_each_rank_counts_its_own(damaged):
    counted = []
    for rank in range(2):
        with open_loader(config(damaged["lmdb", "raw"], batch_size=2, rank=rank, world=2, shuffle=False)) as batches:
            for _ in batches:
                pass
            counted.append([record.sample for record in batches.bad_records])
    assert counted == [[9, 20], [3]]


def overwrite(cache, data):
    """Write other bytes into the files of a cache's shards, as `cp` and `rsync --inplace` do; give those before."""
    before = {}
    for path in (path for path in (cache / "train").rglob("*") if path.suffix == ".lmdb" or path.name.startswith("c.")):
        before[path] = path.read_bytes()
        path.write_bytes(data(path, before[path]))
    return before


@kinds
@backends
def test_a_shard_that_is_overwritten_while_it_is_read_is_told_before_the_epoch_ends(sound, tmp_path, kind, backend):
    """Its records were compared in the first epoch; in the second one nothing else would tell."""
    cache = shutil.copytree(sound[kind], tmp_path / "cache")
    with open_loader(config(cache)) as loader:
        assert len(take(loader)) == len(loader)
        before = overwrite(cache, lambda _, data: data[: len(data) // 2] + flip_a_bit(data[len(data) // 2 :]))
        batches = iter(loader)
        take(batches, len(loader) - 1)
        with pytest.raises(CacheCorruptError, match=r"was overwritten while it was being read; .* --resume"):
            next(batches)
        overwrite(cache, lambda path, _: before[path])
        loader.set_epoch(2)
        assert len(take(loader)) == len(loader), "the same bytes, though they are newer"


@kinds
def test_a_dataset_tells_of_a_shard_that_is_overwritten(sound, tmp_path, kind, monkeypatch):
    monkeypatch.setattr("loader.dataset.CHECK_SECONDS", 0)
    cache = shutil.copytree(sound[kind], tmp_path / "cache")
    dataset = MaskDataset(cache)
    assert len(list(dataset)) == len(dataset)
    before = overwrite(cache, lambda _, data: data[: len(data) // 2] + flip_a_bit(data[len(data) // 2 :]))
    with pytest.raises(CacheCorruptError, match="was overwritten while it was being read"):
        dataset[0]
    overwrite(cache, lambda path, _: before[path])
    assert len(list(dataset)) == len(dataset)


@kinds
@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "touched"])
def test_a_cache_that_makes_way_for_another_is_read_on_as_it_was(sound, tmp_path, kind, how):
    cache = shutil.copytree(sound[kind], tmp_path / "cache")
    with open_loader(config(sound[kind])) as loader:
        expected = take(loader) + take(loader)
    with open_loader(config(cache)) as loader:
        found = take(loader)
        if how == "removed":
            shutil.rmtree(cache)
        elif how == "touched":
            overwrite(cache, lambda _, data: data)
        else:
            cache.rename(tmp_path / "moved")
        if how == "replaced":
            shutil.copytree(sound[kind], cache)
            overwrite(cache, lambda _, data: flip_a_bit(data))
        found += take(loader)
    assert_same_but(found, expected, ())


@kinds
@backends
def test_each_record_is_hashed_once(damaged, kind, backend, monkeypatch):
    hashed = []

    def counting(record):
        hashed.append(record)
        return checksum(record)

    monkeypatch.setattr(loader.records, "checksum", counting)
    with open_loader(config(damaged[kind], backend=backend)) as batches:
        take(batches)
        assert len(hashed) == SAMPLES
        take(batches)
        assert len(hashed) == SAMPLES


@pytest.mark.parametrize("kind", KINDS[:2], ids="-".join)
@settings(max_examples=60, deadline=None)
@given(sample=st.integers(0, SAMPLES - 1), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_bit_of_any_record_is_missed_by_nobody(sound, kind, sample, where, bit):
    with CacheReader(sound[kind], "train") as reader:
        record = reader.record(sample).tobytes()
        shard = sound[kind] / "train" / reader.info.shards[reader.samples["shard"][sample]].name
    at = shard.read_bytes().index(record) + int(where * len(record))
    with shard.open("r+b") as file:

        def flip():
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))
            file.flush()

        flip()
        try:
            with open_loader(config(sound[kind])) as batches:
                take(batches)
                assert [record.sample for record in batches.bad_records] == [sample]
        finally:
            flip()


def no_header(data):
    return bytes(len(data))


def no_scan(data):
    return data[: len(data) // 2].ljust(len(data), b"\xff")


def other_size(data):
    """A whole JPEG of another size; what follows its end is of no interest."""
    return cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes().ljust(len(data), b"\0")


@backends
@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (no_header, "Could not determine subsampling level of JPEG image"),
        (no_scan, "Premature end of JPEG file"),
        (other_size, "its JPEG is 32 x 32 pixels, not 64 x 64"),
    ],
)
def test_a_jpeg_that_was_written_badly(sound, tmp_path, backend, edit, reason):
    """Its checksum is right, so only decoding tells."""
    root = shutil.copytree(sound["lmdb", "jpeg"], tmp_path / "cache")
    change(root, 9, "image", edit)
    bless(root, 9)
    with (
        open_loader(config(root, backend=backend)) as batches,
        open_loader(config(sound["lmdb", "jpeg"], backend=backend)) as others,
    ):
        for _ in range(2):
            assert_same_but(take(batches), take(others), [9])
        (found,) = batches.bad_records
    assert found.sample == 9
    with (
        open_loader(config(root, backend=backend, on_bad_record="stop")) as batches,
        pytest.raises(CacheCorruptError, match=rf"sample 9 \(image .*{reason}"),
    ):
        take(batches)


@backends
def test_a_row_that_the_store_does_not_find(sound, tmp_path, backend):
    """A bit is flipped in a key of LMDB's tree. A node is: size, flags (1: in pages of its own), key's size, key."""
    root = shutil.copytree(sound["lmdb", "raw"], tmp_path / "cache")
    with CacheReader(root, "train") as reader:
        size, (info, *_) = reader.layout.raw_bytes, reader.info.shards
        row = info.rows - 1
        ((sample,),) = ((reader.samples["shard"] == 0) & (reader.samples["row"] == row)).nonzero()
    node = struct.pack("<HHHHI", size & 0xFFFF, size >> 16, 1, 4, 0)[:-1]
    shard = root / "train" / info.name
    data = shard.read_bytes()
    assert node + bytes([row]) in data
    shard.write_bytes(data.replace(node + bytes([row]), node + bytes([row | 0x40])))
    with open_loader(config(root, backend=backend)) as batches:
        take(batches)
        (found,) = batches.bad_records
        assert found.sample == sample
        assert found.reason.startswith(f"row {row} is missing in {shard}")
    with (
        pytest.raises(CacheCorruptError, match=rf"sample {sample} \(image .*row {row} is missing"),
        open_loader(config(root, backend=backend, on_bad_record="stop")) as batches,
    ):
        take(batches)


@kinds
@backends
@pytest.mark.parametrize("on_bad_record", ["stop", "skip"])
def test_a_shard_that_is_missing_is_more_than_a_bad_record(sound, tmp_path, kind, backend, on_bad_record):
    root = shutil.copytree(sound[kind], tmp_path / "cache")
    shard = root / "train" / f"00001.{kind[0]}"
    shard.rename(shard.with_suffix(".away"))
    with pytest.raises(CacheCorruptError, match=f"cannot open the shard {shard}"):
        open_loader(config(root, backend=backend, on_bad_record=on_bad_record))
    assert str(root) not in Path("/proc/self/maps").read_text()


@backends
def test_no_sound_record_at_all_is_an_error(sound, tmp_path, backend):
    root = shutil.copytree(sound["lmdb", "raw"], tmp_path / "cache")
    for sample in range(SAMPLES):
        change(root, sample, "image", flip_a_bit)
    with (
        open_loader(config(root, backend=backend)) as batches,
        pytest.raises(CacheCorruptError, match=f"none of the {SAMPLES} samples of {root}/train can be read.*{REASON}"),
    ):
        take(batches)


@pytest.mark.parametrize("on_bad_record", ["stop", "skip"])
def test_no_thread_stays_behind(damaged, on_bad_record):
    before = {thread.name for thread in threading.enumerate()}
    with open_loader(config(damaged["lmdb", "jpeg"], threads=3, on_bad_record=on_bad_record)) as batches:
        try:
            take(batches)
        except CacheCorruptError:
            assert on_bad_record == "stop"
    assert {thread.name for thread in threading.enumerate()} <= before
    assert str(damaged["lmdb", "jpeg"]) not in Path("/proc/self/maps").read_text()


def test_another_word_is_refused(sound):
    with pytest.raises(ValueError, match="on_bad_record='ignore' is not known; use one of stop, skip"):
        config(sound["lmdb", "raw"], on_bad_record="ignore")
