"""The record, the spec, the index: what stands on disk."""

import json

import numpy as np
import pytest
from xxhash import xxh3_128_hexdigest

from cache.errors import CacheCorruptError, CacheError, CacheMissingError, CacheVersionError
from cache.index import CacheIndex, ShardInfo, ShardManifest, SourceInfo, SplitInfo
from cache.record import RecordLayout, checksum
from cache.spec import FORMAT_VERSION, CacheSpec
from tests.packing import pack_record


def make_planes(side, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (2, side, side), dtype=np.uint8)


def test_raw_record_is_pixels_then_little_endian_bits():
    side = 64
    image = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    person, ignore = make_planes(side)
    layout = RecordLayout(side, "raw")
    record = pack_record(layout, image, person, ignore)
    assert record.size == layout.raw_bytes == side * side * 3 + 2 * side * side // 8
    assert record[: side * side * 3].tobytes() == image.tobytes()
    # The first byte of a plane holds the first eight pixels of its first row, the leftmost in the lowest bit.
    assert record[side * side * 3] == sum(int(person[0, bit]) << bit for bit in range(8))
    fields = layout.split(record)
    np.testing.assert_array_equal(layout.unpack_plane(fields.person), person)
    np.testing.assert_array_equal(layout.unpack_plane(fields.ignore), ignore)
    assert fields.image.base is not None, "a view, not a copy"


def test_jpeg_record_round_trip():
    layout = RecordLayout(64, "jpeg")
    jpeg = np.arange(100, dtype=np.uint8)
    person, ignore = make_planes(64)
    record = pack_record(layout, jpeg, person, ignore)
    assert int.from_bytes(record[:4].tobytes(), "little") == 100
    fields = layout.split(record)
    np.testing.assert_array_equal(fields.image, jpeg)
    np.testing.assert_array_equal(layout.unpack_plane(fields.ignore), ignore)


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("change", [-1, 1])
def test_record_of_a_wrong_size_is_refused(codec, change):
    layout = RecordLayout(64, codec)
    image = np.zeros((64, 64, 3) if codec == "raw" else 50, np.uint8)
    record = pack_record(layout, image, *make_planes(64))
    broken = record[:-1] if change < 0 else np.append(record, np.uint8(0))
    with pytest.raises(CacheCorruptError, match=f"{broken.size} bytes, not {record.size}"):
        layout.split(broken)


def test_checksum_sees_every_bit():
    record = np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8)
    whole = checksum(record)
    for bit in range(0, record.size * 8, 37):
        record[bit // 8] ^= 1 << bit % 8
        assert checksum(record) != whole
        record[bit // 8] ^= 1 << bit % 8
    assert checksum(record) == whole == checksum(record.tobytes())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"side": 250}, "side=250 is not a multiple of 32; use 224 or 256"),
        ({"side": 0}, "side=0 is not within 32..4096"),
        ({"side": 8192}, "side=8192 is not within 32..4096"),
        ({"fit": "crop"}, "fit='crop' is not known; use one of letterbox, stretch"),
        ({"codec": "webp"}, "use one of raw, jpeg"),
        ({"store": "zarr", "codec": "jpeg"}, "use codec='raw' or store='lmdb'"),
        ({"jpeg_quality": 101}, r"not in 1\.\.100"),
        ({"shard_samples": 0}, "is below 1"),
    ],
)
def test_spec_names_value_limit_and_remedy(fields, message):
    with pytest.raises(CacheError, match=message):
        CacheSpec(**fields)


def test_fingerprint_depends_on_spec_and_sources():
    spec = CacheSpec(side=64)
    assert spec.fingerprint("a") == CacheSpec(side=64).fingerprint("a")
    others = [CacheSpec(side=96), CacheSpec(side=64, crowd="drop"), CacheSpec(side=64, jpeg_quality=90)]
    assert len({spec.fingerprint("a"), spec.fingerprint("b"), *(other.fingerprint("a") for other in others)}) == 5
    assert spec.differences(others[0]) == ["side: 64, not 96"]
    several = CacheSpec(side=64, category=("woman", "child"))
    assert several.differences(spec) == ["category: child, woman, not person"]


@pytest.fixture
def index():
    split = SplitInfo(
        samples=3,
        rejected=1,
        table_checksum="0" * 32,
        shards=(ShardInfo(name="00000.lmdb", rows=3, bytes=39_936, checksum="a" * 32),),
        source=SourceInfo(annotations="x", images="y"),
    )
    return CacheIndex(spec=CacheSpec(side=64), fingerprint="f", tools={"numpy": "2"}, splits={"train": split})


def test_index_round_trip(index, tmp_path):
    index.save(tmp_path)
    assert CacheIndex.load(tmp_path) == index
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"], "no temporary file stays"


def test_no_index_no_cache(tmp_path):
    with pytest.raises(CacheMissingError, match=r"cli\.py preprocess"):
        CacheIndex.load(tmp_path)


def test_unknown_format_version_is_refused(index, tmp_path):
    index.save(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(path.read_text().replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 99'))
    with pytest.raises(CacheVersionError, match=f"format 99; this release reads format {FORMAT_VERSION}; rebuild"):
        CacheIndex.load(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, json.dumps({"format_version": 2, "checksum": xxh3_128_hexdigest(b"null")})]
)
def test_an_index_without_an_end_or_a_content_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CacheCorruptError, match=r"index\.json is not a cache index"):
        CacheIndex.load(tmp_path)


def test_a_manifest_of_lists_without_end_is_refused(tmp_path):
    body = (
        b'{"shard": {"name": "00000.lmdb", "rows": 1, "bytes": 1, "checksum": "%s"}, "sources": [], "rejections": [], '
    )
    body = body % (b"0" * 32) + b'"samples": [' + b"[" * 10**4 + b"]" * 10**4 + b"]}"
    data = xxh3_128_hexdigest(body).encode() + b"\n" + body + b"\n"
    with pytest.raises(CacheCorruptError, match=r"00000\.json is no manifest of this release"):
        ShardManifest.decode(data, tmp_path / "00000.json")


def test_any_change_of_the_index_is_found(index, tmp_path):
    index.save(tmp_path)
    path = tmp_path / "index.json"
    text = path.read_bytes()
    meaning = json.loads(text)
    tried = 0
    for bit in range(0, len(text) * 8, 11):
        broken = bytearray(text)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            if json.loads(broken) == meaning:
                continue  # white space only
        except ValueError:
            pass
        path.write_bytes(broken)
        with pytest.raises(CacheError):
            CacheIndex.load(tmp_path)
        tried += 1
    assert tried > 100
