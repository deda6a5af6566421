"""The DALI graph on the CPU, against plain torch (`grid_sample`), against cv2's JPEG decoder, and against `native`."""

import dataclasses
import sys

import cv2
import numpy as np
import pytest
import torch

from cache.errors import CacheCorruptError
from cache.index import SAMPLE_DTYPE, CacheIndex, SourceInfo, SplitInfo, encode_table
from cache.reader import CacheReader
from cache.record import RecordLayout, checksum
from cache.shards import describe, write_shard
from cache.spec import CacheSpec
from loader.augment import LEVELS, draw_parameters
from loader.batch import LoaderConfig
from loader.loader import open_loader
from loader.order import epoch_order
from preprocess.build.build import BuildConfig, build_cache
from tests.packing import pack_record

pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed")

SIDE, SAMPLES, BATCH = 64, 21, 8
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]


def make_sample(rng):
    """A smooth picture with edges, and planes with curved outlines: what resampling meets in photos."""
    noise = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    person, ignore = np.zeros((2, SIDE, SIDE), np.uint8)
    centre, axes = rng.integers(20, SIDE - 20, 2).tolist(), rng.integers(8, 30, 2).tolist()
    cv2.ellipse(person, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    image[person == 1] = 255 - image[person == 1]
    ignore[: int(rng.integers(0, 14))] = 1
    return image, person, ignore & ~person


def make_cache(root, store, codec, spoil=lambda number, record: record):
    """A finished cache of `SAMPLES` samples in two shards; `spoil` may change a record after its checksum is taken."""
    rng, layout = np.random.default_rng(7), RecordLayout(SIDE, codec)
    table, shards = np.zeros(SAMPLES, SAMPLE_DTYPE), []
    table["height"] = table["width"] = table["box_height"] = table["box_width"] = SIDE
    (root / "train").mkdir(parents=True)
    for shard, numbers in enumerate(np.array_split(np.arange(SAMPLES), 2)):
        with write_shard(root / "train", shard, store, layout, len(numbers)) as writer:
            for row, number in enumerate(numbers.tolist()):
                image, person, ignore = make_sample(rng)
                if codec == "jpeg":
                    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
                    image = cv2.imencode(".jpg", image[..., ::-1], options)[1].reshape(-1)
                record = pack_record(layout, image, person, ignore)
                entry = table[number]
                entry["image_id"], entry["shard"], entry["row"] = 1000 + number, shard, row
                entry["checksum"] = checksum(record)
                writer.append(spoil(number, record))
        shards.append(describe(root / "train" / f"{shard:05d}.{store}", len(numbers)))
    data, table_checksum = encode_table(table)
    (root / "train" / "samples.npy").write_bytes(data)
    split = SplitInfo(
        samples=SAMPLES,
        rejected=0,
        table_checksum=table_checksum,
        shards=tuple(shards),
        source=SourceInfo(annotations="", images=""),
    )
    spec = CacheSpec(side=SIDE, store=store, codec=codec)
    CacheIndex(spec=spec, fingerprint="", tools={}, splits={"train": split}).save(root)
    return root


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    root = tmp_path_factory.mktemp("dali")
    return {kind: make_cache(root / "-".join(kind), *kind) for kind in KINDS}


@pytest.fixture(scope="module")
def raw(caches):
    return caches["lmdb", "raw"]


def config(cache, **changes):
    return dataclasses.replace(
        LoaderConfig(cache=cache, batch_size=BATCH, backend="dali", drop_last=False, seed=5, threads=2), **changes
    )


def take(loader, count=None):
    """The next batches, as copies: (image, person, ignore, samples, valid, epoch)."""
    batches = []
    for batch in loader:
        tensors = (tensor.cpu().clone() for tensor in (batch.image, batch.person, batch.ignore))
        batches.append((*tensors, batch.samples.copy(), batch.valid, batch.epoch))
        if len(batches) == count:
            break
    return batches


def assert_same(mine, others):
    assert len(mine) == len(others) > 0
    for one, other in zip(mine, others, strict=True):
        assert all(torch.equal(one[i], other[i]) for i in range(3))
        assert one[3].tolist() == other[3].tolist()
        assert one[4:] == other[4:]


def decode(reader, sample):
    """A record as (image, person, ignore), each `(C, S, S)` float64, by numpy and cv2 alone."""
    fields = reader.layout.split(reader.record(sample))
    if reader.layout.codec == "raw":
        image = fields.image.reshape(SIDE, SIDE, 3)
    else:
        image = cv2.imdecode(fields.image, cv2.IMREAD_COLOR)[..., ::-1]
    planes = (np.unpackbits(plane, bitorder="little").reshape(1, SIDE, SIDE) for plane in fields[1:])
    return [torch.tensor(plane.astype(np.float64)) for plane in (image.transpose(2, 0, 1), *planes)]


def expected(reader, level, epoch, samples):
    """What a batch must be, by `torch.nn.functional.grid_sample`."""
    image, person, ignore = (torch.stack(parts) for parts in zip(*(decode(reader, s) for s in samples), strict=True))
    if level == "none":
        return image, person, ignore
    matrix, colour = map(torch.tensor, draw_parameters(LEVELS[level], SIDE, 5, epoch, samples))
    centres = torch.arange(SIDE, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    positions = torch.einsum("nij,hwj->nhwi", matrix.double(), torch.stack([x, y, torch.ones_like(x)], -1))
    grid = 2 * positions / SIDE - 1

    def sample(source, mode):
        return torch.nn.functional.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=False)

    image = torch.einsum("nij,njhw->nihw", colour[..., :3].double(), sample(image, "bilinear"))
    image = (image + colour[..., 3].double()[..., None, None]).round().clamp(0, 255)
    return image, sample(person, "nearest"), 1 - sample(1 - ignore, "nearest")


def assert_close(batch, image, person, ignore, *, planes):
    """Within resampling tolerance: 0.6 grey levels in the mean, two for 99.9 % of the values."""
    valid = batch[4]
    off = (batch[0][:valid].double() - image[:valid].double()).abs()
    assert off.mean() < 0.6
    assert (off <= 2).double().mean() >= 0.999
    for mine, other in ((batch[1], person), (batch[2], ignore)):
        assert set(mine.unique().tolist()) <= {0, 1}
        assert (mine[:valid].double() != other[:valid].double()).double().mean() <= planes


@pytest.mark.parametrize(
    ("kind", "level"),
    [(KINDS[0], level) for level in LEVELS] + [(KINDS[1], "none"), (KINDS[1], "heavy"), (KINDS[2], "light")],
)
def test_batches_are_what_plain_torch_makes_of_the_records(caches, kind, level):
    with open_loader(config(caches[kind], augment=LEVELS[level])) as loader:
        epochs = [take(loader), take(loader)]
    with CacheReader(caches[kind], "train") as reader:
        for epoch, batches in enumerate(epochs):
            order = epoch_order(SAMPLES, 5, epoch)
            assert np.concatenate([batch[3][: batch[4]] for batch in batches]).tolist() == order.tolist()
            assert [batch[4:] for batch in batches] == [(8, epoch), (8, epoch), (5, epoch)]
            for batch in batches:
                image, person, ignore = expected(reader, level, epoch, batch[3])
                assert_close(batch, image, person, ignore, planes=0 if level == "none" else 0.002)
                if level == "none" and kind[1] == "raw":
                    assert torch.equal(batch[0][: batch[4]].double(), image[: batch[4]])


@pytest.mark.parametrize(
    ("codec", "level"), [("raw", "none"), ("raw", "light"), ("raw", "heavy"), ("jpeg", "none"), ("jpeg", "heavy")]
)
def test_dali_and_native_agree(caches, codec, level):
    same = config(caches["lmdb", codec], augment=LEVELS[level])
    with open_loader(same) as dali:
        mine = take(dali)
    with open_loader(dataclasses.replace(same, backend="native")) as native:
        others = take(native)
    if level == "none" and codec == "raw":
        assert_same(mine, others)
    for one, other in zip(mine, others, strict=True):
        assert one[3].tolist() == other[3].tolist()
        assert one[4:] == other[4:]
        assert_close(one, *other[:3], planes=0 if level == "none" else 0.002)


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_dali_and_native_agree_on_photos(coco_mini, tmp_path, codec):
    spec = CacheSpec(side=128, codec=codec)
    build_cache(BuildConfig(coco=coco_mini, out=tmp_path / "cache", spec=spec, splits=("val",)))
    for level in ("none", "heavy"):
        made = []
        for backend in ("dali", "native"):
            same = config(tmp_path / "cache", split="val", batch_size=16, augment=LEVELS[level], backend=backend)
            with open_loader(same) as loader:
                made.append(take(loader))
        assert len(made[0]) == len(made[1]) == 3
        for one, other in zip(*made, strict=True):
            assert one[3].tolist() == other[3].tolist()
            assert one[1].any()
            assert_close(one, *other[:3], planes=0 if level == "none" else 0.002)


@pytest.mark.parametrize("level", ["none", "heavy"])
@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_rows_that_fill_up_a_batch_are_black_and_ignored(caches, codec, level):
    with open_loader(config(caches["lmdb", codec], augment=LEVELS[level])) as loader:
        for _ in range(4):  # with augmentation, each epoch draws other colours
            image, person, ignore, _, valid, _ = take(loader)[-1]
            assert valid == 5
            assert image[valid:].eq(0).all()
            assert person[valid:].eq(0).all()
            assert ignore[valid:].eq(1).all()
            assert person[:valid].any()
            assert not ignore[:valid].all()


def test_layout_is_channels_last_without_a_copy(raw):
    for level in ("none", "light"):
        with open_loader(config(raw, augment=LEVELS[level])) as loader:
            batch = next(iter(loader))
            assert batch.image.shape == (BATCH, 3, SIDE, SIDE)
            assert batch.image.stride() == (3 * SIDE * SIDE, 1, 3 * SIDE, 3)
            assert batch.image.is_contiguous(memory_format=torch.channels_last)
            for plane in (batch.person, batch.ignore):
                assert plane.shape == (BATCH, 1, SIDE, SIDE)
                assert plane.is_contiguous()
            assert {tensor.dtype for tensor in (batch.image, batch.person, batch.ignore)} == {torch.uint8}


def test_a_batch_holds_until_the_next_is_asked_for(raw):
    with open_loader(config(raw, prefetch=1)) as loader:
        wanted = take(loader)
        loader.load_state_dict({"epoch": 0, "consumed": 0})
        for batch, (image, *_) in zip(loader, wanted, strict=True):
            torch.arange(10**6).sort()  # time for what is being prepared to overwrite it
            assert torch.equal(batch.image, image)


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_resuming_gives_the_batch_that_would_have_come(caches, codec):
    same = config(caches["lmdb", codec], augment=LEVELS["light"])
    with open_loader(same) as loader:
        first, state = take(loader, 2), loader.state_dict()
        rest = take(loader) + take(loader)
    assert state == {"epoch": 0, "consumed": 2 * BATCH}
    with open_loader(same) as loader:
        loader.load_state_dict(state)
        assert_same(take(loader) + take(loader), rest)
        loader.load_state_dict({"epoch": 0, "consumed": 0})
        assert_same(take(loader, 2), first)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_an_abandoned_epoch_leaves_nothing_behind(raw, prefetch):
    same = config(raw, prefetch=prefetch)
    with open_loader(same) as loader:
        wanted = take(loader) + take(loader)
    with open_loader(same) as loader:
        for _ in range(3):
            take(loader, 1)
            loader.load_state_dict({"epoch": 0, "consumed": 0})
        assert_same(take(loader) + take(loader), wanted)


def test_threads_and_ranks_do_not_change_the_batches(raw):
    with open_loader(config(raw, threads=1, batch_size=8)) as loader:
        whole = take(loader, 2)
    parts = []
    for rank in range(2):
        with open_loader(config(raw, threads=0, batch_size=4, rank=rank, world=2)) as loader:
            parts.append(take(loader, 2))
    for one, left, right in zip(whole, *parts, strict=True):
        assert torch.equal(one[0], torch.cat([left[0], right[0]]))


def test_a_bad_record_is_named_after_the_batches_before_it(tmp_path):
    bad = int(epoch_order(SAMPLES, 5, 0)[BATCH + 2])

    def spoil(number, record):
        return record[:-1] if number == bad else record

    with open_loader(config(make_cache(tmp_path / "cache", "lmdb", "raw", spoil))) as loader:
        batches = []
        with pytest.raises(CacheCorruptError, match=rf"sample {bad} \(image {1000 + bad}\).*bytes.*verify"):
            batches.extend(batch.samples for batch in loader)
        assert len(batches) == 1
        loader.load_state_dict({"epoch": 0, "consumed": 2 * BATCH})  # past it
        assert [batch[4] for batch in take(loader)] == [5]


@pytest.mark.parametrize("damage", ["header", "scan", "size"])
def test_a_bad_jpeg_is_named(tmp_path, damage):
    bad = int(epoch_order(SAMPLES, 5, 0)[BATCH + 2])
    small = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].reshape(-1)

    def spoil(number, record):
        if number != bad:
            return record
        layout = RecordLayout(SIDE, "jpeg")
        fields = layout.split(record)
        image = fields.image.copy()
        if damage == "header":
            image[:16] = 0
        elif damage == "scan":
            image[image.size // 3 :] = 0xFF
        else:
            image = small
        return pack_record(layout, image, *(layout.unpack_plane(plane) for plane in fields[1:]))

    with open_loader(config(make_cache(tmp_path / "cache", "lmdb", "jpeg", spoil))) as loader:
        with pytest.raises(CacheCorruptError, match=rf"sample {bad} \(image {1000 + bad}\)"):
            take(loader)
        loader.load_state_dict({"epoch": 0, "consumed": 2 * BATCH})
        assert [batch[4] for batch in take(loader)] == [5]


def test_closing_twice_or_midway_is_harmless(caches):
    for kind in KINDS:
        loader = open_loader(config(caches[kind], augment=LEVELS["heavy"]))
        take(loader, 1)
        loader.close()
        loader.close()


def test_without_dali_the_remedy_is_named(raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[dali\]'"):
        open_loader(config(raw))


@pytest.mark.parametrize(("device", "words"), [("cuda:63", "CUDA devices"), ("meta", "cuda or cpu")])
def test_a_device_that_is_not_there_is_named(raw, device, words):
    with pytest.raises(ValueError, match=rf"device='{device}'.*{words}"):
        open_loader(config(raw, device=device))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_gpu_and_cpu_run_the_same_graph(caches, codec, level):
    same = config(caches["lmdb", codec], augment=LEVELS[level])
    with open_loader(dataclasses.replace(same, device="cuda")) as gpu:
        for batch in gpu:
            assert batch.image.is_cuda
            assert batch.image.is_contiguous(memory_format=torch.channels_last)
        gpu.load_state_dict({"epoch": 0, "consumed": 0})
        mine = take(gpu) + take(gpu)
    with open_loader(same) as cpu:
        others = take(cpu) + take(cpu)
    if level == "none" and codec == "raw":
        assert_same(mine, others)
    for one, other in zip(mine, others, strict=True):
        assert_close(one, *other[:3], planes=0 if level == "none" else 0.002)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_batches_hold_while_the_gpu_lags_behind(raw):
    """The network is asynchronous: batches must stay whole in a stream that is far behind the CPU."""
    same = config(raw, augment=LEVELS["light"], device="cuda")
    load = torch.rand(4096, 4096, device="cuda")
    with open_loader(same) as loader:
        wanted = take(loader)
        loader.load_state_dict({"epoch": 0, "consumed": 0})
        late = []
        for batch in loader:
            for _ in range(20):
                load = load @ load / 4096
            late.append(batch.image.clone())
        assert all(torch.equal(one.cpu(), other[0]) for one, other in zip(late, wanted, strict=True))
