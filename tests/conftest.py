"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
import uuid
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from pkgutil import resolve_name

import cv2
import numpy as np
import psutil
import pytest
import torch

import train.inference
from model.encoder_unet import import_torchvision

ROOT = Path(__file__).resolve().parents[1]

# Whatever the locale and the terminal of whoever runs the tests: commands speak English, with emoji.
os.environ |= {"MASKCACHE_LANG": "en", "MASKCACHE_EMOJI": "1"}

with suppress(ImportError):
    import_torchvision()  # else tests that import timm or torchmetrics fail beside a torch for the CPU


def _dataset(name: str) -> Path:
    """Return a folder in COCO layout under $MASKCACHE_DATA or beside the repository, or skip the test."""
    beside = ROOT.parent / "shared" / "data"
    root = Path(os.environ.get("MASKCACHE_DATA", beside))
    if not (root / name / "annotations").is_dir():
        pytest.skip(f"no {name} in {root}; set MASKCACHE_DATA to the folder that holds it")
    return root / name


SHORT = {
    "train.loop._draw": lambda _run: (),
    "train.inference.SCALES": train.inference.SCALES[:2],
    "train.evaluation.run.plot_confusion": lambda *_, **__: None,
    "train.evaluation.run.plot_samples": lambda *_: None,
}
"""How runs and evaluations of tests end: without pictures, after measuring one larger side. Each takes longer than all
before it. Those of other processes end as for their users."""

WHOLE = {name: resolve_name(name) for name in SHORT}


def _ends(ends):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ends.items():
            patch.setattr(name, value)
        yield


@pytest.fixture(autouse=True, scope="session")
def _short_ends():
    yield from _ends(SHORT)


@pytest.fixture(scope="session")
def whole_runs(_short_ends):
    """A function that gives a context in which runs and evaluations end as for their users."""
    return contextmanager(lambda: _ends(WHOLE))


@pytest.fixture(autouse=True, scope="module")
def _only_garbage_of_this_file():
    """Let garbage be looked for among what a file's own tests make.

    The modules that all files import are a million objects, over which each search would take a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def coco_people() -> Path:
    """Return 740 photos with persons (COCO layout), for what must hold on real data."""
    return _dataset("coco-people")


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """Return 159 photos, half of them without a person (COCO layout), with crowd regions."""
    return _dataset("coco-mini")


@pytest.fixture(scope="session")
def write_coco():
    """A function that writes a small COCO folder: `write_coco(root, counts=(12, 5), seed=0)`."""
    return _write_coco


def _write_coco(root, counts=(12, 5), seed=0):
    """Photos of noise with one or two random polygons each; every fourth has nobody, every fifth a crowd."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    for split, count in zip(("train2017", "val2017"), counts, strict=True):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(count):
            height, width = (int(n) for n in rng.integers(40, 120, 2))
            name = f"{number:012d}.jpg"
            photo = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height))
            cv2.imwrite(str(root / split / name), photo)
            images.append({"id": 100 + number, "file_name": name, "height": height, "width": width})
            shapes = [] if number % 4 == 3 else [_polygon(rng, height, width) for _ in range(1 + number % 2)]
            crowd = [0] * len(shapes)
            if number % 5 == 4:
                shapes.append({"size": [height, width], "counts": [height * 3, height * 5, height * (width - 8)]})
                crowd.append(1)
            annotations += [
                {"id": len(annotations) + k, "image_id": 100 + number, "category_id": 1, "segmentation": shape,
                 "iscrowd": flag, "num_keypoints": 5, "area": 10.0, "bbox": [0, 0, 1, 1]}
                for k, (shape, flag) in enumerate(zip(shapes, crowd, strict=True))
            ]  # fmt: skip
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(document))
    return root


def _polygon(rng, height, width):
    return [(rng.uniform(-0.1, 1.1, (6, 2)) * [width, height]).round(2).reshape(-1).tolist()]


@pytest.fixture
def coco(write_coco, tmp_path):
    """Return a COCO folder of 1 photo to train with and 11 to validate with."""
    return write_coco(tmp_path / "coco", counts=(1, 11))


@pytest.fixture(scope="session")
def draw_cache():
    """A function that draws people and builds a cache of side 64 of them: `draw_cache(root, images=24, val=4)`."""
    from cache.spec import CacheSpec
    from preprocess.build.build import BuildConfig, build_cache
    from preprocess.synth.dataset import SynthConfig, make_dataset

    def draw(root, images=24, val=4):
        make_dataset(root / "coco", SynthConfig(images=images, val_fraction=val / images, long_side=(96, 128)))
        build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=CacheSpec(side=64, images="all")))
        return root / "cache"

    return draw


@pytest.fixture(scope="module")
def one_thread():
    """For the time of a test file, torch has one thread: sums come in one order, and no thread waits for another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def timm():
    """Return the package timm, or skip the test."""
    return pytest.importorskip("timm", reason="no timm; pip install -e '.[timm]'")


@contextmanager
def _default_signals():
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, usual)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def default_signals():
    """For the time of a test, let SIGINT and SIGTERM act on this process as they do in a terminal.

    Tests that run in the background of a script, or in some CI, have inherited an ignored SIGINT.
    """
    with _default_signals():
        yield


CHILD_SECONDS = 300.0
"""How long a child may take: a limit for what hangs, which a busy machine does not reach."""

CHILD_MARK = "MASKCACHE_TEST_CHILD"
"""Environment variable that a child and all its descendants have in common, whatever groups and sessions they open."""


class Child(subprocess.Popen):
    """A process that a test starts: in a session of its own, text on its pipes, SIGINT and SIGTERM acting by default.

    It is killed with all its descendants when the test has ended, or after some seconds. All ways of waiting for it
    end with it; `communicate` then fails the test with what it has written so far.

    Args:
        command: program and arguments.
        cwd, env, stdin, stderr: see `subprocess.Popen`.
        seconds: after which it is killed.

    Attributes:
        overdue: whether it was killed for that.
    """

    def __init__(
        self,
        command,
        *,
        cwd=ROOT,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        seconds=CHILD_SECONDS,
    ):
        self._mark, self.overdue = uuid.uuid4().hex, False
        with _default_signals():
            super().__init__(
                [str(part) for part in command], cwd=cwd, env={**env, CHILD_MARK: self._mark}, stdin=stdin,
                stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
            )  # fmt: skip
        self._timer = threading.Timer(seconds, self.expire)
        self._timer.daemon = True
        self._timer.start()

    def communicate(self, *arguments):
        """Wait for the end, and give the rest of what it wrote to standard output and to standard error."""
        written = super().communicate(*arguments)
        if self.overdue:
            pytest.fail(
                "\n".join([f"{self.args} was killed because it took too long; it wrote:", *filter(None, written)])
            )
        return written

    def expire(self):
        """Kill it because it takes too long."""
        self.overdue = True
        self._kill_family()

    def close(self):
        """Kill what is left of it and its descendants."""
        self._timer.cancel()
        self._kill_family()
        with suppress(OSError):  # what was written to it did not arrive
            self.__exit__(None, None, None)

    def _kill_family(self):
        while family := self.family():
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.01)

    def family(self):
        """Give those of it and its descendants that are alive."""
        processes = psutil.process_iter(["environ"])  # None where it is another user's, or has ended
        return [process for process in processes if (process.info["environ"] or {}).get(CHILD_MARK) == self._mark]


def _start_children():
    with ExitStack() as stack:

        def start(*arguments, **options):
            child = Child(*arguments, **options)
            stack.callback(child.close)
            return child

        yield start


start_child = pytest.fixture(_start_children, name="start_child")
"""A function that starts a `Child`, by its arguments. All processes that tests start are started by it."""

start_module_child = pytest.fixture(_start_children, name="start_module_child", scope="module")
"""The same for fixtures of a test file: these children live until its last test has ended."""


class ObjectStore:
    """A server on loopback that speaks S3: moto, in this process. What it holds survives `stop` and `start`.

    Attributes:
        fail_every: so often a request fails, at random: one in so many; 0: none does.
        cut_every: likewise, an answer ends before all of it was sent.
        delay: seconds that each request waits.
        failing: whether all requests fail.
        requests: that came so far: method and path of each.
        failed: how many of them failed or were cut.
    """

    def __init__(self):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._application = DomainDispatcherApplication(create_backend_app)
        self._random = np.random.default_rng(0)
        self._lock = threading.Lock()
        self.port = 0
        self.behave()
        self.start()

    def behave(self, *, fail_every=0, cut_every=0, delay=0.0, failing=False):
        """Set how it behaves from now on, and forget the requests so far."""
        self.fail_every, self.cut_every, self.delay, self.failing = fail_every, cut_every, delay, failing
        self.requests, self.failed = [], 0

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self):
        """By which a client finds it, and nothing else."""
        keys = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**keys, "AWS_ENDPOINT_URL": self.endpoint, "AWS_CONFIG_FILE": os.devnull}

    def start(self):
        from moto.moto_server.werkzeug_app import MotoRequestHandler
        from werkzeug.serving import make_server

        class Handler(MotoRequestHandler):
            def log(self, *_):
                """Nothing."""

        self._server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __call__(self, environ, start_response):
        """WSGI: moto's answer, or trouble."""
        with self._lock:
            self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            fails, cuts = (each and self._random.random() < 1 / each for each in (self.fail_every, self.cut_every))
        if self.delay:
            time.sleep(self.delay)
        if fails or self.failing:
            self.failed += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        whole = b"".join(self._application(environ, start_response))
        self.failed += bool(cuts and whole)
        return [whole[: len(whole) // 2] if cuts else whole]

    def bucket(self):
        """The URL of a new bucket."""
        name = f"tests-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        return f"s3://{name}"


@pytest.fixture(scope="module")
def object_store():
    """An `ObjectStore`, which the environment names for the time of a test file."""
    for name in ("moto", "s3fs"):
        pytest.importorskip(name, reason=f"no {name}; pip install -e '.[cloud]' moto flask")
    store = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store
    store.stop()


@pytest.fixture
def bucket(object_store):
    """The URL of an empty bucket of a server that behaves well."""
    object_store.behave()
    return object_store.bucket()
