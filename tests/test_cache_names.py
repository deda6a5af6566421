"""Names in an index or a manifest become paths; whoever edits one can also renew its checksum."""

import json

import msgspec
import pytest
import xxhash

from cache import files
from cache.errors import CacheCorruptError, CacheError
from cache.index import INDEX_NAME, CacheIndex, ShardManifest, _digest, manifest_path
from cache.reader import CacheReader
from cache.remote.folder import FolderConfig
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache, repair_cache
from preprocess.check.structure import check_cache
from preprocess.check.verify import verify_cache

LEADING_OUT = [
    "../../victim/secret.lmdb",
    "/tmp/victim/secret.lmdb",
    "..",
    ".",
    "",
    "a/b.lmdb",
    "secret.lmdb",
    "0\0.lmdb",
]


@pytest.fixture
def coco(tmp_path, write_coco):
    return write_coco(tmp_path / "coco", counts=(12, 4))


@pytest.fixture
def out(tmp_path, coco):
    build_cache(BuildConfig(coco=coco, out=tmp_path / "cache", spec=CacheSpec(side=32, shard_samples=4)))
    return tmp_path / "cache"


@pytest.fixture
def victim(tmp_path):
    """A folder beside the cache's own, with what a deletion that leaves the cache would meet."""
    (tmp_path / "victim").mkdir()
    for name in ("secret.lmdb", "secret.json", "notes.txt"):
        (tmp_path / "victim" / name).write_text("keep")
    return tmp_path / "victim"


def sign(out, edit):
    """Change what an index says, and make its checksum right."""
    document = json.loads((out / INDEX_NAME).read_text())
    edit(document["index"])
    document["checksum"] = _digest(document["index"])
    (out / INDEX_NAME).write_text(json.dumps(document))


def call_shard(name):
    def edit(index):
        index["splits"]["train"]["shards"][0]["name"] = name

    return edit


def call_split(name):
    def edit(index):
        index["splits"][name] = index["splits"].pop("train")

    return edit


def set_checksum(text):
    def edit(index):
        index["splits"]["train"]["shards"][0]["checksum"] = text

    return edit


def set_table_checksum(text):
    def edit(index):
        index["splits"]["train"]["table_checksum"] = text

    return edit


EDITS = [
    *(call_shard(name) for name in LEADING_OUT),
    *(call_split(name) for name in ("../victim", "/tmp/victim", "..", "", "train/../../victim", "tr\0in")),
    *(set_checksum(text) for text in ("../../victim/secret", "", "A" * 32)),
    set_table_checksum("../../victim/secret"),
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_index_with_a_name_that_is_none_is_refused_and_nothing_is_deleted(out, coco, victim, edit):
    sign(out, edit)
    with pytest.raises(CacheCorruptError, match="is not"):
        CacheIndex.load(out)
    found = verify_cache(out, coco=coco)
    assert not found.sound
    assert not all(check.ok for check in check_cache(out))
    with pytest.raises(CacheError):
        CacheReader(out, "train", FolderConfig(folder=out.parent / "fetched"))
    with pytest.raises(CacheError):
        repair_cache(out, coco, found.damages)
    build_cache(BuildConfig(coco=coco, out=out, spec=CacheSpec(side=32, shard_samples=4)))
    assert sorted(path.name for path in victim.iterdir()) == ["notes.txt", "secret.json", "secret.lmdb"]
    assert verify_cache(out, coco=coco).sound, "the same preprocess mends it, as the error says"


@pytest.mark.parametrize("name", [*LEADING_OUT, "00007.lmdb"])
def test_a_manifest_with_the_name_of_another_shard_is_refused(out, coco, victim, name):
    path = manifest_path(out / "train", "00000.lmdb")
    manifest = ShardManifest.load(path)
    body = msgspec.json.encode(_renamed(manifest, name))
    path.write_bytes(xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body + b"\n")
    with pytest.raises(CacheCorruptError):
        ShardManifest.load(path)
    repair_cache(out, coco, verify_cache(out).damages)
    assert verify_cache(out, coco=coco).sound
    assert len(list(victim.iterdir())) == 3


def _renamed(manifest, name):
    plain = msgspec.to_builtins(manifest)
    plain["shard"]["name"] = name
    return plain


def test_a_repair_deletes_nothing_before_the_new_shard_is_there(out, coco, monkeypatch):
    shard = next((out / "train").glob("*.lmdb"))
    shard.write_bytes(shard.read_bytes()[:-100])
    before = sorted(path.name for path in (out / "train").iterdir())
    damages = verify_cache(out).damages
    removed = []
    monkeypatch.setattr(files, "remove", removed.append)
    repair_cache(out, coco, damages)
    assert [path.name for path in removed] == [INDEX_NAME], "but for the old index, just before the new one is written"
    assert sorted(path.name for path in (out / "train").iterdir()) == before
    assert verify_cache(out, coco=coco).sound


def test_a_split_folder_that_is_a_link_is_not_swept(out, coco, victim):
    (out / "val").rename(out.parent / "val")
    (out / "val").symlink_to(victim)
    for force in (False, True):
        with pytest.raises(CacheError, match=r"is a link to .*victim, and a build only writes in folders of its own"):
            build_cache(BuildConfig(coco=coco, out=out, spec=CacheSpec(side=32, shard_samples=4), force=force))
    assert len(list(victim.iterdir())) == 3


def test_a_shard_that_is_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path, coco, victim):
    out, spec = tmp_path / "cache", CacheSpec(side=32, shard_samples=4, store="zarr")
    build_cache(BuildConfig(coco=coco, out=out, spec=spec))
    shard = next((out / "train").glob("*.zarr"))
    files.remove(shard)
    shard.symlink_to(victim)
    repair_cache(out, coco, verify_cache(out).damages)
    assert verify_cache(out, coco=coco).sound
    assert not shard.is_symlink()
    assert len(list(victim.iterdir())) == 3
