"""A cache that is signed and means nonsense: it is refused by name, or what it gives is what the sound one gives."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import xxhash
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import CacheError
from cache.index import SAMPLE_DTYPE, encode_table
from cache.reader import CacheReader
from cache.spec import CacheSpec
from cli import main
from loader import LoaderConfig, open_loader
from preprocess.build.build import BuildConfig, build_cache, repair_cache
from preprocess.check.verify import verify_cache

SIDE = 64
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]
EDITS = int(os.environ.get("MASKCACHE_FUZZ", "40"))
"""Of each kind of cache; MASKCACHE_FUZZ=1000 takes a few minutes."""

HUGE = 10**12

kinds = pytest.mark.parametrize("kind", KINDS, ids="-".join)


@pytest.fixture(scope="module")
def sound(tmp_path_factory, write_coco):
    """A dataset, and a cache of each kind: eight samples in several shards, three in one; one image is rejected."""
    folder = tmp_path_factory.mktemp("sound")
    coco = write_coco(folder / "coco", counts=(11, 4))
    photo = next((coco / "train2017").iterdir())
    photo.write_bytes(photo.read_bytes()[:200])
    made = {}
    for store, codec in KINDS:
        made[store, codec] = folder / f"{store}-{codec}"
        spec = CacheSpec(side=SIDE, store=store, codec=codec, shard_samples=6)
        build_cache(BuildConfig(coco=coco, out=made[store, codec], spec=spec))
    return coco, made


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A function that copies a cache to a folder that the next copy takes."""
    folder = tmp_path_factory.mktemp("copy") / "cache"

    def copied(cache):
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(cache, folder)

    return copied


def contents(cache):
    """All files of a cache but the mark of a build, by their names."""
    files = [path for path in cache.rglob("*") if path.is_file() and path.name != "build.lock"]
    return {path.relative_to(cache): path.read_bytes() for path in files}


class Signed:
    """The index, the tables and the manifests of a cache, which are changed and signed anew."""

    def __init__(self, cache):
        self.cache = cache
        self.document = json.loads((cache / "index.json").read_bytes())
        self.index = self.document["index"]
        self.tables = {name: np.load(cache / name / "samples.npy") for name in self.index["splits"]}
        paths = [path for name in self.tables for path in sorted((cache / name).glob("*.json"))]
        self.manifests = {path: json.loads(path.read_bytes().split(b"\n")[1]) for path in paths}

    def table_bytes(self, name, data):
        """Take these bytes for a table."""
        (self.cache / name / "samples.npy").write_bytes(data)
        self.index["splits"][name]["table_checksum"] = xxhash.xxh3_128_hexdigest(data)

    def save(self):
        for name, table in self.tables.items():
            if name in self.index["splits"]:
                self.table_bytes(name, encode_table(table)[0])
        for path, manifest in self.manifests.items():
            body = json.dumps(manifest).encode()
            path.write_bytes(xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body + b"\n")
        self.sign()

    def sign(self):
        body = json.dumps(self.index, sort_keys=True).encode()
        self.document["checksum"] = xxhash.xxh3_128_hexdigest(body)
        (self.cache / "index.json").write_text(json.dumps(self.document))


def batches(cache, on_bad_record="stop"):
    """All samples of both splits, and which of them were left out as bad."""
    taken, bad = {}, []
    for split in ("train", "val"):
        config = LoaderConfig(
            cache=cache,
            split=split,
            batch_size=2,
            shuffle=False,
            drop_last=False,
            threads=1,
            backend="native",
            on_bad_record=on_bad_record,
        )
        with open_loader(config) as loader:
            for batch in loader:
                bad += [(split, record.sample) for record in batch.skipped]
                for row, sample in enumerate(batch.samples[: batch.valid].tolist()):
                    parts = (batch.image[row], batch.person[row], batch.ignore[row])
                    taken[split, sample] = [part.clone().numpy() for part in parts]
    return taken, bad


def assert_refused(cache, *words):
    """`verify` and a loader name what is wrong, and neither shows a traceback."""
    done = CliRunner().invoke(main, ["verify", "--cache", str(cache)], prog_name="cli.py")
    assert done.exit_code == 1
    assert done.exception is None or isinstance(done.exception, SystemExit)
    with pytest.raises(CacheError) as caught:
        batches(cache)
    for word in words:
        assert str(word) in done.output.replace("\n", " ")
        assert str(word) in str(caught.value)


@kinds
@pytest.mark.parametrize(
    ("field", "value", "limits"),
    [
        ("shard", -1, "0..0"), ("shard", 99, "0..0"), ("row", 10**6, "2..2"), ("row", -7, "2..2"),
        ("height", 0, "1..2147483647"), ("width", -5, "1..2147483647"), ("box_x", -1, "0..63"),
        ("box_y", 10**6, "0..63"), ("box_width", 10**6, "1.."), ("box_height", 0, "1.."),
        ("persons", -1, "0..2147483647"), ("person_fraction", np.nan, "0..1"), ("person_fraction", 1.5, "0..1"),
    ],
)  # fmt: skip
def test_a_value_of_a_table_that_cannot_be(sound, copy, kind, field, value, limits):
    signed = Signed(copy(sound[1][kind]))
    signed.tables["train"][field][2] = value
    signed.save()
    assert_refused(signed.cache, f"{field}={value}", "sample 2", limits)


@kinds
def test_a_table_that_is_another_than_the_index_says(sound, copy, kind):
    cache = sound[1][kind]
    for change in (
        lambda table: table[:-1],
        lambda table: np.concatenate([table, table[-1:]]),
        lambda table: table.astype([(name, "<i8") for name in SAMPLE_DTYPE.names]),
        lambda table: np.zeros(len(table)),
    ):
        signed = Signed(copy(cache))
        signed.tables["train"] = change(signed.tables["train"])
        signed.save()
        assert_refused(signed.cache, "samples.npy", f"({len(signed.tables['train'])},)", "not ((8,)")
    whole = (cache / "train" / "samples.npy").read_bytes()
    count = len(Signed(cache).tables["train"])
    shape = f"({count},), }}".encode()
    for data in (
        whole.replace(shape + bytes(12).replace(b"\0", b" "), f"({HUGE},), }}".encode()),
        whole.replace(shape, f"({HUGE},), }}".encode()), whole.replace(shape, b"(8,1)}    "), whole[:-1], whole[:70],
        b"", b"\x80\x04." * 50,
    ):  # fmt: skip
        assert data != whole
        signed = Signed(copy(cache))
        signed.table_bytes("train", data)
        signed.sign()
        assert_refused(signed.cache, "samples.npy")


@kinds
@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("samples",), HUGE, ["train: samples=1000000000000", "8..8"]),
        (("samples",), 3, ["samples=3", "8..8"]),
        (("samples",), -1, ["samples=-1"]),
        (("rejected",), -1, ["rejected=-1", "0.."]),
        (("shards", 0, "rows"), HUGE, ["1000000000000"]),
        (("shards", 1, "rows"), -1, ["-1"]),
        (("shards", 0, "bytes"), -1, ["shards[0].bytes=-1"]),
        (("shards", 0, "bytes"), 10**30, ["shards[0].bytes=1" + "0" * 30]),
        (("shards", 0, "name"), "00001.lmdb", [""]),
        (("shards", 0, "name"), "00000.tar", ["'00000.tar' is not the name of a shard"]),
        (("shards", 0, "name"), "../../x.lmdb", ["'../../x.lmdb' is not the name of a shard"]),
        (("shards", 0, "rows"), "5", ["`int`"]),
        (("shards",), [], ["samples=8"]),
    ],
)
def test_a_value_of_the_index_that_cannot_be(sound, copy, kind, where, value, words):
    signed = Signed(copy(sound[1][kind]))
    *path, last = where
    place = signed.index["splits"]["train"]
    for name in path:
        place = place[name]
    place[last] = value
    signed.sign()
    assert_refused(signed.cache, *words)


@kinds
@pytest.mark.parametrize("side", [32, 96, 50, HUGE])
def test_a_side_that_is_not_that_of_the_records(sound, copy, kind, side):
    signed = Signed(copy(sound[1][kind]))
    signed.index["spec"]["side"] = side
    signed.sign()
    assert_refused(signed.cache)


@kinds
def test_a_shard_with_other_rows_than_the_index_says(sound, copy, kind):
    for more in (-1, 1):  # in the first shard, and fewer in the last
        signed = Signed(copy(sound[1][kind]))
        table, shards = signed.tables["train"], signed.index["splits"]["train"]["shards"]
        there = shards[0]["rows"]
        shards[0]["rows"] += more
        shards[-1]["rows"] -= more
        rows = [shard["rows"] for shard in shards]
        table["shard"] = np.repeat(np.arange(len(rows)), rows)
        table["row"] = np.concatenate([np.arange(count) for count in rows])
        signed.save()
        with pytest.raises(CacheError, match=rf"00000\.\w+ has {there} records, not {there + more}|bytes=\d+ is not"):
            batches(signed.cache)
        assert not verify_cache(signed.cache).sound


PLACES = st.one_of(
    st.tuples(st.just("table"), st.sampled_from(["train", "val"]), st.sampled_from(SAMPLE_DTYPE.names)),
    st.tuples(st.just("index"), st.sampled_from(["train", "val"]), st.sampled_from(["samples", "rejected", "source"])),
    st.tuples(st.just("shard"), st.sampled_from(["rows", "bytes", "checksum", "name", "key"])),
    st.tuples(st.just("spec"), st.sampled_from([field.name for field in dataclasses.fields(CacheSpec)])),
    st.tuples(st.just("manifest"), st.sampled_from(["samples", "sources", "rejections", "shard"])),
)
VALUES = st.one_of(
    st.integers(-2, 12), st.sampled_from([HUGE, -HUGE, 10**6, 64, 96, 2**31 - 1, 2**63, 0.5, None, "x", "raw", "jpeg"]),
    st.booleans(), st.lists(st.integers(0, 3), max_size=2), st.floats(allow_nan=False),
)  # fmt: skip


def edit(signed, place, number, value):
    """Change one value, the `number`th of its kind."""
    kind, *rest = place
    if kind == "table":
        table = signed.tables[rest[0]]
        try:
            table[rest[1]][number % len(table)] = value
        except (TypeError, ValueError, OverflowError):
            table[rest[1]][number % len(table)] = 1
    elif kind == "index":
        signed.index["splits"][rest[0]][rest[1]] = value
    elif kind == "shard":
        shards = [shard for split in signed.index["splits"].values() for shard in split["shards"]]
        shards[number % len(shards)][rest[0]] = value
    elif kind == "spec":
        signed.index["spec"][rest[0]] = value
    else:
        manifest = list(signed.manifests.values())[number % len(signed.manifests)][rest[0]]
        if isinstance(manifest, dict):
            manifest[list(manifest)[number % len(manifest)]] = value
        elif manifest:
            entry = manifest[number % len(manifest)]
            entry[next(iter(entry)) if isinstance(entry, dict) else number % len(entry)] = value


@kinds
def test_whatever_is_edited_is_sound_refused_or_a_bad_record(sound, copy, kind):
    whole, none = batches(sound[1][kind])
    assert not none

    @given(edits=st.lists(st.tuples(PLACES, st.integers(0, 20), VALUES), min_size=1, max_size=3))
    @settings(max_examples=EDITS, deadline=None, derandomize=True, database=None)
    def run(edits):
        signed = Signed(copy(sound[1][kind]))
        for one in edits:
            edit(signed, *one)
        signed.save()
        report = verify_cache(signed.cache)  # never raises
        try:
            taken, bad = batches(signed.cache, "skip")
        except CacheError:
            return
        assert taken.keys() == whole.keys(), (edits, report)
        for sample, parts in taken.items():
            if sample in bad:
                assert not report.sound
            else:
                for mine, theirs in zip(parts, whole[sample], strict=True):
                    np.testing.assert_array_equal(mine, theirs)

    run()


@kinds
def test_one_repair_mends_tables_shards_and_rejections(sound, copy, kind):
    coco, made = sound
    cache = copy(made[kind])
    before = contents(cache)
    with CacheReader(cache, "train") as reader:
        first = reader.directory / reader.info.shards[0].name
    data = next(path for path in ([first] if first.is_file() else sorted(first.rglob("c*"))) if path.is_file())
    data.write_bytes(data.read_bytes()[:-100] + bytes(100))
    for name in ("samples.npy", "rejected.jsonl"):
        (cache / "train" / name).write_bytes(b"x" + (cache / "train" / name).read_bytes())
    (cache / "val" / "rejected.jsonl").unlink()
    damages = verify_cache(cache).damages
    assert {damage.where for damage in damages} == {
        "train/samples.npy", "train/rejected.jsonl", "val/rejected.jsonl", f"train/{first.name}"
    }  # fmt: skip
    repair_cache(cache, coco, damages)
    assert verify_cache(cache, coco=coco).sound
    assert contents(cache) == before
