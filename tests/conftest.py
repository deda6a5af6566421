"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
import uuid
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

# Whatever the locale and the terminal of whoever runs the tests: commands speak English, with emoji.
os.environ |= {"MASKCACHE_LANG": "en", "MASKCACHE_EMOJI": "1"}

# PyPI's torchvision is built for CUDA: beside a torch for the CPU its operators are missing, and whatever imports it
# (timm; torchmetrics, if it is there) fails. Nothing here calls them, so it is enough to declare those it asks for.
if torch.version.cuda is None and find_spec("torchvision"):
    _OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _dataset(name: str) -> Path:
    """Return a folder in COCO layout under $MASKCACHE_DATA or beside the repository, or skip the test."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("MASKCACHE_DATA", beside))
    if not (root / name / "annotations").is_dir():
        pytest.skip(f"no {name} in {root}; set MASKCACHE_DATA to the folder that holds it")
    return root / name


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


@pytest.fixture(scope="session")
def timm():
    """Return the package timm, or skip the test."""
    return pytest.importorskip("timm", reason="no timm; pip install -e '.[timm]'")


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
