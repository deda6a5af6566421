"""What every backend promises: the same batches in the same order, from any position, and nothing left behind."""

import itertools
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cache.spec import CacheSpec
from loader import LEVELS, LoaderConfig, open_loader
from preprocess.build.build import BuildConfig, build_cache

SIDE, SAMPLES, GLOBAL_BATCH = 64, 22, 4
BACKENDS = ["native", "dali", "resident"]
CODECS = ["raw", "jpeg"]


@pytest.fixture(scope="module")
def caches(tmp_path_factory, write_coco):
    """22 training samples in both codecs."""
    root = tmp_path_factory.mktemp("contract")
    coco = write_coco(root / "coco", counts=(SAMPLES, 5))
    for codec in CODECS:
        spec = CacheSpec(side=SIDE, codec=codec, images="all", shard_samples=8)
        build_cache(BuildConfig(coco=coco, out=root / codec, spec=spec))
    return {codec: root / codec for codec in CODECS}


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "dali":
        pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed")
    return request.param


def config(cache, backend, **options):
    return LoaderConfig(**{"cache": cache, "backend": backend, "batch_size": GLOBAL_BATCH, "seed": 3, **options})


def copies(loader, stop=None):
    """The batches of the current epoch, or the first ones of it, as arrays of their own."""
    found = []
    for batch in loader:
        tensors = (t.cpu().numpy().copy() for t in (batch.image, batch.person, batch.ignore))
        found.append((batch.samples.copy(), *tensors))
        if len(found) == stop:
            break
    return found


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("codec", CODECS)
def test_without_augmentation_every_backend_gives_the_same(caches, backend, codec):
    with open_loader(config(caches[codec], "native")) as loader:
        expected = copies(loader)
    with open_loader(config(caches[codec], backend)) as loader:
        found = copies(loader)
    assert len(found) == SAMPLES // GLOBAL_BATCH
    if (backend, codec) == ("dali", "jpeg"):  # its decoder rounds otherwise
        for mine, other in zip(found, expected, strict=True):
            assert np.abs(mine[1].astype(int) - other[1]).max() <= 4
            assert_equal([(mine[0], *mine[2:])], [(other[0], *other[2:])])
    else:
        assert_equal(found, expected)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("level", ["none", "heavy"])
def test_after_any_batch_the_next_is_the_one_that_would_have_come(caches, backend, codec, level):
    same = config(caches[codec], backend, augment=LEVELS[level])
    with open_loader(same) as loader:
        whole = copies(loader) + copies(loader)
    for taken in (1, 4, 5, 7):  # of five in an epoch
        with open_loader(same) as loader:
            for passed in (min(taken, 5), taken - 5):
                if passed > 0:
                    copies(loader, passed)
            state = loader.state_dict()
        assert state == {"epoch": taken // 5, "consumed": taken % 5 * GLOBAL_BATCH}
        with open_loader(same) as loader:
            loader.load_state_dict(state)
            assert_equal(copies(loader), whole[taken : 5 * (taken // 5 + 1)])


def by_zip(loader):
    return [batch.samples.tolist() for _, batch in zip(range(len(loader)), loader, strict=False)]


def by_islice(loader):
    return [batch.samples.tolist() for batch in itertools.islice(loader, len(loader))]


def by_next(loader):
    iterator = iter(loader)
    return [next(iterator).samples.tolist() for _ in range(len(loader))]


def by_enumerate(loader):
    """As Lightning's loop: it leaves with the number of the last batch."""
    found = []
    for number, batch in enumerate(loader):
        found.append(batch.samples.tolist())
        if number + 1 == len(loader):
            break
    return found


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("take", [by_zip, by_islice, by_next, by_enumerate])
def test_the_last_batch_of_an_epoch_ends_it_whoever_counts(caches, backend, take, drop_last):
    """22 samples in batches of 4: five, or six of which the last is filled up."""
    same = config(caches["raw"], backend, drop_last=drop_last)
    with open_loader(same) as loader:
        expected = [[batch.samples.tolist() for batch in loader] for _ in range(3)]
        assert loader.state_dict() == {"epoch": 3, "consumed": 0}
    with open_loader(same) as loader:
        for epoch in range(3):
            assert take(loader) == expected[epoch]
            assert loader.state_dict() == {"epoch": epoch + 1, "consumed": 0}


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_state_of_any_batch_goes_on_with_the_next_one(caches, backend, drop_last):
    same = config(caches["raw"], backend, drop_last=drop_last)
    with open_loader(same) as loader, open_loader(same) as other:
        states, seen = [], []
        for _ in range(2):
            for batch in loader:
                seen.append(batch.samples.tolist())
                states.append(loader.state_dict())
        for taken, state in enumerate(states[: len(loader)], 1):
            other.load_state_dict(state)
            following = [batch.samples.tolist() for batch in other]
            assert following == seen[taken : len(loader) * (1 + taken // len(loader))]
        loader.load_state_dict({"epoch": 0, "consumed": len(loader) * GLOBAL_BATCH})
        assert loader.state_dict() == {"epoch": 1, "consumed": 0}, "as earlier releases saved the end of an epoch"
        assert next(iter(loader)).samples.tolist() == seen[len(loader)]


def test_the_end_of_a_longer_epoch_is_the_end(caches, backend):
    """A state of a loader that keeps the ragged last batch, given to one that drops it."""
    with open_loader(config(caches["raw"], backend)) as loader:
        for consumed in (20, 24):
            loader.load_state_dict({"epoch": 6, "consumed": consumed})
            assert loader.state_dict() == {"epoch": 7, "consumed": 0}
        for state in ({"epoch": 6, "consumed": -4}, {"epoch": -1, "consumed": 0}):
            with pytest.raises(ValueError, match="is beyond the 22 samples of 'train'"):
                loader.load_state_dict(state)
        with pytest.raises(ValueError, match="28 samples into epoch 6, is beyond the 22 samples of 'train'"):
            loader.load_state_dict({"epoch": 6, "consumed": 28})


def test_a_newer_iterator_ends_an_older_one_that_has_batches_to_come(caches, backend):
    same = config(caches["jpeg"], backend, augment=LEVELS["light"])
    with open_loader(same) as loader:
        whole = copies(loader) + copies(loader)
    with open_loader(same) as loader:
        older = iter(loader)
        found = copies(older, 2)
        newer = iter(loader)
        found += copies(newer, 2)
        with pytest.raises(RuntimeError, match=r"ended by a newer one .* open a second loader with open_loader"):
            next(older)
        found += copies(newer)
        found += copies(loader, 1)
        assert list(newer) == [], "one that has handed out its last batch is just at its end"
        with pytest.raises(RuntimeError, match="ended by a newer one"):
            next(older)
        found += copies(loader)
        assert_equal(found, whole)
        with pytest.raises(RuntimeError, match="ended by a newer one"):
            list(zip(loader, loader, strict=True))
        standing = iter(loader)
        next(standing)
        loader.load_state_dict({"epoch": 1, "consumed": 0})
        with pytest.raises(RuntimeError, match="ended by load_state_dict"):
            next(standing)
        assert_equal(copies(loader), whole[5:])


def test_a_closed_loader_says_so(caches, backend):
    with open_loader(config(caches["raw"], backend)) as loader:
        done = iter(loader)
        for _ in range(len(loader)):
            next(done)
        standing = iter(loader)
        next(standing)
    loader.close()
    assert list(done) == []
    for use in (iter, lambda _: next(standing)):
        with pytest.raises(RuntimeError, match="this loader is closed; open another one with open_loader"):
            use(loader)


@pytest.mark.parametrize("codec", CODECS)
def test_ranks_see_disjoint_slices_that_together_are_the_epoch_also_after_a_change_of_their_number(
    caches, backend, codec
):
    with open_loader(config(caches[codec], backend)) as loader:
        whole = copies(loader)
    for world in (2, 4):
        slices = []
        for rank in range(world):
            mine = config(caches[codec], backend, batch_size=GLOBAL_BATCH // world, rank=rank, world=world)
            with open_loader(mine) as loader:
                assert len(loader) == len(whole)
                loader.load_state_dict({"epoch": 0, "consumed": 2 * GLOBAL_BATCH})  # saved by one rank
                slices.append(copies(loader))
        joined = [
            tuple(np.concatenate(parts) for parts in zip(*step, strict=True)) for step in zip(*slices, strict=True)
        ]
        assert_equal(joined, whole[2:])


def test_a_ragged_last_batch_is_dropped_in_training_and_filled_up_in_validation(caches, backend):
    with open_loader(config(caches["raw"], backend)) as loader:
        assert [len(samples) for samples, *_ in copies(loader)] == [4] * 5
    with open_loader(config(caches["raw"], backend, shuffle=False, drop_last=False)) as loader:
        assert len(loader) == 6
        *_, last = loader
        assert last.valid == 2
        assert last.image.shape[0] == 4
        assert last.ignore[2:].all()
        assert not last.person[2:].any()
        assert not last.image[2:].any()


def test_a_config_can_be_sent_to_another_process(caches, backend):
    original = config(caches["raw"], backend, augment=LEVELS["light"])
    assert pickle.loads(pickle.dumps(original)) == original


def held(cache):
    """What this process holds of a cache: threads of its own, mapped files of the cache, open files, shared memory."""
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    maps = {path for path in mapped if str(cache) in path}
    # Torch's names have the process in them.
    shared = {str(path) for path in Path("/dev/shm").iterdir() if f"_{os.getpid()}_" in path.name}
    shared |= {path for path in mapped if path.startswith("/dev/shm/")}
    files = set()
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = str(handle.readlink())
        except OSError:  # the one that lists them
            continue
        if str(cache) in target:
            files.add(target)
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith(("loader", "resident"))}
    return threads, maps, files, shared


def use_up(loader):
    for _ in loader:
        pass


def break_off(loader):
    next(iter(loader))


def fail(loader):
    for batch in loader:
        raise ArithmeticError(batch.epoch)


def press_ctrl_c(loader):
    for _ in loader:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("end", [use_up, break_off, fail, press_ctrl_c])
def test_nothing_is_left_behind(caches, backend, codec, end):
    before = held(caches[codec])
    assert not any(before[:3])
    try:
        with open_loader(config(caches[codec], backend, augment=LEVELS["light"], threads=3)) as loader:
            end(loader)
    except (ArithmeticError, KeyboardInterrupt):
        assert end in (fail, press_ctrl_c)
    else:
        assert end in (use_up, break_off)
    assert held(caches[codec]) == before


def test_ctrl_c_in_the_middle_of_a_wait_ends_the_process_at_once(caches, backend, start_child):
    program = f"""
import sys
from pathlib import Path
from loader import LEVELS, LoaderConfig, open_loader
with open_loader(LoaderConfig(cache=Path({str(caches["raw"])!r}), backend={backend!r}, batch_size=4)) as loader:
    print("ready", flush=True)
    while True:
        for _ in loader:
            pass
"""
    process = start_child([sys.executable, "-c", program])
    assert process.stdout.readline() == "ready\n", process.communicate()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert errors.strip().endswith("KeyboardInterrupt")
    assert process.returncode != 0
