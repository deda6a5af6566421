"""The kernels that move records, against NumPy; and the threads that call them."""

import threading
import time
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.kernels import BLANK, copy_images, copy_packed_planes, copy_records, unpack_planes
from loader.prefetch import ThreadPool


def aligned(*shape):
    """Bytes that begin with a cache line, all 7."""
    size = int(np.prod(shape))
    room = np.full(size + 64, 7, np.uint8)
    begin = -room.ctypes.data % 64
    return room[begin : begin + size].reshape(shape)


def make_records(rng, rows, side):
    """Random records wherever memory has them, unaligned, and their addresses."""
    sizes = 3 * side * side, side * side // 8, side * side // 8
    records, places = [], np.empty((rows, 3), np.int64)
    for row in range(rows):
        shift = int(rng.integers(0, 64))
        room = rng.integers(0, 256, sum(sizes) + shift, np.uint8)[shift:]
        fields = np.split(room, np.cumsum(sizes)[:-1])
        records.append(fields)
        places[row] = [field.ctypes.data for field in fields]
    return records, places


@settings(derandomize=True, database=None, deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 5), side=st.sampled_from([32, 64, 96]), blank=st.booleans())
def test_records_are_copied_and_planes_unpacked_as_numpy_does(seed, rows, side, blank):
    rng = np.random.default_rng(seed)
    records, places = make_records(rng, rows, side)
    image, person, ignore = aligned(rows, 3 * side * side), aligned(rows, side * side), aligned(rows, side * side)
    packed = aligned(rows, side * side // 8), aligned(rows, side * side // 8)
    if blank:
        places[rows // 2, 0] = BLANK
    copy_records(places, image, person, ignore)
    copy_packed_planes(places, *packed)
    for row, fields in enumerate(records):
        if blank and row == rows // 2:
            assert not image[row].any()
            assert not person[row].any()
            assert not packed[0][row].any()
            assert (ignore[row] == 1).all()
            assert (packed[1][row] == 255).all()
            continue
        np.testing.assert_array_equal(image[row], fields[0])
        np.testing.assert_array_equal(person[row], np.unpackbits(fields[1], bitorder="little"))
        np.testing.assert_array_equal(ignore[row], np.unpackbits(fields[2], bitorder="little"))
        np.testing.assert_array_equal(packed[0][row], fields[1])
        np.testing.assert_array_equal(packed[1][row], fields[2])


@pytest.mark.parametrize("broken", [lambda a: a[:, 1:-63], lambda a: a[:, :-1]])
def test_buffers_that_are_no_whole_cache_lines_are_refused(broken):
    _, places = make_records(np.random.default_rng(0), 2, 32)
    image, plane = aligned(2, 3 * 32 * 32), aligned(2, 32 * 32)
    with pytest.raises(ValueError, match="whole cache lines"):
        copy_images(places, np.ascontiguousarray(broken(image))[:, 1:])
    with pytest.raises(ValueError, match="whole cache lines"):
        unpack_planes(places, plane, np.ascontiguousarray(broken(plane))[:, 1:])


def test_a_thread_pool_does_its_jobs_in_order_and_hands_on_what_they_raise():
    pool, done, order = ThreadPool(1, "test-pool"), SimpleQueue(), []

    def fail():
        raise ArithmeticError("no")

    for job in (lambda: order.append(1), fail, lambda: order.append(2)):
        pool.submit(job, done)
    assert done.get(timeout=5) is None
    assert isinstance(done.get(timeout=5), ArithmeticError)
    assert done.get(timeout=5) is None
    assert order == [1, 2]
    pool.close()
    pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-pool")]


def test_a_thread_pool_works_at_once_and_ends_after_what_it_was_given():
    pool, done, met = ThreadPool(2, "test-pool"), SimpleQueue(), threading.Barrier(2, timeout=5)
    pool.submit(met.wait, done)
    pool.submit(met.wait, done)  # each waits for the other
    pool.submit(lambda: time.sleep(0.01), done)
    pool.close()
    assert [done.get_nowait() for _ in range(3)] == [None] * 3
