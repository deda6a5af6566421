"""Is docs/cache-format.md enough to read a cache? Two readers made from it alone, against ours; and the page itself."""

import dataclasses
import hashlib
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash

from cache.index import COLUMNS, SAMPLE_DTYPE, CacheIndex, ImageSource, ShardInfo, ShardManifest, SplitInfo
from cache.reader import CacheReader
from cache.spec import FORMAT_VERSION, CacheSpec
from preprocess.build.build import BuildConfig, build_cache
from preprocess.image import fit_box

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "cache-format.md").read_text()
READERS = ROOT / "tests" / "readers"
KINDS = {
    "raw": CacheSpec(side=32, shard_samples=4, category="niño 👤"),
    "jpeg": CacheSpec(side=64, shard_samples=3, category="niño 👤", codec="jpeg", crowd="person"),
    "zarr": CacheSpec(side=32, shard_samples=4, category="niño 👤", store="zarr", fit="stretch", images="all"),
}

reader_spec = importlib.util.spec_from_file_location("maskcache_page_reader", READERS / "reader.py")
page_reader = importlib.util.module_from_spec(reader_spec)
reader_spec.loader.exec_module(page_reader)


@pytest.fixture(scope="module")
def caches(tmp_path_factory, write_coco):
    """A cache of each kind, of several shards, with a name outside ASCII and an image that was left out."""
    root = tmp_path_factory.mktemp("readers")
    coco = write_coco(root / "coco")
    for path in (coco / "annotations").iterdir():
        document = json.loads(path.read_text())
        document["categories"][0]["name"] = "niño 👤"
        document["annotations"].append({**document["annotations"][0], "id": 999, "image_id": 999})
        path.write_text(json.dumps(document))
    (coco / "train2017" / f"{4:012d}.jpg").write_bytes(b"")
    for kind, spec in KINDS.items():
        build_cache(BuildConfig(coco=coco, out=root / kind, spec=spec))
    return root


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, start_module_child):
    """The reader in C++, or the reason why it is left out."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path_factory.mktemp("compiled") / "reader"
    command = [compiler, "-std=c++17", "-Wall", "-Werror", READERS / "reader.cpp", "-o", program, "-llmdb", "-lxxhash"]
    child = start_module_child(command)
    _, errors = child.communicate()
    if missing := re.search(r"fatal error: (\S+): No such file", errors):
        pytest.skip(f"no {missing[1]}; apt-get install liblmdb-dev libxxhash-dev nlohmann-json3-dev")
    assert child.returncode == 0, errors
    return program


def samples_of(cache, split):
    """What our reader gives, as the columns and parts of each sample."""
    with CacheReader(cache, split) as reader:
        for sample, columns in enumerate(reader.samples):
            fields = reader.fields(sample)
            planes = [reader.layout.unpack_plane(plane) for plane in (fields.person, fields.ignore)]
            yield columns, fields.image.tobytes(), *planes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_reader_in_python_agrees_record_for_record(caches, kind, split):
    theirs = list(page_reader.read_split(caches / kind, split))
    ours = list(samples_of(caches / kind, split))
    assert len(theirs) == len(ours) > 4 - (split == "val")
    for sample, (columns, image, person, ignore) in zip(theirs, ours, strict=True):
        assert {name: sample[name] for name in SAMPLE_DTYPE.names} == {
            name: columns[name] for name in SAMPLE_DTYPE.names
        }
        assert sample["image"] == image
        np.testing.assert_array_equal(sample["person"], person)
        np.testing.assert_array_equal(sample["ignore"], ignore)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reader_in_cpp_agrees_record_for_record(caches, compiled, kind, start_child):
    for split in ("train", "val"):
        lines = [
            [
                *columns.tolist()[:10],
                *(
                    xxhash.xxh3_64_hexdigest(np.ascontiguousarray(part))
                    for part in (np.frombuffer(image, np.uint8), *planes)
                ),
            ]
            for columns, image, *planes in samples_of(caches / kind, split)
        ]
        child = start_child([compiled, caches / kind, split])
        printed, errors = child.communicate()
        assert child.returncode == 0, errors
        found = [line.split(" ") for line in printed.splitlines()]
        fractions = [float(line.pop(10)) for line in found]
        assert found == [[str(value) for value in line] for line in lines]
        with CacheReader(caches / kind, split) as reader:
            np.testing.assert_array_equal(np.array(fractions, np.float32), reader.samples["person_fraction"])


def damage_version(cache):
    path = cache / "index.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))


def damage_index(cache):
    path = cache / "index.json"
    path.write_text(path.read_text().replace('"rejected": 1', '"rejected": 2'))


def damage_table(cache):
    flip(cache / "train" / "samples.npy", -1)


def damage_shard_size(cache):
    path = next(file for file in sorted((cache / "train").glob("00000.*/**/c.0*")) or [cache / "train" / "00000.lmdb"])
    path.write_bytes(path.read_bytes()[:-1])


def damage_record(cache):
    """Flip the last bit of the first plane `ignore`."""
    with CacheReader(cache, "train") as reader:
        plane = reader.fields(0).ignore.tobytes()
    path = next(
        file
        for file in [cache / "train" / "00000.zarr" / "ignore" / "c.0.0.0", cache / "train" / "00000.lmdb"]
        if file.exists()
    )
    flip(path, path.read_bytes().index(plane) + len(plane) - 1)


def damage_chunk_index(cache):
    flip(cache / "train" / "00000.zarr" / "person" / "c.0.0.0", -5)


def remove_index(cache):
    (cache / "index.json").unlink()


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGES = [remove_index, damage_version, damage_index, damage_table, damage_shard_size, damage_record]


@pytest.mark.parametrize(
    ("kind", "damage"),
    [*((kind, damage) for kind in ("jpeg", "zarr") for damage in DAMAGES), ("zarr", damage_chunk_index)],
)
def test_what_a_reader_must_refuse_is_refused(caches, compiled_or_none, tmp_path, kind, damage, start_child):
    cache = shutil.copytree(caches / kind, tmp_path / kind)
    damage(cache)
    with pytest.raises(page_reader.RefusedError):
        list(page_reader.read_split(cache, "train"))
    if compiled_or_none:
        child = start_child([compiled_or_none, cache, "train"])
        _, errors = child.communicate()
        assert child.returncode == 1
        assert errors.startswith("error: ")


@pytest.fixture
def compiled_or_none(request):
    """The reader in C++ if it can be had; where it cannot, a test of its own has said so."""
    try:
        return request.getfixturevalue("compiled")
    except pytest.skip.Exception:
        return None


def test_the_page_names_every_field():
    names = [f"spec.{field.name}" for field in dataclasses.fields(CacheSpec)]
    names += [field.name for field in dataclasses.fields(CacheIndex) if field.name != "spec"]
    names += [f"splits.*.{field.name}" for field in dataclasses.fields(SplitInfo) if field.name != "source"]
    names += [f"splits.*.shards[].{field.name}" for field in dataclasses.fields(ShardInfo)]
    index = PAGE.partition("## index.json")[2].partition("## samples.npy")[0]
    named = re.findall(r"^\| `([^`]+)` \|", index, re.MULTILINE)
    assert sorted(named) == sorted(
        [*names, "format_version", "checksum", "index", "splits.*.source.annotations", "splits.*.source.images"]
    )
    manifest = PAGE.partition("## Manifests")[2].partition("## Fingerprints")[0]
    named = re.findall(r"^\| `([a-z]+)(?:\[\]\[\d\])?` \|", manifest, re.MULTILINE)
    assert list(dict.fromkeys(named)) == [field.name for field in dataclasses.fields(ShardManifest)]
    assert named.count("sources") == 1 + len(ImageSource._fields)
    assert f"Format version {FORMAT_VERSION}," in PAGE


def test_the_page_has_the_columns_where_they_are():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\w+) \|", PAGE, re.MULTILINE)
    assert [(name, SAMPLE_DTYPE.fields[name][1], SAMPLE_DTYPE[name].name) for name in SAMPLE_DTYPE.names] == [
        (name, int(offset), kind) for name, offset, kind in rows
    ]
    assert f"{SAMPLE_DTYPE.itemsize}\nbytes each" in PAGE
    assert tuple(name for name in SAMPLE_DTYPE.names if name not in ("shard", "row")) == COLUMNS


@pytest.mark.parametrize("kind", KINDS)
def test_checksums_fingerprint_and_keys_are_as_the_page_says(caches, kind):
    cache, spec = caches / kind, KINDS[kind]
    index = CacheIndex.load(cache)
    canonical = lambda value: json.dumps(value, sort_keys=True)  # noqa: E731
    compact = lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()  # noqa: E731
    later = ("orientation", "outside", "val_share")
    counted = {name: value for name, value in dataclasses.asdict(spec).items() if name not in later}
    record = {name: value for name, value in counted.items() if name not in ("images", "limit", "shard_samples")}
    record_text = hashlib.sha256(canonical([2, record]).encode()).hexdigest()
    order = re.findall(r"`([\w./]+)`", PAGE.partition("## A shard's checksum")[2].partition("##")[0])
    assert len(order) == 7
    for split, info in index.splits.items():
        images = b""
        for shard in info.shards:
            path = cache / split / shard.name
            files = [(b"", path)] if path.is_file() else [(name.encode(), path / name) for name in order]
            assert (
                xxhash.xxh3_128_hexdigest(b"".join(name + file.read_bytes() for name, file in files)) == shard.checksum
            )
            assert sum(file.stat().st_size for _, file in files) == shard.bytes
            digest, body, rest = (cache / split / shard.name).with_suffix(".json").read_bytes().split(b"\n")
            assert (xxhash.xxh3_128_hexdigest(body).encode(), rest) == (digest, b"")
            sources = json.loads(body)["sources"]
            assert (
                xxhash.xxh3_128_hexdigest(compact([record_text, [[*source[:4], 0] for source in sources]])) == shard.key
            )
            images += compact(sources)
        assert xxhash.xxh3_128_hexdigest(images) == info.source.images
    sources = canonical({split: dataclasses.asdict(info.source) for split, info in index.splits.items()})
    assert hashlib.sha256(canonical([2, counted, sources]).encode()).hexdigest() == index.fingerprint


def test_samples_lie_in_order_and_rejections_as_the_page_says(caches):
    for kind, spec in KINDS.items():
        with CacheReader(caches / kind, "train") as reader:
            rows = [shard.rows for shard in reader.info.shards]
            assert len(rows) > 2
            np.testing.assert_array_equal(reader.samples["shard"], np.repeat(np.arange(len(rows)), rows))
            np.testing.assert_array_equal(reader.samples["row"], np.concatenate([np.arange(count) for count in rows]))
            for sample in reader.samples:
                box = fit_box(sample["height"], sample["width"], spec.side, spec.fit)
                assert tuple(box) == tuple(sample[name] for name in ("box_x", "box_y", "box_width", "box_height"))
                if spec.fit == "letterbox":
                    assert tuple(box) == box_of_the_page(int(sample["height"]), int(sample["width"]), spec.side)
        lines = [json.loads(line) for line in (caches / kind / "train" / "rejected.jsonl").read_text().splitlines()]
        assert [line["image_id"] for line in lines] == [-1, 104]
        assert lines[0]["file_name"] == reader.info.source.annotations
        assert reader.info.rejected == 1
        assert lines[1].keys() == json.loads(re.search(r"^    ({\"split\".*})$", PAGE, re.MULTILINE)[1]).keys()


def box_of_the_page(height, width, side):
    longest = max(height, width)
    box_width, box_height = (max(1, (2 * length * side + longest) // (2 * longest)) for length in (width, height))
    return (side - box_width) // 2, (side - box_height) // 2, box_width, box_height
