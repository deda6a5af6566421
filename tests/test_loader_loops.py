"""The loader and its batches in loops of other people: DataLoader, torchdata, Lightning, Accelerate, a notebook."""

import copy
import gc
import io
import itertools
import json
import pickle
import re
import warnings
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler

from cache import files
from cache.errors import CacheCorruptError
from cache.messages import UserError
from cache.reader import CacheReader
from cache.spec import CacheSpec
from cache.storage import StorageUrl
from loader import Batch, LoaderConfig, open_loader
from loader.prefetch import Buffers
from maskcache import MaskDataset
from preprocess.build.build import BuildConfig, build_cache

PAGE = Path(__file__).resolve().parents[1] / "docs" / "loops.md"
SIDE, SAMPLES, BATCH, STEPS = 64, 22, 4, 5
KINDS = [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")]


@pytest.fixture(scope="module")
def caches(tmp_path_factory, write_coco):
    """22 training samples in each kind of cache."""
    root = tmp_path_factory.mktemp("loops")
    coco = write_coco(root / "coco", counts=(SAMPLES, 6))
    for store, codec in KINDS:
        spec = CacheSpec(side=SIDE, store=store, codec=codec, images="all", shard_samples=8)
        build_cache(BuildConfig(coco=coco, out=root / f"{store}-{codec}", spec=spec))
    return {kind: root / "-".join(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def config(caches):
    return LoaderConfig(cache=caches["lmdb", "raw"], batch_size=BATCH, seed=3, augment="light", backend="native")


@pytest.fixture(scope="module")
def expected(config):
    """Three epochs of batches, copied one by one."""
    with open_loader(config) as loader:
        return [copied(batch) for _ in range(3) for batch in loader]


def copied(batch):
    return batch.samples.tolist(), *(tensor.numpy().copy() for tensor in (batch.image, batch.person, batch.ignore))


def assert_same(found, expected):
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine[0] == other[0]
        for a, b in zip(mine[1:], other[1:], strict=True):
            np.testing.assert_array_equal(a, b)


class TestBatch:
    def test_it_unpacks_into_its_three_tensors(self, config):
        with open_loader(config) as loader:
            batch = next(iter(loader))
            image, person, ignore = batch
            assert (image, person, ignore) == (batch.image, batch.person, batch.ignore) == tuple(batch)
            assert list(batch.dict().items()) == [("image", image), ("person", person), ("ignore", ignore)]

    def test_it_moves_with_all_that_it_says(self, config):
        with open_loader(config) as loader:
            batch = next(iter(loader))
        moved = batch.to("meta", non_blocking=True)
        assert isinstance(moved, Batch)
        assert {tensor.device.type for tensor in moved} == {"meta"}
        assert [tensor.shape for tensor in moved] == [tensor.shape for tensor in batch]
        assert moved.image.is_contiguous(memory_format=torch.channels_last)
        assert (moved.samples is batch.samples, moved.valid, moved.epoch) == (True, BATCH, 0)
        assert batch.to(torch.device("cpu")).image is batch.image

    def test_each_tensor_is_pinned(self, config, monkeypatch):
        """Without a GPU memory cannot be pinned; so the method of a tensor is another one here."""
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone() + 1)
        with open_loader(config) as loader:
            batch = next(iter(loader))
            pinned = batch.pin_memory()
        for tensor, original in zip(pinned, batch, strict=True):
            assert torch.equal(tensor, original + 1)
        assert pinned.samples is batch.samples

    @pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
    def test_a_copy_is_one_of_its_own(self, config, copy_of):
        with open_loader(config) as loader:
            batch = next(iter(loader))
            before, twin = copied(batch), copy_of(batch)
        for tensor in batch:
            tensor.zero_()
        assert_same([copied(twin)], [before])

    @pytest.mark.parametrize("backend", ["native", "dali", "resident"])
    @pytest.mark.parametrize("augment", ["none", "light"])
    def test_it_stays_as_it_is_while_it_is_kept(self, caches, backend, augment):
        if backend == "dali":
            pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed")
        same = LoaderConfig(cache=caches["lmdb", "jpeg"], batch_size=BATCH, augment=augment, backend=backend)
        with open_loader(same) as loader:
            expected = [copied(batch) for _ in range(3) for batch in loader]
        with open_loader(same) as loader:
            kept = [batch for _ in range(3) for batch in loader]
            if backend == "dali":  # its memory goes with its pipeline
                assert_same([copied(batch) for batch in kept], expected)
                return
        assert_same([copied(batch) for batch in kept], expected)

    @pytest.mark.parametrize("backend", ["native", "resident"])
    @pytest.mark.parametrize(
        "part", [lambda t: t[1:, :, 3], lambda t: t[1:, :, 3].numpy(), lambda t: memoryview(t[1:, :, 3].numpy())]
    )
    def test_so_does_a_view_of_it(self, caches, backend, part):
        same = LoaderConfig(cache=caches["lmdb", "raw"], batch_size=BATCH, backend=backend)
        with open_loader(same) as loader:
            views, values = [], []
            for batch in loader:
                views.append(part(batch.image))
                values.append(np.asarray(views[-1]).copy())
                del batch
        for view, value in zip(views, values, strict=True):
            np.testing.assert_array_equal(np.asarray(view), value)

    @pytest.mark.parametrize("backend", ["native", "resident"])
    @pytest.mark.parametrize("ahead", [0, 1])
    def test_memory_is_used_again(self, caches, backend, ahead, monkeypatch):
        """A `for` loop needs one buffer more than the loader, one that looks ahead two; whoever keeps more has more."""
        made = []
        buffers = partial(lambda make, *shape, **options: made.append(shape) or make(*shape, **options), Buffers)
        monkeypatch.setattr(f"loader.{backend}.Buffers", buffers)
        same = LoaderConfig(cache=caches["lmdb", "raw"], batch_size=1, backend=backend, prefetch=2)
        with open_loader(same) as loader:
            places, seen = set(), []
            for _ in range(3):
                for batch in loader:
                    places.add(batch.image.data_ptr())
                    seen = [*seen, batch][-ahead - 1 :]
            assert len(places) == len(made) == 3 + 1 + ahead
            kept = list(loader)
            assert len({batch.image.data_ptr() for batch in kept}) == SAMPLES


class TestLoader:
    def test_a_data_loader_hands_its_batches_on(self, config, expected):
        with open_loader(config) as loader:
            around = DataLoader(loader, batch_size=None, num_workers=0)
            assert len(around) == STEPS
            assert_same([copied(batch) for _ in range(3) for batch in around], expected)

    @pytest.mark.parametrize("collate", [tuple, Batch.dict])
    def test_a_data_loader_unpacks_them(self, config, expected, collate):
        with open_loader(config) as loader:
            for found, (_, *tensors) in zip(DataLoader(loader, batch_size=None, collate_fn=collate), expected):  # noqa: B905
                assert type(found) is (tuple if collate is tuple else dict)
                for a, b in zip(found.values() if collate is Batch.dict else found, tensors, strict=True):
                    np.testing.assert_array_equal(a, b)

    def test_forked_workers_are_refused(self, config, expected, monkeypatch):
        monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # for each that failed
        with open_loader(config) as loader:
            around = DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="fork")
            with pytest.raises(RuntimeError, match=r"in a DataLoader use num_workers=0, or a maskcache\.MaskDataset"):
                next(iter(around))
            gc.collect()  # it waits for its workers as it goes
            assert_same([copied(batch) for batch in loader], expected[:STEPS])

    @pytest.mark.parametrize(
        "send",
        [
            pickle.dumps,
            copy.copy,
            copy.deepcopy,
            lambda loader: iter(DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="spawn")),
        ],
    )
    def test_it_cannot_be_sent_or_copied(self, config, expected, send):
        with open_loader(config) as loader:
            with pytest.raises(UserError, match=r"cannot be pickled or copied.* LoaderConfig .*num_workers=0"):
                send(loader)
            assert_same([copied(batch) for batch in loader], expected[:STEPS])

    def test_an_epoch_may_be_set(self, config, expected):
        with open_loader(config) as loader:
            loader.set_epoch(2)
            assert_same([copied(batch) for batch in loader], expected[2 * STEPS :])
            loader.set_epoch(np.int64(1))
            assert loader.state_dict() == {"epoch": 1, "consumed": 0}
            json.dumps(loader.state_dict())
            running = iter(loader)
            next(running)
            loader.set_epoch(1)
            with pytest.raises(RuntimeError, match="ended by load_state_dict or set_epoch"):
                next(running)
            assert_same([copied(batch) for batch in loader], expected[STEPS : 2 * STEPS])
            with pytest.raises(UserError, match="epoch=-1 is below 0; use 0 or more"):
                loader.set_epoch(-1)

    def test_the_epoch_of_a_restored_position_keeps_it(self, config, expected):
        with open_loader(config) as loader:
            standing = iter(loader)  # a loop's that takes its iterator first
            loader.load_state_dict({"epoch": 1, "consumed": 2 * BATCH})
            loader.sampler.set_epoch(1)
            assert_same([copied(batch) for batch in standing], expected[STEPS + 2 : 2 * STEPS])
            loader.load_state_dict({"epoch": 1, "consumed": 2 * BATCH})
            loader.set_epoch(2)
            assert loader.state_dict() == {"epoch": 2, "consumed": 0}

    @pytest.mark.parametrize("taken", [0, 1, 3, STEPS, STEPS + 2])
    @pytest.mark.parametrize("way", ["json", "torch"])
    def test_a_state_may_be_saved(self, config, expected, taken, way):
        with open_loader(config) as loader:
            rest = taken
            while rest > 0:
                for _ in zip(range(rest), loader, strict=False):
                    rest -= 1
            state = loader.state_dict()
        if way == "json":
            state = json.loads(json.dumps(state))
        else:
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        with open_loader(config) as loader:
            loader.load_state_dict(state)
            assert_same([copied(batch) for batch in loader], expected[taken : STEPS * (1 + taken // STEPS)])

    @pytest.mark.parametrize("taken", [0, 2, STEPS - 1, STEPS])
    def test_torchdata_goes_on_with_the_next_batch(self, config, expected, taken):
        stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
        with open_loader(config) as loader:
            around = stateful.StatefulDataLoader(loader, batch_size=None)
            for _ in zip(range(taken), around, strict=False):
                pass
            state = around.state_dict()
        with open_loader(config) as loader:
            around = stateful.StatefulDataLoader(loader, batch_size=None)
            around.load_state_dict(state)
            following = [copied(batch) for batch in around]
        assert_same(following, expected[taken : STEPS * (1 + taken // STEPS)])


def as_cv2_reads(cache, split="train"):
    """The samples as (image, person, ignore), read by NumPy and cv2."""
    found = []
    with CacheReader(cache, split) as reader:
        for sample in range(len(reader)):
            fields = reader.layout.split(reader.record(sample))
            raw = reader.layout.codec == "raw"
            image = fields.image.reshape(SIDE, SIDE, 3) if raw else cv2.imdecode(fields.image, 1)[:, :, ::-1]
            planes = (reader.layout.unpack_plane(plane)[None] for plane in (fields.person, fields.ignore))
            found.append((image.transpose(2, 0, 1).copy(), *(plane.copy() for plane in planes)))
    return found


class TestMaskDataset:
    @pytest.mark.parametrize("kind", KINDS)
    def test_an_item_is_the_sample(self, caches, kind):
        dataset, oracle = MaskDataset(caches[kind], "train"), as_cv2_reads(caches[kind])
        assert len(dataset) == len(dataset.samples) == SAMPLES
        for index in (*range(SAMPLES), -1, -SAMPLES, np.int64(3), torch.tensor(5)):
            item = dataset[index]
            for tensor, values in zip(item, oracle[index], strict=True):
                assert tensor.dtype == torch.uint8
                np.testing.assert_array_equal(tensor, values)
        assert sum(1 for _ in dataset) == SAMPLES
        assert len(MaskDataset(str(caches[kind]), "val")) == 6

    def test_beyond_the_samples_there_is_none(self, caches):
        dataset = MaskDataset(caches["lmdb", "raw"])
        for index in (SAMPLES, -SAMPLES - 1):
            with pytest.raises(IndexError, match=f"index {index} is beyond the 22 samples"):
                dataset[index]
        for index in (1.0, slice(2)):
            with pytest.raises(TypeError, match="integer"):
                dataset[index]

    @pytest.mark.parametrize(
        ("kind", "context", "used"),
        [*itertools.product(KINDS, [None, "fork"], [False, True]), (KINDS[1], "spawn", True)],
    )
    def test_workers_and_samplers_get_each_sample(self, caches, kind, context, used):
        dataset, oracle = MaskDataset(caches[kind]), as_cv2_reads(caches[kind])
        if used:
            assert dataset[0][0].shape == (3, SIDE, SIDE)
        number = 1 if context == "spawn" else 2  # to start one takes seconds
        workers = {"num_workers": number, "multiprocessing_context": context} if context else {}
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
        wanted = list(RandomSampler(dataset, generator=torch.Generator().manual_seed(1)))
        batches = list(DataLoader(dataset, batch_size=5, sampler=order, **workers))
        assert [len(image) for image, _, _ in batches] == [5, 5, 5, 5, 2]
        for part, tensors in enumerate(zip(*batches, strict=True)):
            np.testing.assert_array_equal(torch.cat(tensors), np.stack([oracle[sample][part] for sample in wanted]))

    @pytest.mark.parametrize(("kind", "context"), [*itertools.product(KINDS, ["fork"]), (KINDS[0], "spawn")])
    def test_workers_fetch_what_is_in_object_storage(self, caches, object_store, tmp_path, monkeypatch, kind, context):
        url, oracle = StorageUrl(object_store.bucket()), as_cv2_reads(caches[kind])
        files.upload(caches[kind], url)
        monkeypatch.setenv("MASKCACHE_CACHE_DIR", str(tmp_path))
        dataset = MaskDataset(url)
        np.testing.assert_array_equal(dataset[2][0], oracle[2][0])  # now this process has opened a shard
        number = 1 if context == "spawn" else 2
        around = DataLoader(dataset, batch_size=4, num_workers=number, multiprocessing_context=context)
        for part, tensors in enumerate(zip(*around, strict=True)):
            np.testing.assert_array_equal(torch.cat(tensors), np.stack([sample[part] for sample in oracle]))

    def test_a_subset_in_batches_of_a_sampler(self, caches):
        dataset, oracle = MaskDataset(caches["lmdb", "raw"]), as_cv2_reads(caches["lmdb", "raw"])
        sampler = SubsetRandomSampler([3, 9, 20], generator=torch.Generator().manual_seed(0))
        loader = DataLoader(dataset, batch_sampler=BatchSampler(sampler, 2, drop_last=False))
        found = torch.cat([person for _, person, _ in loader])
        np.testing.assert_array_equal(
            np.sort(found.sum((1, 2, 3))), np.sort([int(oracle[sample][1].sum()) for sample in (3, 9, 20)])
        )

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))])
    def test_it_may_be_copied_when_it_was_used(self, caches, kind, copy_of):
        dataset = MaskDataset(caches[kind])
        item = dataset[4]
        for tensor, other in zip(copy_of(dataset)[4], item, strict=True):
            assert torch.equal(tensor, other)

    def test_items_are_memory_of_their_own(self, caches):
        dataset = MaskDataset(caches["lmdb", "raw"])
        first, before = dataset[0], [tensor.clone() for tensor in dataset[0]]
        for sample in range(1, SAMPLES):
            dataset[sample][0].zero_()
        for tensor, value in zip(first, before, strict=True):
            assert torch.equal(tensor, value)

    def test_a_bad_record_is_named(self, tmp_path, write_coco):
        coco = write_coco(tmp_path / "coco", counts=(4, 2))
        build_cache(BuildConfig(coco=coco, out=tmp_path / "cache", spec=CacheSpec(side=SIDE, store="zarr")))
        with CacheReader(tmp_path / "cache", "train") as reader:
            row = reader.record(1)[:64].tobytes()
        damaged = 0
        for path in (tmp_path / "cache" / "train").rglob("*"):
            if path.is_file() and row in (data := path.read_bytes()):
                path.write_bytes(data.replace(row, bytes(64), 1))
                damaged += 1
        assert damaged == 1
        dataset = MaskDataset(tmp_path / "cache")
        assert dataset[0][0].any()
        with pytest.raises(CacheCorruptError, match=r"sample 1 .*its checksum differs"):
            dataset[1]


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning", reason="Lightning is not installed")


class StopError(Exception):
    """What ends a training early."""


def fit(lightning, config, folder, *, at=None, fails=None, resume=None, val=None, callbacks=(), **options):
    """Train for three epochs; give the samples of each step, and of each validation step.

    Checkpoint and stop at a moment, the name of a hook and a global step; or fail in a step.
    """
    steps, validated = [], []

    class Network(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, batch_idx):
            assert isinstance(batch, Batch)
            steps.append((batch.epoch, batch.samples.tolist()))
            if fails == len(steps) - 1:
                raise StopError
            loss = (batch.image.float() * self.weight).mean()
            self.log("loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            validated.append(batch.samples.tolist())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Saves(lightning.Callback):
        def hook(self, name, trainer, *_):
            if at == (name, trainer.global_step):
                trainer.save_checkpoint(folder / "stopped.ckpt")
                raise StopError

    for name in ("on_train_start", "on_train_epoch_start", "on_train_batch_end", "on_train_epoch_end"):
        setattr(Saves, name, partial(Saves.hook, None, name))
    settings = {"max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_checkpointing": bool(callbacks)}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        default_root_dir=folder, callbacks=[Saves(), *callbacks], **(settings | quiet | options)
    )
    with open_loader(config) as loader, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trainer.fit(Network(), loader, val and DataLoader(val, batch_size=None), ckpt_path=resume)
        except StopError:
            assert at or fails is not None
        else:
            assert at is None
            assert fails is None
    return steps, validated


def all_steps(expected, steps=STEPS):
    """What a whole training of three epochs sees."""
    return [(number // STEPS, samples) for number, (samples, *_) in enumerate(expected) if number % STEPS < steps]


class TestLightning:
    @pytest.mark.parametrize(
        "at",
        [
            ("on_train_start", 0),
            ("on_train_epoch_start", 0),
            ("on_train_batch_end", 1),
            ("on_train_batch_end", 3),
            ("on_train_batch_end", STEPS),
            ("on_train_epoch_end", STEPS),
            ("on_train_batch_end", STEPS + 2),
            ("on_train_epoch_end", 2 * STEPS),
        ],
        ids=lambda at: f"{at[0]}-{at[1]}",
    )
    def test_a_checkpoint_goes_on_with_the_next_batch(self, lightning, config, expected, tmp_path, at):
        before, _ = fit(lightning, config, tmp_path, at=at)
        assert len(before) == at[1]
        after, _ = fit(lightning, config, tmp_path, resume=tmp_path / "stopped.ckpt")
        assert before + after == all_steps(expected)

    def test_also_with_fewer_batches_than_there_are(self, lightning, config, expected, tmp_path):
        options = {"limit_train_batches": 3}
        whole, _ = fit(lightning, config, tmp_path, **options)
        assert whole == all_steps(expected, 3)
        for at in (("on_train_batch_end", 2), ("on_train_batch_end", 3), ("on_train_epoch_end", 3)):
            before, _ = fit(lightning, config, tmp_path, at=at, **options)
            after, _ = fit(lightning, config, tmp_path, resume=tmp_path / "stopped.ckpt", **options)
            assert before + after == whole, at

    @pytest.mark.parametrize("fails", [0, 3, STEPS - 1, STEPS, STEPS + 3])
    def test_after_an_exception_the_last_checkpoint_goes_on(self, lightning, config, expected, tmp_path, fails):
        from lightning.pytorch.callbacks import ModelCheckpoint

        def keep():
            return ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_last=True)

        before, _ = fit(lightning, config, tmp_path, fails=fails, callbacks=[keep()])
        assert before == all_steps(expected)[: fails + 1]
        assert (tmp_path / "last.ckpt").exists() == (fails > 0)
        after, _ = fit(lightning, config, tmp_path, resume="last", callbacks=[keep()])
        assert after == all_steps(expected)[fails:], "the batch that failed comes once more"

    def test_a_checkpoint_of_the_exception_leaves_out_the_batch_that_failed(
        self, lightning, config, expected, tmp_path
    ):
        from lightning.pytorch.callbacks import OnExceptionCheckpoint

        fit(lightning, config, tmp_path, fails=2, callbacks=[OnExceptionCheckpoint(tmp_path, "failed")])
        after, _ = fit(lightning, config, tmp_path, resume=tmp_path / "failed.ckpt")
        assert after == all_steps(expected)[3:]

    def test_the_sanity_check_takes_nothing_from_the_first_validation(self, lightning, config, caches, tmp_path):
        val = LoaderConfig(cache=caches["lmdb", "raw"], split="val", batch_size=2, shuffle=False, drop_last=False)
        with open_loader(config) as loader, open_loader(val) as val_loader:

            class Network(lightning.LightningModule):
                def training_step(self, batch, batch_idx):
                    return None

                def validation_step(self, batch, batch_idx):
                    self.log("first", float(batch.samples[0]))
                    validated.append(batch.samples.tolist())

                def configure_optimizers(self):
                    return None

            validated = []
            trainer = lightning.Trainer(
                max_epochs=2,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                num_sanity_val_steps=2,
                default_root_dir=tmp_path,
            )
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                trainer.fit(Network(), loader, val_loader)
        assert validated == [[0, 1], [2, 3], *([[0, 1], [2, 3], [4, 5]] * 2)]
        assert not [text for text in map(str, said) if "batch_size` from an ambiguous" in text]


class TestAccelerate:
    @pytest.fixture
    def accelerate(self):
        accelerate = pytest.importorskip("accelerate", reason="Accelerate is not installed")
        yield accelerate
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()

    @pytest.mark.parametrize("taken", [0, 2, STEPS, STEPS + 1])
    def test_a_loader_is_left_as_it_is_and_saved(self, accelerate, config, expected, tmp_path, taken):
        accelerator = accelerate.Accelerator(cpu=True)
        with open_loader(config) as loader:
            assert accelerator.prepare(loader) is loader
            accelerator.register_for_checkpointing(loader)
            left = taken
            while left:
                for _ in zip(range(left), loader, strict=False):
                    left -= 1
            accelerator.save_state(str(tmp_path / "state"))
        accelerator = accelerate.Accelerator(cpu=True)
        with open_loader(config) as loader:
            accelerator.register_for_checkpointing(accelerator.prepare(loader))
            accelerator.load_state(str(tmp_path / "state"))
            assert_same([copied(batch) for batch in loader], expected[taken : STEPS * (1 + taken // STEPS)])

    @pytest.mark.parametrize("backend", ["native", "resident"])
    @pytest.mark.parametrize(
        ("collate", "dispatch"), [(None, False), (tuple, None), (tuple, False), (Batch.dict, None)]
    )
    def test_what_looks_ahead_gets_the_right_batches(self, accelerate, config, expected, backend, collate, dispatch):
        settings = accelerate.DataLoaderConfiguration(dispatch_batches=dispatch)
        accelerator = accelerate.Accelerator(cpu=True, dataloader_config=settings)
        with open_loader(config) as loader:
            around = accelerator.prepare(DataLoader(loader, batch_size=None, collate_fn=collate))
            found = []
            for _ in range(3):
                for batch in around:
                    tensors = batch.values() if isinstance(batch, dict) else batch
                    found.append([tensor.numpy().copy() for tensor in tensors])
        for tensors, (_, *values) in zip(found, expected, strict=True):
            for a, b in zip(tensors, values, strict=True):
                np.testing.assert_array_equal(a, b)


def programs():
    """Those of the page, by their headings."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        for program in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            found[section.partition("\n")[0]] = program
    return found


def test_the_page_has_its_programs():
    assert list(programs()) == [
        "PyTorch",
        "Lightning",
        "Accelerate",
        "Notebook",
        "A DataLoader with workers of its own",
    ]


class TestPrograms:
    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory, write_coco):
        """A cache of three batches."""
        root = tmp_path_factory.mktemp("programs")
        coco = write_coco(root / "coco", counts=(48, 20))
        build_cache(BuildConfig(coco=coco, out=root / "cache", spec=CacheSpec(side=SIDE, images="all")))
        return root / "cache"

    @pytest.fixture
    def run(self, cache, tmp_path, monkeypatch):
        """A function that runs a program of the page beside the cache; gives its names."""
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "cache").symlink_to(cache)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MPLBACKEND", "Agg")

        def run(name, first="", last=""):
            found = {}
            program = programs()[name].replace(*(first, last) if first else ("", ""))
            exec(compile(program, f"{PAGE.name}: {name}", "exec"), found)
            return found

        return run

    @pytest.mark.parametrize("name", ["PyTorch", "Accelerate"])
    def test_a_program_trains_and_goes_on(self, run, capsys, name):
        if name == "Accelerate":
            pytest.importorskip("accelerate", reason="Accelerate is not installed")
        assert run(name)["loss"].isfinite()
        assert re.findall(r"epoch (\d): loss", capsys.readouterr().out) == ["0", "1"]
        run(name)
        assert capsys.readouterr().out == "", "all is done"
        found = run(name, "EPOCHS, SAVED = 2", "EPOCHS, SAVED = 3")
        assert re.findall(r"epoch (\d): loss", capsys.readouterr().out) == ["2"]
        parameters = found["network"].parameters()
        assert all(parameter.grad is not None for parameter in parameters)

    def test_lightning_trains_and_goes_on(self, run, tmp_path):
        pytest.importorskip("lightning", reason="Lightning is not installed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run("Lightning")
            assert found["trainer"].global_step == 6
            assert torch.isfinite(found["trainer"].callback_metrics["val_loss"])
            assert (tmp_path / "checkpoints" / "last.ckpt").exists()
            found = run("Lightning", "max_epochs=2", "max_epochs=3")
            assert found["trainer"].global_step == 9
            assert found["loader"].state_dict() == {"epoch": 3, "consumed": 0}

    def test_the_cells_of_the_notebook_run_in_turn(self, run):
        import matplotlib.pyplot as plt

        cells = programs()["Notebook"].split("# %%")[1:]
        assert len(cells) == 4
        names = {}
        for cell in (cells[0], cells[1], cells[2], cells[2], cells[3]):
            exec(compile(cell.partition("\n")[2], "cell", "exec"), names)
        plt.close("all")
        assert len(names["losses"]) == 6
        assert names["loader"].unusable

    def test_the_data_loader_with_workers(self, run, capsys):
        run("A DataLoader with workers of its own")
        assert len(capsys.readouterr().out.splitlines()) == 3
