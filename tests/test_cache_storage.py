"""Object storage, against a server that fails, is cut off and is stopped; and the names of what lies there."""

import errno
import pickle
import threading
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import CacheMissingError, StorageError
from cache.index import CacheIndex
from cache.remote.folder import FolderConfig, parse_size
from cache.storage import Retries, StoppedError, Storage, StorageUrl, is_url, place

HASTY = Retries(attempts=6, pause=0.01)
DATA = bytes(range(256)) * 400

names = st.text("abcXYZ019-_.", min_size=1, max_size=9).filter(lambda name: name not in (".", ".."))


@pytest.fixture
def storage(bucket):
    return Storage(StorageUrl(f"{bucket}/folder"), HASTY)


def test_files_are_written_read_listed_copied_and_removed(storage, tmp_path):
    storage.write("a/one", DATA)
    (tmp_path / "two").write_bytes(DATA[:7])
    storage.upload(tmp_path / "two", "a/deep/two")
    assert storage.read("a/one") == DATA
    assert storage.sizes() == {"a/one": len(DATA), "a/deep/two": 7}
    assert storage.sizes("a") == {"one": len(DATA), "deep/two": 7}
    assert (storage.names("a"), storage.names(), storage.names("b"), storage.sizes("b")) == (
        *(["deep", "one"], ["a"], []),
        {},
    )
    assert storage.read_ranges([("a/one", 10, 20), ("a/deep/two", 0, 7)]) == [DATA[10:20], DATA[:7]]
    storage.copy("a/one", storage.root / "b/three")
    storage.fetch("b/three", tmp_path / "three")
    assert (tmp_path / "three").read_bytes() == DATA
    storage.remove("a")
    storage.remove("a")
    assert storage.sizes() == {"b/three": len(DATA)}
    with pytest.raises(FileNotFoundError):
        storage.read("a/one")
    with pytest.raises(FileNotFoundError):
        storage.read_ranges([("b/three", 0, 1), ("a/one", 0, 1)])
    assert pickle.loads(pickle.dumps(storage)).read("b/three") == DATA


def test_requests_that_fail_or_are_cut_off_are_repeated(storage, object_store, tmp_path):
    storage.write("file", DATA)
    object_store.behave(fail_every=4, cut_every=4)
    for number in range(12):
        assert storage.read("file") == DATA
        storage.fetch("file", tmp_path / f"{number}")
        assert (tmp_path / f"{number}").read_bytes() == DATA
    # botocore repeats none by itself, so each failure is one that we know of
    assert storage.repeats == object_store.failed > 5
    assert storage.trouble.startswith(f"{storage.root}/file: ")


def test_attempts_are_bounded_and_the_message_says_how_many(storage, object_store):
    object_store.behave(failing=True)
    with pytest.raises(
        StorageError, match=r"^s3://.*/folder/file cannot be read: .*\(6 attempts in \d+ s\); check the network"
    ):
        storage.read("file")
    assert len(object_store.requests) == 6
    impatient = Storage(storage.root, Retries(attempts=99, pause=0.01, longest=0.01, seconds=0.1))
    with pytest.raises(StorageError, match="cannot be written"):
        impatient.write("file", DATA)
    assert 6 < len(object_store.requests) < 6 + 50


def test_a_server_that_comes_back_in_time_is_waited_for(storage, object_store):
    storage.write("file", DATA)
    object_store.stop()
    timer = threading.Timer(0.3, object_store.start)
    timer.start()
    try:
        assert Storage(storage.root, Retries(pause=0.1)).read("file") == DATA
    finally:
        timer.join()


def test_who_wants_a_file_no_more_ends_its_transfer(bucket, object_store, tmp_path):
    stop = threading.Event()
    storage = Storage(StorageUrl(bucket), Retries(pause=60), stop=stop)
    storage.write("file", DATA)
    object_store.behave(failing=True)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(StoppedError):
        storage.fetch("file", tmp_path / "file")
    object_store.behave()
    with pytest.raises(StoppedError):
        storage.fetch("file", tmp_path / "file")


def test_what_no_attempt_can_mend_is_said_at_once(storage, object_store, monkeypatch, tmp_path):
    nowhere = Storage(StorageUrl("s3://no-such-bucket/folder"), HASTY)
    with pytest.raises(StorageError, match="make the bucket, or check its name"):
        nowhere.write("file", DATA)
    with pytest.raises(CacheMissingError, match=r"^s3://no-such-bucket/cache holds no finished cache"):
        CacheIndex.load(StorageUrl("s3://no-such-bucket/cache"))
    with pytest.raises(StorageError, match=r"gopher://x cannot be opened: .* use s3://BUCKET/FOLDER"):
        Storage(StorageUrl("gopher://x/y")).read("z")
    storage.write("file", DATA)
    with pytest.raises(OSError, match="No such file"):  # of this machine: another attempt does not mend it
        storage.upload(tmp_path / "missing", "file")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    object_store.behave()
    with pytest.raises(StorageError, match="give credentials with the right to it"):
        Storage(storage.root).read("file")
    assert object_store.requests == []


def test_a_full_disk_is_no_reason_to_ask_again(tmp_path, monkeypatch):
    storage = Storage(StorageUrl("memory://bucket"))
    storage.write("file", DATA)
    system, _ = storage._open()
    calls = []

    def get_file(*_, **__):
        calls.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(system, "get_file", get_file)
    with pytest.raises(OSError, match="No space left"):
        storage.fetch("file", tmp_path / "file")
    assert len(calls) == 1


@settings(derandomize=True, database=None, deadline=None, max_examples=40)
@given(scheme=st.sampled_from(["s3", "gs", "abfs"]), parts=st.lists(names, min_size=1, max_size=4))
def test_a_url_is_a_path_that_cannot_be_taken_for_a_local_one(scheme, parts):
    text = f"{scheme}://{'/'.join(parts)}"
    url = place(text)
    assert str(url) == text
    assert str(url / "x" / "y") == f"{text}/x/y"
    assert (url.name, (url / "x").parent) == (parts[-1], url)
    assert is_url(text)
    assert is_url(url)
    assert not hasattr(url, "open")
    assert place(url) is url
    assert pickle.loads(pickle.dumps(url)) == url


@pytest.mark.parametrize("text", ["data/cache", "/data/s3/cache", "C:cache", "file:///data/s3/cache", "s3:/one-slash"])
def test_everything_else_is_a_folder(text):
    assert not is_url(text)
    assert type(place(text)) is type(Path())
    assert place(text) == Path(text.removeprefix("file://"))
    assert is_url(PurePath("s3://bucket")) is False, "a path that lost a slash"


def test_sizes_are_read_as_people_write_them():
    assert [parse_size(text) for text in ("50GB", "800 MB", "1.5TB", "7", "2GiB", "3k", "4 bytes")] == [
        *(50 * 10**9, 800 * 10**6, 1500 * 10**9, 7, 2 * 2**30, 3000, 4)
    ]
    for text in ("", "GB", "-1GB", "many", "1 PB"):
        with pytest.raises(ValueError, match=r"is no size; write it as 50GB or 800MB"):
            parse_size(text)
    with pytest.raises(ValueError, match="cache_size=-1 is negative"):
        FolderConfig(size=-1)


def test_the_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MASKCACHE_CACHE_DIR", raising=False)
    assert FolderConfig().path == tmp_path / "xdg" / "maskcache"
    monkeypatch.setenv("MASKCACHE_CACHE_DIR", str(tmp_path / "named"))
    assert FolderConfig().path == tmp_path / "named"
    assert FolderConfig(folder=tmp_path).path == tmp_path
