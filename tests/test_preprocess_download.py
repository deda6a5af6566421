"""COCO from a server that does everything to it that servers and networks do."""

import dataclasses
import errno
import functools
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli import main
from preprocess.check.structure import check_structure
from preprocess.download import fetch
from preprocess.download.coco import download_coco
from preprocess.download.plan import ARCHIVES, BASE_URL, Archive, DownloadConfig
from preprocess.errors import DownloadError

QUICK = {"TIMEOUT": 20, "ATTEMPTS": 4, "DELAY": 0.001, "LONGEST_DELAY": 0.002}
IGNORED = "the server cannot go on within a file"
IMAGES = {"val2017": 5, "train2017": 12}
TRAIN = "/zips/train2017.zip"


# ------------------------------------------------------------------------------------------------ a small COCO


def members(seed=0):
    """What is in the archives, by folder and name."""
    rng = np.random.default_rng(seed)
    found = {"annotations": {}}
    for folder, count in IMAGES.items():
        found[folder] = {f"{at:012d}.jpg": rng.bytes(9_000 + 500 * at) for at in range(count)}
        for kind in ("captions", "instances", "person_keypoints"):
            text = json.dumps({"images": [], "kind": kind, "noise": rng.bytes(3_000).hex()})
            found["annotations"][f"{kind}_{folder}.json"] = text.encode()
    return found


def zipped(folder, files, extra=()):
    """A zip file as COCO's: a folder and its files; `extra` are (ZipInfo, bytes)."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{folder}/"), b"")
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
        for info, content in extra:
            archive.writestr(info, content)
    return data.getvalue()


def described(path, folder, data, **changes):
    known = {
        "path": path.lstrip("/"),
        "folder": folder,
        "splits": ("train", "val") if folder == "annotations" else (folder.removesuffix("2017"),),
        "bytes": len(data),
        "md5": hashlib.md5(data).hexdigest(),
        "unpacked": len(data),
        "images": IMAGES.get(folder, 0),
    }
    return Archive(**(known | changes))


def files(root):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


WHOLE = {f"{folder}/{name}": data for folder, found in members().items() for name, data in found.items()}


# ------------------------------------------------------------------------------------------------ a server


@dataclasses.dataclass
class Act:
    """How one request is answered, where it is not as it should be."""

    status: int = 0
    ranges: bool = True
    send: int = 1 << 30  # bytes, then the connection is closed
    stall: bool = False  # after `send`, instead of closing it
    mute: bool = False  # no answer at all
    headers: dict = dataclasses.field(default_factory=dict)  # other ones, or None to leave them out


class Site:
    """Files, what is to happen to the next requests for a path, and which there were."""

    def __init__(self):
        found = members()
        self.files = {
            f"/{'annotations/annotations_trainval2017' if folder == 'annotations' else f'zips/{folder}'}.zip": zipped(
                folder, found[folder]
            )
            for folder in ("annotations", "val2017", "train2017")
        }
        self.acts = {}
        self.log = []
        self.over = threading.Event()
        self.archives = tuple(self.describe(path) for path in self.files)
        self.url = ""

    def describe(self, path, **changes):
        folder = "annotations" if "annotations" in path else path[6:-4]
        return described(path, folder, self.files[path], **changes)

    def change(self, path, data, **changes):
        """Another file, that is described as if it had to be so."""
        self.files[path] = data
        self.archives = tuple(
            self.describe(path, **changes) if f"/{archive.path}" == path else archive for archive in self.archives
        )

    def config(self, root, *splits, **changes):
        config = DownloadConfig(root=root, base_url=self.url, archives=self.archives)
        return dataclasses.replace(config, splits=splits or ("train", "val"), **changes)

    def asked(self, path=TRAIN):
        """From which byte on it was asked for the file, each time."""
        return [start for asked, start in self.log if asked == path]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        asked = self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        site.log.append((self.path, start))
        acts = site.acts.get(self.path, [])
        act = acts.pop(0) if acts else Act()
        data = site.files.get(self.path)
        if act.mute:
            site.over.wait(5)
            return None
        if data is None or act.status:
            return self.reply(act.status or 404, {"Content-Length": "0", **act.headers})
        part = bool(asked) and act.ranges
        body = data[start:] if part else data
        headers = {"Content-Length": str(len(body))}
        if part:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.reply(206 if part else 200, headers | act.headers)
        self.wfile.write(body[: act.send])
        self.wfile.flush()
        if act.stall:
            site.over.wait(5)
        return None

    def reply(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("os.sync", lambda: None)
    for name, value in QUICK.items():
        monkeypatch.setattr(fetch, name, value)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = site = Site()
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self):
        self.plans, self.stages, self.troubles, self.restarts, self.ends = [], [], [], [], {}

    def on_plan(self, plan):
        self.plans.append(plan)

    def on_retry(self, archive, reason, *, failures, **others):
        self.troubles.append((reason, failures))

    def on_restart(self, archive, reason, lost):
        self.restarts.append(reason)

    @contextmanager
    def stage(self, stage, archive):
        self.stages.append((stage, archive.folder))
        last = 0

        def update(done, total):
            nonlocal last
            assert 0 <= done <= total
            last = done / total

        yield update
        self.ends[stage, archive.folder] = last


def run(config, code=None):
    notes = Notes()
    if code is None:
        return download_coco(config, notes), notes
    with pytest.raises(DownloadError, match=code) as error:
        download_coco(config, notes)
    assert "\n" not in str(error.value)
    return str(error.value), notes


# ------------------------------------------------------------------------------------------------ when all is well


def test_what_is_known_of_coco():
    annotations, val, train = ARCHIVES
    assert [archive.name for archive in ARCHIVES] == ["annotations_trainval2017.zip", "val2017.zip", "train2017.zip"]
    assert all(re.fullmatch("[0-9a-f]{32}", archive.md5) for archive in ARCHIVES)
    assert (annotations.images, val.images, train.images) == (0, 5_000, 118_287)
    assert DownloadConfig(root=Path("COCO")).url(train) == f"{BASE_URL}/zips/train2017.zip"


def test_everything_is_fetched_checked_and_unpacked_and_a_second_run_fetches_nothing(site, tmp_path):
    report, notes = run(site.config(tmp_path / "a" / "coco"))
    root = report.root
    assert files(root) == WHOLE
    assert all(check.ok for check in check_structure(root))
    assert not (root / ".download").exists()
    expected = [
        (stage, name) for name in ("annotations", "val2017", "train2017") for stage in ("fetch", "check", "unpack")
    ]
    assert notes.stages == expected
    assert set(notes.ends.values()) == {1.0}
    assert [outcome.fetched for outcome in report.outcomes] == [len(data) for data in site.files.values()]
    asked = len(site.log)
    again, notes = run(site.config(root))
    assert len(site.log) == asked == 3
    assert notes.stages == notes.plans == []
    assert [(outcome.images, outcome.unpacked) for outcome in again.outcomes] == [(0, None), (5, None), (12, None)]


def test_only_what_is_missing_is_fetched(site, tmp_path):
    run(site.config(tmp_path, "val"))
    assert set(files(tmp_path)) == {name for name in WHOLE if not name.startswith("train2017")}
    site.log.clear()
    run(site.config(tmp_path))
    assert [path for path, _ in site.log] == [TRAIN]
    gone = tmp_path / "train2017" / f"{3:012d}.jpg"
    short = tmp_path / "train2017" / f"{4:012d}.jpg"
    gone.unlink()
    short.write_bytes(b"short")
    report, _ = run(site.config(tmp_path))
    assert report.outcomes[2].unpacked.files == 2
    assert report.outcomes[2].unpacked.kept == 10
    assert files(tmp_path) == WHOLE
    annotations = tmp_path / "annotations" / "person_keypoints_val2017.json"
    annotations.write_bytes(annotations.read_bytes()[:-9])
    site.log.clear()
    run(site.config(tmp_path))
    assert [path for path, _ in site.log] == ["/annotations/annotations_trainval2017.zip"]
    assert files(tmp_path) == WHOLE


def test_kept_archives_are_used_again_and_never_deleted(site, tmp_path):
    report, _ = run(site.config(tmp_path, "val", keep_archives=True))
    assert [outcome.kept for outcome in report.outcomes] == [
        tmp_path / "annotations_trainval2017.zip",
        tmp_path / "val2017.zip",
    ]
    shutil.rmtree(tmp_path / "val2017")
    site.log.clear()
    run(site.config(tmp_path, "val"))
    assert site.log == []
    assert (tmp_path / "val2017.zip").is_file()
    assert len(files(tmp_path / "val2017")) == 5


def test_a_kept_archive_that_is_damaged_is_set_aside(site, tmp_path):
    own = tmp_path / "val2017.zip"
    own.write_bytes(bytes(len(site.files["/zips/val2017.zip"])))
    run(site.config(tmp_path, "val"), "val2017.zip has md5")
    assert own.with_name("val2017.zip.bad").is_file()
    run(site.config(tmp_path, "val"))
    assert len(files(tmp_path / "val2017")) == 5


def test_a_folder_is_whole_only_when_it_is_on_disk(site, tmp_path, monkeypatch):
    there = []
    monkeypatch.setattr("os.sync", lambda: there.append(len(list(tmp_path.glob("[atv]*/*.j*")))))
    run(site.config(tmp_path))
    assert there == [5, 6 + 4, 6 + 5 + 11]


# ------------------------------------------------------------------------------------------------ the network


def test_a_connection_that_drops_goes_on_from_there(site, tmp_path):
    site.acts[TRAIN] = [Act(send=20_000), Act(send=1), Act(send=0), Act(send=30_000)]
    _, notes = run(site.config(tmp_path))
    assert site.asked() == [0, 20_000, 20_001, 20_001, 50_001]
    assert [failures for _, failures in notes.troubles] == [0, 0, 1, 0]
    assert notes.restarts == []
    assert files(tmp_path) == WHOLE


def test_a_stall_ends_the_attempt(site, tmp_path, monkeypatch):
    run(site.config(tmp_path, "val"))
    site.acts[TRAIN] = [Act(mute=True), Act(send=7_000, stall=True)]
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    _, notes = run(site.config(tmp_path))
    assert site.asked() == [0, 0, 7_000]
    assert [reason for reason, _ in notes.troubles] == ["no byte for 0.3 s"] * 2
    assert files(tmp_path) == WHOLE


def test_patience_ends_and_the_part_is_kept(site, tmp_path):
    site.acts[TRAIN] = [Act(send=5_000)] + [Act(send=0)] * 4
    message, notes = run(site.config(tmp_path), "4 attempts in a row without a byte")
    assert "the last one: the connection was closed early; check the connection" in message
    assert ": 5,000 of" in message
    assert [failures for _, failures in notes.troubles] == [0, 1, 2, 3]
    part = tmp_path / ".download" / "train2017.zip.part"
    assert part.read_bytes() == site.files[TRAIN][:5_000]
    run(site.config(tmp_path))
    assert site.asked()[-1] == 5_000
    assert files(tmp_path) == WHOLE


def test_errors_of_the_server_pass_or_do_not(site, tmp_path):
    site.acts[TRAIN] = [Act(status=500), Act(status=503), Act(status=429)]
    _, notes = run(site.config(tmp_path))
    assert [reason for reason, _ in notes.troubles] == [
        "the server says 500 Internal Server Error",
        "the server says 503 Service Unavailable",
        "the server says 429 Too Many Requests",
    ]
    del site.files["/zips/val2017.zip"]
    shutil.rmtree(tmp_path / "val2017")
    message, notes = run(site.config(tmp_path), "404 Not Found")
    assert "/zips/val2017.zip" in message
    assert "--base-url" in message
    assert notes.troubles == []


def test_nobody_there(site, tmp_path):
    config = dataclasses.replace(site.config(tmp_path), base_url="http://127.0.0.1:9")
    assert "Connection refused" in run(config, "4 attempts in a row")[0]


def leave_part(site, root, data):
    """A part of the training images, as an earlier run would have left it."""
    run(site.config(root, "val"))
    site.log.clear()
    (root / ".download").mkdir()
    (root / ".download" / "train2017.zip.part").write_bytes(data)


@pytest.mark.parametrize(
    ("act", "reason"), [(Act(ranges=False), IGNORED), (Act(status=416), "the server refuses to go on from there")]
)
def test_a_part_of_no_use_is_begun_anew(site, tmp_path, act, reason):
    leave_part(site, tmp_path, b"x" * 4_000)
    site.acts[TRAIN] = [act]
    report, notes = run(site.config(tmp_path))
    assert notes.restarts == [reason]
    assert notes.troubles == []
    assert site.asked()[0] == 4_000
    assert files(tmp_path) == WHOLE
    assert report.outcomes[2].fetched == len(site.files[TRAIN])


def test_a_part_of_another_version_is_found_by_the_hash(site, tmp_path):
    leave_part(site, tmp_path, b"x" * 4_000)
    run(site.config(tmp_path), "train2017.zip has md5")
    assert site.asked() == [4_000]
    assert not (tmp_path / "train2017").exists()
    run(site.config(tmp_path))
    assert site.asked() == [4_000, 0]
    assert files(tmp_path) == WHOLE


def test_a_server_without_ranges_that_always_drops_is_given_up(site, tmp_path):
    site.acts[TRAIN] = [Act(ranges=False, send=6_000)] * 99
    message, notes = run(site.config(tmp_path), "had to be started anew 5 times")
    assert notes.restarts == [IGNORED] * 4
    assert "6,000 of" in message


def test_parts_that_are_whole_or_too_long(site, tmp_path):
    leave_part(site, tmp_path, site.files[TRAIN])
    run(site.config(tmp_path))
    assert site.log == []
    shutil.rmtree(tmp_path)
    leave_part(site, tmp_path, site.files[TRAIN] + b"x")
    _, notes = run(site.config(tmp_path))
    assert notes.restarts == ["what is here is longer than COCO's"]
    assert site.asked() == [0]
    assert files(tmp_path) == WHOLE


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Range": "bytes 0-9/{size}"}, r"Content-Range 'bytes 0-9/\d+', not the bytes from 5,000 on"),
        ({"Content-Range": "bytes 5000-9999/10000"}, r"has 10,000 bytes, not the [\d,]+ of COCO's"),
        ({"Content-Range": "bytes many"}, r"status 206 with Content-Range 'bytes many'"),
    ],
)
def test_ranges_that_contradict_are_errors(site, tmp_path, headers, message):
    leave_part(site, tmp_path, site.files[TRAIN][:5_000])
    size = str(len(site.files[TRAIN]))
    site.acts[TRAIN] = [Act(headers={name: value.replace("{size}", size) for name, value in headers.items()})]
    run(site.config(tmp_path), message)
    assert (tmp_path / ".download" / "train2017.zip.part").stat().st_size == 5_000


def test_lengths_that_contradict_are_errors(site, tmp_path):
    size = len(site.files[TRAIN])
    site.acts[TRAIN] = [Act(headers={"Content-Length": "77"})]
    run(site.config(tmp_path), rf"train2017.zip has 77 bytes, not the {size:,} of COCO's")
    site.acts[TRAIN] = [Act(status=416, headers={"Content-Range": "bytes */77"})]
    run(site.config(tmp_path), rf"has 77 bytes, not the {size:,}")
    site.files[TRAIN] += b"more"
    site.acts[TRAIN] = [Act(headers={"Content-Length": None})]
    run(site.config(tmp_path), "sends more than the")


def test_no_redirect_leads_to_a_file(site, tmp_path):
    site.acts[TRAIN] = [Act(status=302, headers={"Location": "file:///etc/passwd"})]
    assert "file:///etc/passwd" in run(site.config(tmp_path), "--base-url")[0]


def test_redirects_keep_the_range(site, tmp_path):
    leave_part(site, tmp_path, site.files[TRAIN][:5_000])
    site.files["/elsewhere.zip"] = site.files[TRAIN]
    site.acts[TRAIN] = [Act(status=302, headers={"Location": "/elsewhere.zip"})]
    run(site.config(tmp_path))
    assert site.asked("/elsewhere.zip") == [5_000]
    assert files(tmp_path) == WHOLE


# ------------------------------------------------------------------------------------------------ what came


def test_a_wrong_hash_sets_the_archive_aside(site, tmp_path):
    good = site.files[TRAIN]
    site.files[TRAIN] = good[:999] + bytes([good[999] ^ 1]) + good[1000:]
    message, _ = run(site.config(tmp_path), r"train2017.zip has md5 \w{32}, not \w{32}")
    assert str(tmp_path / ".download" / "train2017.zip.bad") in message
    assert [path.name for path in (tmp_path / ".download").glob("*.zip*[!n]")] == ["train2017.zip.bad"]
    assert not (tmp_path / "train2017").exists()
    site.files[TRAIN] = good
    run(site.config(tmp_path))
    assert site.asked() == [0, 0]
    assert files(tmp_path) == WHOLE


@pytest.mark.parametrize(
    "name",
    ["../evil", "train2017/../../evil", "/tmp/evil", "val2017/evil.jpg", "train2017/.evil", "train2017/..\\evil"],
)
def test_archives_that_reach_elsewhere_write_nothing(site, tmp_path, name):
    root = tmp_path / "a" / "coco"
    site.change(TRAIN, zipped("train2017", members()["train2017"], [(zipfile.ZipInfo(name), b"evil")]))
    message = run(site.config(root), "train2017.zip is damaged: it holds ")[0]
    assert f"{name!r}, which is no file of train2017/" in message
    assert not (root / "train2017").exists()
    assert {path.name for path in tmp_path.rglob("*evil*")} == set()
    assert (root / ".download" / "train2017.zip.bad").is_file()


def test_a_damaged_member_is_not_written(site, tmp_path):
    found = members()["train2017"]
    data = bytearray(zipped("train2017", found))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.infolist()[4]  # the folder comes first
    data[info.header_offset + 30 + len(info.filename) + 2_000] ^= 1
    site.change(TRAIN, bytes(data))
    run(site.config(tmp_path), "train2017.zip is damaged: Bad CRC-32 for file 'train2017/000000000003.jpg'")
    assert {name for name in files(tmp_path) if name.startswith("train2017")} == {
        f"train2017/{at:012d}.jpg" for at in range(3)
    }
    site.change(TRAIN, zipped("train2017", found))
    run(site.config(tmp_path))
    assert files(tmp_path) == WHOLE


def test_what_is_no_zip_file(site, tmp_path):
    site.change(TRAIN, b"<html>" * 1_000)
    run(site.config(tmp_path), "train2017.zip is damaged: File is not a zip file")


# ------------------------------------------------------------------------------------------------ the machine


def test_a_disk_that_is_too_small(site, tmp_path, monkeypatch):
    sizes = [len(data) for data in site.files.values()]
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    # Annotations and validation images stay unpacked, their archives go, those of the training images come on top.
    need = sizes[0] + sizes[1] + 2 * sizes[2]
    message, _ = run(site.config(tmp_path), "free some space")
    assert f"({need:,} bytes)" in message
    assert "(100,000); free some space, choose another --dir or fetch one split with --split val" in message
    assert site.log == []
    kept, _ = run(site.config(tmp_path, "train", keep_archives=True), "leave out --keep-archives")
    assert f"({2 * (sizes[0] + sizes[2]):,} bytes)" in kept
    assert "--split" not in kept


def test_a_disk_that_gets_full_while_it_unpacks(site, tmp_path, monkeypatch):
    def full(_source, _target, _length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patches:
        patches.setattr(shutil, "copyfileobj", full)
        run(site.config(tmp_path, "train"), "cannot unpack .*: No space left on device; mend that and run the same")
    site.log.clear()
    run(site.config(tmp_path, "train"))
    assert [path for path, _ in site.log] == [TRAIN]
    assert len(files(tmp_path / "train2017")) == 12


def test_a_second_download_waits_its_turn(site, tmp_path):
    class Curious(Notes):
        def on_plan(self, _):
            run(site.config(tmp_path), "another download works in")

    download_coco(site.config(tmp_path), Curious())
    assert files(tmp_path) == WHOLE


def test_a_synthetic_dataset_is_left_alone(site, tmp_path):
    (tmp_path / "synth.json").write_text("{}")
    run(site.config(tmp_path), "holds a synthetic dataset")
    assert site.log == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "ftp://x"}, "--base-url 'ftp://x' is no address that begins with http:// or https://"),
        ({"base_url": "file:///tmp"}, "is no address"),
        ({"base_url": "images.cocodataset.org"}, "is no address"),
        ({"base_url": "http://"}, "is no address"),
        ({"base_url": "http://x:y"}, "is no address"),
        ({"base_url": "http://x/ y"}, "is no address"),
        ({"splits": ("test",)}, "splits=test is not among COCO's; use train and val"),
        ({"splits": ()}, "use train and val"),
    ],
)
def test_configurations_check_themselves(changes, message):
    with pytest.raises(DownloadError, match=re.escape(message)):
        DownloadConfig(root=Path("x"), **changes)


# ------------------------------------------------------------------------------------------------ killed


KILLS = {
    # Half of what came is written, in the middle of the training images.
    "fetching": """
from preprocess.download import fetch
append = fetch._append
def dying(file, data):
    if "train2017" in str(file.name) and file.tell() + len(data) > 60_000:
        append(file, data[:len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    append(file, data)
fetch._append = dying
""",
    # Half of the sixth image is written.
    "unpacking": """
copy, copied = shutil.copyfileobj, []
def dying(source, target, length):
    copied.append(target.name)
    if sum("train2017" in name for name in copied) == 6:
        target.write(source.read(4_000))
        target.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    copy(source, target, length)
shutil.copyfileobj = dying
""",
    # All is there but the archive has not been tidied away.
    "tidying": """
from preprocess.download import coco
tidy = coco._tidy
def dying(config, staged, own):
    if "train2017" in staged.name:
        os.kill(os.getpid(), signal.SIGKILL)
    tidy(config, staged, own)
coco._tidy = dying
""",
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_download_goes_on(site, tmp_path, moment, start_child):
    code = f"""
import os, pickle, shutil, signal, sys
from pathlib import Path
config = pickle.loads(Path(sys.argv[1]).read_bytes())
{KILLS[moment]}
from preprocess.download.coco import download_coco
from console.download import DownloadPrinter
download_coco(config, DownloadPrinter(config))
"""
    root, config = tmp_path / "root", tmp_path / "config"
    root.mkdir()
    config.write_bytes(pickle.dumps(site.config(root)))
    child = start_child([sys.executable, "-c", code, config])
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors
    there = {name: data for name, data in files(root).items() if name.startswith("train2017")}
    assert len(there) == {"fetching": 0, "unpacking": 6, "tidying": 12}[moment]
    assert all(WHOLE[name] == data for name, data in there.items() if not name.endswith(".unpacking.tmp"))
    part = root / ".download" / "train2017.zip.part"
    have = part.stat().st_size if part.exists() else 0
    site.log.clear()
    report, _ = run(site.config(root))
    assert site.log == ([(TRAIN, have)] if moment == "fetching" else [])
    assert (have > 0) == (moment == "fetching")
    assert files(root) == WHOLE
    assert report.outcomes[2].unpacked.files == {"fetching": 12, "unpacking": 7, "tidying": 0}[moment]


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def command(site, monkeypatch, tmp_path):
    """The command, with the small COCO for the real one."""
    small = functools.partial(DownloadConfig, archives=site.archives)
    monkeypatch.setattr("preprocess.download.plan.DownloadConfig", small)

    def call(*arguments, code=0):
        arguments = ["download", "--dir", str(tmp_path / "coco"), "--base-url", site.url, *arguments]
        result = CliRunner(catch_exceptions=False).invoke(main, arguments)
        assert result.exit_code == code, result.output
        return result

    return call


def test_the_command_tells_what_it_does(site, command, tmp_path):
    site.acts[TRAIN] = [Act(send=9_000), Act(send=0), Act(ranges=False)]
    first = command("--split", "val")
    assert "val2017: val2017.zip, " in first.stderr
    assert "Fetching val2017.zip: " in first.stderr
    assert "train" not in first.stdout + first.stderr.replace("annotations_trainval2017.zip", "")
    second = command()
    assert "annotations: there, left alone" in second.stderr
    assert "val2017: all 5 images are there, left alone" in second.stderr
    assert "train2017.zip at 9.0 kB: the connection was closed early; going on in 0.0 s\n" in second.stderr
    assert "(1 of 4 without progress)" in second.stderr
    assert "train2017.zip starts anew after 9.0 kB: the server cannot go on within a file" in second.stderr
    assert f"✅ {tmp_path / 'coco'} is complete: " in second.stdout
    assert "train2017: 12 files unpacked, " in second.stdout
    (tmp_path / "coco" / ".download").mkdir()
    (tmp_path / "coco" / ".download" / "train2017.zip.part").write_bytes(b"x" * 1_000)
    third = command()
    assert "nothing to do" in third.stdout
    assert ".download holds 1.0 kB of other downloads: delete it" in third.stdout
    assert third.stderr == ""
    found = json.loads(command("--json").stdout)
    assert [outcome["folder"] for outcome in found["outcomes"]] == ["annotations", "val2017", "train2017"]
    assert [outcome["unpacked"] for outcome in found["outcomes"]] == [None] * 3


def test_ctrl_c_says_how_to_go_on(site, command, tmp_path, monkeypatch):
    def interrupted(file, data):
        file.write(data[:700])
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(fetch, "_append", interrupted)
        said = command("--split", "val", code=130)
    assert said.stderr.endswith("Stopped. What is there is kept: the same command continues.\n")
    command("--split", "val")
    assert [start for _, start in site.log] == [0, 700, 0]
    assert len(files(tmp_path / "coco")) == 11


def test_errors_of_the_command_are_one_line(site, command):
    assert "is no address that begins with http:// or https://" in command("--base-url", "ftp://x", code=1).stderr
    del site.files[TRAIN]
    last = command(code=1).stderr.splitlines()[-1]
    assert last.startswith(f"error: {site.url}{TRAIN}: the server says 404 Not Found; ")
    assert "Invalid value for '--split'" in command("--split", "test", code=2).stderr
