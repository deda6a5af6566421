"""The resident backend against `native`, against plain torch (`grid_sample`), and its torch functions on the CPU."""

import dataclasses
import pickle
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch._inductor import metrics

from cache.errors import CacheCorruptError
from cache.index import SAMPLE_DTYPE, CacheIndex, SourceInfo, SplitInfo, encode_table
from cache.machine import compile_obstacle
from cache.reader import CacheReader
from cache.record import RecordLayout, checksum
from cache.shards import describe, write_shard
from cache.spec import CacheSpec
from loader import LEVELS, LoaderConfig, open_loader
from loader.augment import draw_parameters
from loader.loader import Choice, Loader
from loader.resident import ResidentSource
from loader.resident_store import TorchSampler, count_resident, default_budget, row_bytes
from tests.packing import pack_record

SIDE, SAMPLES, BATCH = 64, 29, 4
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]
RING = 3 * BATCH
"""Rows for what is not resident: of the batch with the caller and two ahead."""

SOME = (1 + 9 + RING) * row_bytes(SIDE)
"""A budget for nine samples."""

kinds = pytest.mark.parametrize("kind", KINDS, ids="-".join)
levels = pytest.mark.parametrize("level", LEVELS)
methods = pytest.mark.parametrize("method", ["kernels", "eager"])


def make_sample(rng):
    """A smooth picture with edges, and planes with curved outlines."""
    noise = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    person, ignore = np.zeros((2, SIDE, SIDE), np.uint8)
    centre, axes = rng.integers(20, SIDE - 20, 2).tolist(), rng.integers(8, 30, 2).tolist()
    cv2.ellipse(person, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    image[person == 1] = 255 - image[person == 1]
    ignore[: int(rng.integers(0, 14))] = 1
    return image, person, ignore & ~person


def make_cache(root, store="lmdb", codec="raw", *, edit=lambda number, jpeg: jpeg, spoil=lambda number, record: record):
    """A finished cache of `SAMPLES` samples in two shards.

    `edit` may change a JPEG before the checksum of its record is taken, and `spoil` a record after that.
    """
    rng, layout = np.random.default_rng(7), RecordLayout(SIDE, codec)
    table, shards = np.zeros(SAMPLES, SAMPLE_DTYPE), []
    table["height"] = table["width"] = table["box_height"] = table["box_width"] = SIDE
    (root / "train").mkdir(parents=True)
    for shard, numbers in enumerate(np.array_split(np.arange(SAMPLES), 2)):
        with write_shard(root / "train", shard, store, layout, len(numbers)) as writer:
            for row, number in enumerate(numbers.tolist()):
                image, person, ignore = make_sample(rng)
                if codec == "jpeg":
                    image = edit(number, cv2.imencode(".jpg", image[..., ::-1])[1].reshape(-1))
                record = pack_record(layout, image, person, ignore)
                table["image_id"][number], table["checksum"][number] = 1000 + number, checksum(record)
                table["shard"][number], table["row"][number] = shard, row
                writer.append(spoil(number, record))
        shards.append(describe(root / "train" / f"{shard:05d}.{store}", len(numbers)))
    data, table_checksum = encode_table(table)
    (root / "train" / "samples.npy").write_bytes(data)
    source = SourceInfo(annotations="", images="")
    split = SplitInfo(samples=SAMPLES, rejected=0, table_checksum=table_checksum, shards=tuple(shards), source=source)
    spec = CacheSpec(side=SIDE, store=store, codec=codec)
    CacheIndex(spec=spec, fingerprint="", tools={}, splits={"train": split}).save(root)
    return root


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    root = tmp_path_factory.mktemp("resident")
    return {kind: make_cache(root / "-".join(kind), *kind) for kind in KINDS}


@pytest.fixture(scope="module")
def raw(caches):
    return caches["lmdb", "raw"]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Samples 3 and 20 have a flipped bit; the first is resident even with `SOME`."""

    def spoil(number, record):
        if number in (3, 20):
            record[300] ^= 8
        return record

    return make_cache(tmp_path_factory.mktemp("damaged") / "cache", "lmdb", "jpeg", spoil=spoil)


def config(cache, level="none", **changes):
    values = {"batch_size": BATCH, "backend": "resident", "drop_last": False, "seed": 5, "threads": 2}
    return LoaderConfig(cache=cache, augment=LEVELS[level], **{**values, **changes})


def open_by(method, same):
    """A resident loader that samples in another way than its device's usual one."""
    reader = CacheReader(same.cache, same.split)
    return Loader(same, reader, ResidentSource(same, reader, method=method), Choice("resident", "asked for"))


def take(loader, count=None):
    """The next batches, as copies: (image, person, ignore, samples, valid, skipped samples)."""
    batches = []
    for batch in loader:
        assert batch.image.stride() == (3 * SIDE * SIDE, 1, 3 * SIDE, 3)
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        assert batch.person.shape == batch.ignore.shape == (BATCH, 1, SIDE, SIDE)
        assert {t.dtype for t in (batch.image, batch.person, batch.ignore)} == {torch.uint8}
        assert batch.person.is_contiguous()
        assert batch.ignore.is_contiguous()
        tensors = (tensor.cpu().clone() for tensor in (batch.image, batch.person, batch.ignore))
        skipped = [record.sample for record in batch.skipped]
        batches.append((*tensors, batch.samples.tolist(), batch.valid, skipped))
        if len(batches) == count:
            break
    return batches


def assert_same(mine, others):
    assert len(mine) == len(others) > 0
    for one, other in zip(mine, others, strict=True):
        assert one[3:] == other[3:]
        for a, b in zip(one[:3], other[:3], strict=True):
            assert torch.equal(a, b)


def assert_close(mine, others, tolerance=0.6, planes=0.002):
    """Within resampling tolerance: of grey levels in the mean, and of planes the share that may differ."""
    assert len(mine) == len(others) > 0
    for one, other in zip(mine, others, strict=True):
        assert one[3:] == other[3:]
        off = (one[0].double() - other[0].double()).abs()
        assert off.mean() < tolerance
        assert (off <= 2).double().mean() >= 0.999
        for a, b in zip(one[1:3], other[1:3], strict=True):
            assert set(a.unique().tolist()) <= {0, 1}
            assert (a.double() != b.double()).double().mean() <= planes


def expected(reader, level, epoch, batch):
    """What a batch must be, by `torch.nn.functional.grid_sample`, or by NumPy alone without augmentation."""
    samples, valid = batch[3:5]
    parts = []
    for sample in samples:
        fields = reader.layout.split(reader.record(sample))
        image = fields.image.reshape(SIDE, SIDE, 3)
        planes = (np.unpackbits(plane, bitorder="little").reshape(1, SIDE, SIDE) for plane in fields[1:])
        parts.append([torch.tensor(part.astype(np.float64)) for part in (image.transpose(2, 0, 1), *planes)])
    image, person, ignore = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    if level != "none":
        matrix, colour = map(torch.tensor, draw_parameters(LEVELS[level], SIDE, 5, epoch, np.array(samples)))
        centres = torch.arange(SIDE, dtype=torch.float64) + 0.5
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        positions = torch.einsum("nij,hwj->nhwi", matrix.double(), torch.stack([x, y, torch.ones_like(x)], -1))

        def sample(source, mode):
            return torch.nn.functional.grid_sample(
                source, 2 * positions / SIDE - 1, mode=mode, padding_mode="zeros", align_corners=False
            )

        image = torch.einsum("nij,njhw->nihw", colour[..., :3].double(), sample(image, "bilinear"))
        image = (image + colour[..., 3].double()[..., None, None]).round().clamp(0, 255)
        person, ignore = sample(person, "nearest"), 1 - sample(1 - ignore, "nearest")
    image[valid:], person[valid:], ignore[valid:] = 0, 0, 1
    return image, person, ignore, *batch[3:]


@kinds
@levels
def test_on_a_cpu_batches_are_those_of_native(caches, kind, level):
    with (
        open_loader(config(caches[kind], level)) as mine,
        open_loader(config(caches[kind], level, backend="native")) as others,
    ):
        for _ in range(2):
            assert_same(take(mine), take(others))


@kinds
def test_torch_gathers_what_native_copies(caches, kind):
    same = config(caches[kind])
    with open_by("eager", same) as mine, open_loader(dataclasses.replace(same, backend="native")) as others:
        assert_same(take(mine), take(others))


@methods
@pytest.mark.parametrize("level", ["light", "heavy"])
def test_augmented_batches_are_what_grid_sample_makes(raw, method, level):
    with open_by(method, config(raw, level)) as loader, CacheReader(raw, "train") as reader:
        for epoch in range(2):
            batches = take(loader)
            # The kernels blend in 16 bits.
            tolerance = 0.1 if method == "eager" else 0.6
            assert_close(batches, [expected(reader, level, epoch, batch) for batch in batches], tolerance)


@pytest.mark.parametrize("level", ["light", "heavy"])
def test_torch_and_native_agree(caches, level):
    same = config(caches["lmdb", "jpeg"], level)
    with open_by("eager", same) as mine, open_loader(dataclasses.replace(same, backend="native")) as others:
        assert_close(take(mine), take(others))


def test_compiled_and_eager_agree_and_little_is_compiled(raw, monkeypatch):
    """Two kernels, and not once more for another store or in another mode."""
    if obstacle := compile_obstacle("cpu"):
        pytest.skip(obstacle)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    metrics.reset()
    with open_by("compiled", config(raw, "heavy")) as loader:
        compiled = take(loader, 2)
        assert metrics.generated_kernel_count == 2
        with torch.inference_mode():
            compiled += take(loader)
    with open_by("compiled", config(raw, "heavy", resident_bytes=SOME)) as loader:
        assert_same(take(loader), compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    with open_by("eager", config(raw, "heavy")) as loader:
        # Where a product is rounded once more or less, half a grey level may fall to the other side.
        assert_close(compiled, take(loader), tolerance=0.01, planes=1e-4)


def test_it_is_compiled_for_more_sizes_of_a_batch_than_torch_lets_by_itself(raw):
    if obstacle := compile_obstacle("cpu"):
        pytest.skip(obstacle)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=1):  # eight by default, which takes longer
        for size in (4, 5):
            with open_by("compiled", config(raw, "light", batch_size=size)) as loader:
                assert len(next(iter(loader)).image) == size


@methods
@kinds
@pytest.mark.parametrize("level", ["none", "light"])
def test_with_a_part_resident_batches_are_the_same(caches, kind, method, level):
    same = config(caches[kind], level)
    with open_by(method, same) as whole, open_by(method, dataclasses.replace(same, resident_bytes=SOME)) as part:
        assert (whole._source.resident, part._source.resident) == (SAMPLES, 9)
        for _ in range(2):
            assert_same(take(part), take(whole))


def test_a_batch_holds_until_the_next_is_asked_for(raw):
    for method in ("kernels", "eager"):
        with open_by(method, config(raw, resident_bytes=SOME, prefetch=2)) as loader:
            wanted = take(loader)
            loader.load_state_dict({"epoch": 0, "consumed": 0})
            for batch, (image, *_) in zip(loader, wanted, strict=True):
                torch.arange(10**5).sort()  # time for what is being prepared to overwrite it
                assert torch.equal(batch.image, image)


@methods
@levels
def test_rows_that_fill_up_a_batch_are_black_and_ignored(raw, method, level):
    with open_by(method, config(raw, level, shuffle=False)) as loader:
        for _ in range(3):  # each epoch draws other colours
            image, person, ignore, _, valid, _ = take(loader)[-1]
            assert valid == SAMPLES % BATCH
            assert image[valid:].eq(0).all()
            assert person[valid:].eq(0).all()
            assert ignore[valid:].eq(1).all()
            assert not ignore[:valid].all()


@pytest.mark.parametrize("budget", [0, SOME])
def test_going_on_from_a_state_gives_the_batch_that_would_have_come(caches, budget):
    same = config(caches["lmdb", "jpeg"], "light", resident_bytes=budget)
    with open_loader(same) as loader:
        first, second = take(loader), take(loader)
    with open_loader(same) as loader:
        assert_same(take(loader, 2), first[:2])
        state = loader.state_dict()
        assert state == {"epoch": 0, "consumed": 2 * BATCH}
        assert_same(take(loader), first[2:])  # the abandoned epoch goes on in the same loader
        assert_same(take(loader), second)
    with open_loader(pickle.loads(pickle.dumps(same))) as loader:
        loader.load_state_dict(state)
        assert_same(take(loader), first[2:])


def test_ranks_see_what_one_process_sees(raw):
    with open_loader(config(raw, "light", batch_size=4, drop_last=True)) as loader:
        whole = take(loader)
    halves = []
    for rank in range(2):
        same = config(raw, "light", batch_size=2, rank=rank, world=2, drop_last=True)
        with open_loader(same) as loader:
            loader.load_state_dict({"epoch": 0, "consumed": 8})
            halves.append([(batch.image.clone(), batch.samples.tolist()) for batch in loader])
    assert len(halves[0]) == len(whole) - 2
    for one, left, right in zip(whole[2:], *halves, strict=True):
        assert torch.equal(one[0], torch.cat([left[0], right[0]]))
        assert one[3] == left[1] + right[1]


def test_a_bad_record_stops_it_while_loading(damaged):
    message = r"sample 3 \(image 1003\) of .*/train cannot be read: its checksum differs; run `verify"
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(CacheCorruptError, match=message):
        open_loader(config(damaged))
    assert {thread.name for thread in threading.enumerate()} <= before
    assert str(damaged) not in Path("/proc/self/maps").read_text()


def test_a_bad_record_that_is_not_resident_stops_it_when_its_turn_comes(tmp_path):
    def spoil(number, record):
        return record[:-1] if number == 20 else record

    root = make_cache(tmp_path / "cache", spoil=spoil)
    with open_loader(config(root, shuffle=False, resident_bytes=SOME)) as loader:
        with pytest.raises(CacheCorruptError, match=r"sample 20 \(image 1020\).*has .* bytes"):
            take(loader)
        loader.load_state_dict({"epoch": 0, "consumed": 24})  # past it
        assert [batch[3][0] for batch in take(loader)] == [24, 28]


@methods
@pytest.mark.parametrize("budget", [0, SOME])
@pytest.mark.parametrize("level", ["none", "heavy"])
def test_bad_records_are_skipped_and_named(caches, damaged, method, budget, level):
    same = config(damaged, level, on_bad_record="skip", resident_bytes=budget)
    with (
        open_by(method, same) as mine,
        open_by(method, dataclasses.replace(same, cache=caches["lmdb", "jpeg"])) as others,
    ):
        assert mine.bad_records == ()
        for _ in range(2):
            for one, other in zip(take(mine), take(others), strict=True):
                bad = torch.tensor([sample in (3, 20) for sample in one[3]]) & (torch.arange(BATCH) < one[4])
                assert one[5] == [sample for sample, is_bad in zip(one[3], bad, strict=True) if is_bad]
                for position, blank in enumerate((0, 0, 1)):
                    assert one[position][bad].eq(blank).all()
                    assert torch.equal(one[position][~bad], other[position][~bad])
        assert [(record.sample, record.image_id, record.reason) for record in mine.bad_records] == [
            (3, 1003, "its checksum differs"),
            (20, 1020, "its checksum differs"),
        ]


@pytest.mark.parametrize("budget", [0, SOME])
@pytest.mark.parametrize(
    "edit",
    [
        np.zeros_like,
        lambda jpeg: np.concatenate([jpeg[: jpeg.size // 2], np.full(9, 255, np.uint8)]),
        lambda jpeg: cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].reshape(-1),
    ],
    ids=["header", "scan", "size"],
)
def test_a_jpeg_that_was_written_badly_is_skipped(tmp_path, budget, edit):
    """Its checksum is right, so only decoding tells."""
    root = make_cache(
        tmp_path / "cache", codec="jpeg", edit=lambda number, jpeg: edit(jpeg) if number in (2, 15) else jpeg
    )
    with open_loader(config(root, on_bad_record="skip", resident_bytes=budget)) as loader:
        for _ in range(2):
            for image, person, ignore, samples, valid, skipped in take(loader):
                bad = [row for row, sample in enumerate(samples[:valid]) if sample in (2, 15)]
                assert skipped == [samples[row] for row in bad]
                assert image[bad].eq(0).all()
                assert person[bad].eq(0).all()
                assert ignore[bad].eq(1).all()
        assert [record.sample for record in loader.bad_records] == [2, 15]


def test_each_record_is_read_once(caches, monkeypatch):
    read = []
    fields = CacheReader.fields

    def counting(reader, sample):
        read.append(sample)
        return fields(reader, sample)

    monkeypatch.setattr(CacheReader, "fields", counting)
    with open_loader(config(caches["zarr", "raw"])) as loader:
        assert sorted(read) == list(range(SAMPLES))
        take(loader)
        assert len(read) == SAMPLES


def test_what_is_resident_is_told(raw):
    with open_loader(config(raw)) as loader:
        assert loader.resident == SAMPLES
    with open_loader(config(raw, resident_bytes=SOME)) as loader:
        assert loader.resident == 9


def test_all_or_what_fits():
    def plan(rows):
        return count_resident(100, SIDE, rows * row_bytes(SIDE), batch_size=4, batches=3, device="cpu")

    assert row_bytes(SIDE) == SIDE * SIDE * 3 + SIDE * SIDE // 4
    assert (plan(101), plan(100), plan(17)) == (100, 87, 4)
    with pytest.raises(ValueError, match="one batch of 4 samples beside the 3 under way takes"):
        plan(16)


def test_the_default_budget_leaves_room_for_the_network():
    device = torch.device("cpu")
    small, large, huge = (default_budget(device, batch, 384) for batch in (1, 4, 10**6))
    assert 1e9 < small - large < 4e9
    assert 0 < huge < large


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resident_bytes": 100_000}, r"may use 100,000 bytes on cpu, .* takes 226,304; set a larger resident_bytes"),
        ({"resident_bytes": -1}, "resident_bytes=-1 is below 0"),
        ({"device": "cuda:63"}, "device='cuda:63' is not there: torch finds .* CUDA devices"),
        ({"device": "meta"}, "device='meta' is not possible with the resident loader; use cuda or cpu"),
    ],
)
def test_what_cannot_work_is_refused(raw, changes, message):
    with pytest.raises(ValueError, match=message):
        open_loader(config(raw, **changes))


@methods
@pytest.mark.parametrize("end", ["close", "exception", "abandon"])
def test_nothing_stays_behind(raw, method, end):
    before = {thread.name for thread in threading.enumerate()}
    loader = open_by(method, config(raw, "light", resident_bytes=SOME, threads=3))

    def use():
        with loader:
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
    loader.close()  # twice is harmless
    assert {thread.name for thread in threading.enumerate()} <= before
    assert str(raw) not in Path("/proc/self/maps").read_text()
    assert all(tensor.numel() == 0 for tensor in loader._source._store.records)


def test_a_gpu_that_holds_everything_needs_no_threads(raw):
    before = threading.active_count()
    with open_by("eager", config(raw, "light")) as loader:
        assert threading.active_count() == before
        take(loader, 1)
        assert isinstance(loader._source._sample, TorchSampler)
        assert threading.active_count() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@levels
@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("budget", [0, SOME])
def test_gpu_and_cpu_agree(caches, codec, level, budget):
    same = config(caches["lmdb", codec], level, resident_bytes=budget)
    with open_by("eager", same) as cpu:
        others = take(cpu) + take(cpu)
    with open_loader(dataclasses.replace(same, device="cuda")) as gpu:
        assert all(batch.image.is_cuda for batch in gpu)
        gpu.load_state_dict({"epoch": 0, "consumed": 0})
        mine = take(gpu) + take(gpu)
    if level == "none":
        assert_same(mine, others)
    else:
        assert_close(mine, others, tolerance=0.01, planes=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_batches_hold_while_the_gpu_lags_behind(raw):
    """Rows of samples that come and go must not be overwritten before the GPU has read them."""
    same = config(raw, "light", device="cuda", resident_bytes=SOME)
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
