"""The native loader against NumPy and cv2, on real records."""

import gc
import pickle
import threading
from pathlib import Path
from queue import SimpleQueue

import cv2
import numpy as np
import pytest
import torch

import loader.native
from cache.errors import CacheCorruptError, CacheError
from cache.reader import CacheReader
from cache.spec import CacheSpec
from loader import LEVELS, LoaderConfig, open_loader
from loader.augment import draw_parameters
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset

SIDE = 96
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """One synthetic dataset as a cache of each kind: 22 training samples."""
    root = tmp_path_factory.mktemp("loader")
    make_dataset(root / "coco", SynthConfig(images=26, val_fraction=4 / 26, seed=5))
    made = {}
    for store, codec in KINDS:
        spec = CacheSpec(side=SIDE, store=store, codec=codec, images="all", shard_samples=8)
        made[store, codec] = root / f"{store}-{codec}"
        build_cache(BuildConfig(coco=root / "coco", out=made[store, codec], spec=spec))
    return made


def decoded(reader, sample):
    """A sample as NumPy and cv2 read it: RGB, person, ignore."""
    fields = reader.layout.split(reader.record(sample))
    image = fields.image.reshape(SIDE, SIDE, 3) if reader.layout.codec == "raw" else None
    if image is None:
        image = cv2.imdecode(fields.image, cv2.IMREAD_COLOR)[:, :, ::-1]
    return image, reader.layout.unpack_plane(fields.person), reader.layout.unpack_plane(fields.ignore)


def snapshot(loader, stop=None):
    """Copies of the batches of an epoch, or of the first `stop` of them."""
    batches = []
    for batch in loader:
        batches.append((batch.samples.copy(), *(t.clone().numpy() for t in (batch.image, batch.person, batch.ignore))))
        if len(batches) == stop:
            break
    return batches


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_an_epoch_is_the_samples_in_order(caches, kind, threads):
    config = LoaderConfig(cache=caches[kind], batch_size=4, threads=threads, seed=2)
    with open_loader(config) as loader, CacheReader(caches[kind], "train") as reader:
        assert len(loader) == 5
        seen = []
        for batch in loader:
            assert batch.image.shape == (4, 3, SIDE, SIDE)
            assert batch.person.shape == batch.ignore.shape == (4, 1, SIDE, SIDE)
            assert batch.image.dtype == batch.person.dtype == batch.ignore.dtype == torch.uint8
            assert batch.image.is_contiguous(memory_format=torch.channels_last)
            assert batch.valid == 4
            seen += batch.samples.tolist()
            for row, sample in enumerate(batch.samples.tolist()):
                image, person, ignore = decoded(reader, sample)
                np.testing.assert_array_equal(batch.image[row].permute(1, 2, 0), image)
                np.testing.assert_array_equal(batch.person[row, 0], person)
                np.testing.assert_array_equal(batch.ignore[row, 0], ignore)
        assert len(set(seen)) == 20
        assert loader.state_dict() == {"epoch": 1, "consumed": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_only_jpegs_are_decoded_off_the_lines_of_the_caches(caches, kind):
    """A decoder stores past the caches into rows that begin with a multiple of 32 bytes; copying is to do just that."""
    with open_loader(LoaderConfig(cache=caches[kind], backend="native", batch_size=2)) as loader:
        for batch in loader:
            starts = {image.data_ptr() % 64 for image in batch.image}
            assert all(start % 32 for start in starts) if kind[1] == "jpeg" else starts == {0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["light", "heavy"])
def test_augmented_batches_are_what_cv2_makes_of_the_parameters(caches, kind, level):
    config = LoaderConfig(cache=caches[kind], batch_size=11, augment=LEVELS[level], seed=9)
    with open_loader(config) as loader, CacheReader(caches[kind], "train") as reader:
        loader.load_state_dict({"epoch": 3, "consumed": 11})
        (batch,) = loader
        matrix, colour = draw_parameters(config.augment, SIDE, 9, 3, batch.samples)
        for row, sample in enumerate(batch.samples.tolist()):
            source, person, ignore = decoded(reader, sample)
            expected = warp_by_cv2(source, matrix[row], colour[row])
            difference = np.abs(batch.image[row].permute(1, 2, 0).numpy().astype(float) - expected)
            assert difference.mean() < 0.6, "cv2 interpolates in steps of 1/32 of a pixel"
            planes = nearest(np.stack([person, ignore]), matrix[row])
            assert (batch.person[row, 0].numpy() != planes[0]).mean() < 2e-3
            assert (batch.ignore[row, 0].numpy() != planes[1]).mean() < 2e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["none", "light"])
def test_kernels_are_loaded_by_a_batch_of_no_samples(caches, kind, level, monkeypatch):
    called, collecting = set(), []

    def watched(name):
        kernel = getattr(loader.native, name)

        def call(places, *arguments):
            called.add(name)
            collecting.append(gc.isenabled())
            assert len(places) == 0
            kernel(places, *arguments)

        monkeypatch.setattr(loader.native, name, call)

    config = LoaderConfig(cache=caches[kind], batch_size=4, augment=LEVELS[level], threads=1)
    with CacheReader(caches[kind], "train") as reader:
        source, done = loader.native.NativeSource(config, reader), SimpleQueue()
        source._pool.submit(int, done)
        done.get()  # now its thread has loaded them
        for name in ("copy_records", "unpack_planes", "warp_records"):
            watched(name)
        try:
            source._load_kernels()
        finally:
            source.close()
    assert called == {"warp_records" if level == "light" else "unpack_planes" if kind[1] == "jpeg" else "copy_records"}
    assert collecting
    assert not any(collecting)
    assert gc.isenabled()


def warp_by_cv2(source, matrix, colour):
    # cv2 counts from the centre of the first pixel, the parameters from its corner.
    ours = matrix.astype(np.float64)
    theirs = ours.copy()
    theirs[:, 2] += ours[:, :2] @ [0.5, 0.5] - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(source.astype(np.float32), theirs, (SIDE, SIDE), flags=flags)
    return np.clip(warped @ colour[:, :3].T + colour[:, 3], 0, 255)


def nearest(planes, matrix):
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    u, v = (matrix.astype(np.float64) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)).reshape(2, SIDE, SIDE)
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
    out = np.stack([np.zeros((SIDE, SIDE), np.uint8), np.ones((SIDE, SIDE), np.uint8)])
    out[:, inside] = planes[:, row[inside], column[inside]]
    return out


@pytest.mark.parametrize("level", ["none", "light"])
def test_a_ragged_batch_is_filled_up_with_ignored_samples(caches, level):
    config = LoaderConfig(
        cache=caches["lmdb", "raw"], batch_size=8, drop_last=False, shuffle=False, augment=LEVELS[level]
    )
    with open_loader(config) as loader:
        batches = [(batch.valid, batch.person.clone(), batch.ignore.clone()) for batch in loader]
    assert [valid for valid, _, _ in batches] == [8, 8, 6]
    _, person, ignore = batches[-1]
    assert ignore[6:].all()
    assert not person[6:].any()
    assert not ignore[:6].all()


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_from_a_state_gives_the_batches_that_would_have_come(caches, kind):
    config = LoaderConfig(cache=caches[kind], batch_size=4, augment=LEVELS["light"], threads=2)
    with open_loader(config) as loader:
        first, second = snapshot(loader), snapshot(loader)
    with open_loader(config) as loader:
        assert_same(snapshot(loader, stop=2), first[:2])
        state = loader.state_dict()
        assert state == {"epoch": 0, "consumed": 8}
        assert_same(snapshot(loader), first[2:])  # the abandoned epoch goes on in the same loader
        assert_same(snapshot(loader), second)
    with open_loader(pickle.loads(pickle.dumps(config))) as loader:
        loader.load_state_dict(state)
        assert_same(snapshot(loader), first[2:])


def test_ranks_see_what_one_process_sees(caches):
    path = caches["lmdb", "raw"]
    with open_loader(LoaderConfig(cache=path, batch_size=4, augment=LEVELS["light"])) as loader:
        whole = snapshot(loader)
    ranks = []
    for rank in range(2):
        config = LoaderConfig(cache=path, batch_size=2, rank=rank, world=2, augment=LEVELS["light"])
        with open_loader(config) as loader:
            ranks.append(snapshot(loader))
    assert_same([tuple(map(np.concatenate, zip(*pair, strict=True))) for pair in zip(*ranks, strict=True)], whole)


def test_a_state_between_batches_is_refused(caches):
    message = "6 samples into epoch 1, is not a multiple of the global batch of 4"
    with (
        open_loader(LoaderConfig(cache=caches["lmdb", "raw"], batch_size=4)) as loader,
        pytest.raises(ValueError, match=message),
    ):
        loader.load_state_dict({"epoch": 1, "consumed": 6})


def test_a_bad_record_is_named_at_once(caches, tmp_path):
    import shutil

    root = tmp_path / "broken"
    shutil.copytree(caches["lmdb", "jpeg"], root)
    with CacheReader(root, "train") as reader:
        jpeg = reader.layout.split(reader.record(5)).image.tobytes()
        image_id = reader.samples["image_id"][5]
        shard = root / "train" / reader.info.shards[reader.samples["shard"][5]].name
    data = shard.read_bytes()
    assert data.count(jpeg) == 1
    shard.write_bytes(data.replace(jpeg, b"\xff\xd8\xff" + b"\0" * (len(jpeg) - 3)))
    message = rf"sample 5 \(image {image_id}\) of .* cannot be read"
    with (
        open_loader(LoaderConfig(cache=root, batch_size=4, shuffle=False)) as loader,
        pytest.raises(CacheCorruptError, match=message),
    ):
        snapshot(loader)


@pytest.mark.parametrize("end", ["close", "exception", "abandon"])
def test_nothing_stays_behind(caches, end):
    before = {thread.name for thread in threading.enumerate()}

    def use():
        with open_loader(LoaderConfig(cache=caches["lmdb", "raw"], batch_size=4)) as loader:
            for _ in loader:
                if end == "exception":
                    raise KeyboardInterrupt
                if end == "abandon":
                    break

    if end == "exception":
        with pytest.raises(KeyboardInterrupt):
            use()
    else:
        use()
    assert {thread.name for thread in threading.enumerate()} <= before
    assert str(caches["lmdb", "raw"]) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0 is below 1"),
        ({"rank": 2, "world": 2}, ValueError, r"rank=2 is not within 0\.\.1"),
        ({"backend": "ffcv"}, ValueError, "backend='ffcv' is not known; use one of auto, native, dali"),
        ({"batch_size": 64}, CacheError, "has 22 samples in 'train', fewer than one batch of 64"),
        ({"split": "test"}, CacheError, "has no split 'test'"),
    ],
)
def test_impossible_configurations_are_refused(caches, fields, error, message):
    with pytest.raises(error, match=message):
        open_loader(LoaderConfig(cache=caches["lmdb", "raw"], **fields)).close()
