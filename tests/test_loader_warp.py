"""The augmenting kernel against its contract in plain NumPy: bilinear in double precision, nearest by floor."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import math
import mmap
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.augment import LEVELS, draw_parameters
from loader.warp import new_canvas, warp_sample

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

PLAIN = np.eye(3, 4, dtype=np.float32)
STILL = np.eye(2, 3, dtype=np.float32)

SLACK = 0.04
"""Grey levels that positions and shares of 15 bits may cost, before the colours."""

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=300)


class Sample(NamedTuple):
    """Image (S, S, 3), person (S, S) and ignore (S, S)."""

    image: U8
    person: U8
    ignore: U8


def noise(side: int, seed: int = 0) -> Sample:
    """Pixels without any likeness to their neighbours: what shows a mistake of one pixel best."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (side, side, 3), np.uint8)
    person, ignore = rng.integers(0, 2, (2, side, side), np.uint8)
    return Sample(image, person, ignore)


def warp(sample: Sample, matrix: F32, colour: F32 = PLAIN) -> Sample:
    """The kernel's output, in buffers with guards, each byte of which must be written."""
    side = len(sample.image)
    image = np.ascontiguousarray(sample.image)
    person, ignore = (np.packbits(plane, bitorder="little") for plane in sample[1:])
    source = image.ctypes.data, person.ctypes.data, ignore.ctypes.data
    made = []
    canvas = new_canvas(side)
    for filler in (0x55, 0xAA):
        canvas[8:].reshape(side + 4, side + 8)[2 : side + 2, :side] = filler  # what is left of another sample
        buffers = [np.full(size + 128, filler, np.uint8) for size in (3 * side**2, side**2, side**2)]
        inner = [buffer[64:-64] for buffer in buffers]
        warp_sample(*source, side, matrix, colour, *inner, canvas)
        for buffer in buffers:
            assert (buffer[[*range(64), *range(-64, 0)]] == filler).all(), "nothing around is written"
        made.append(inner)
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other, "what is not written keeps its filler")
    return Sample(made[0][0].reshape(side, side, 3), *(plane.reshape(side, side) for plane in made[0][1:]))


def positions(side: int, matrix: F32) -> F64:
    """Source x and y of each output pixel, (2, S, S)."""
    y, x = np.mgrid[:side, :side] + 0.5
    return np.stack([row[0] * x + row[1] * y + row[2] for row in matrix.astype(np.float64)])


def pixels_at(source: npt.NDArray[np.generic], x: F64, y: F64, outside: int) -> F64:
    side = len(source)
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    found = np.full((*x.shape, *source.shape[2:]), float(outside))
    found[inside] = source[y[inside].astype(int), x[inside].astype(int)]
    return found


def expected(sample: Sample, matrix: F32, colour: F32) -> F64:
    """The image before rounding and clipping."""
    u, v = positions(len(sample.image), matrix)
    left, top = np.floor(u - 0.5), np.floor(v - 0.5)
    total = np.zeros(sample.image.shape)
    for x, along in ((left, left + 1.5 - u), (left + 1, u - 0.5 - left)):
        for y, down in ((top, top + 1.5 - v), (top + 1, v - 0.5 - top)):
            total += (along * down)[..., None] * pixels_at(sample.image, x, y, 0)
    return total @ colour[:, :3].T.astype(np.float64) + colour[:, 3]


def assert_planes(sample: Sample, matrix: F32, made: Sample) -> None:
    """Both planes are of the pixel that the position falls into; of either where it falls onto an edge."""
    side = len(sample.image)
    u, v = positions(side, matrix)
    slack = 2.0**-14  # positions are sums of two numbers that are rounded to 15 bits behind the point
    right = np.zeros((side, side), bool)
    for x, y in itertools.product((u - slack, u, u + slack), (v - slack, v, v + slack)):
        planes = [pixels_at(sample[k], np.floor(x), np.floor(y), k - 1) for k in (1, 2)]
        right |= (made.person == planes[0]) & (made.ignore == planes[1])
    assert right.all()


def assert_warp(sample: Sample, matrix: F32, colour: F32 = PLAIN) -> None:
    made = warp(sample, matrix, colour)
    assert_planes(sample, matrix, made)
    image = expected(sample, matrix, colour)
    slack = SLACK * np.abs(colour[:, :3]).sum(1)
    off = np.abs(made.image - np.clip(image, 0, 255)) - slack
    assert off.max() <= 0.5, np.unravel_index(off.argmax(), off.shape)


def about_centre(side: int, linear: list[list[float]], shift: tuple[float, float] = (0.0, 0.0)) -> F32:
    """The matrix that maps the centre to the centre, moved by `shift` pixels."""
    whole = np.array(linear, np.float64)
    offset = side / 2 - whole @ [side / 2, side / 2] + shift
    return np.concatenate([whole, offset[:, None]], axis=1).astype(np.float32)


# By hand


@pytest.mark.parametrize("side", [8, 32, 96])
def test_the_identity_flips_and_quarter_turns_move_whole_pixels(side: int) -> None:
    sample = noise(side)
    moves: list[tuple[list[list[float]], Callable[[U8], U8]]] = [
        ([[1, 0], [0, 1]], lambda array: array),
        ([[-1, 0], [0, 1]], lambda array: array[:, ::-1]),
        ([[1, 0], [0, -1]], lambda array: array[::-1]),
        ([[0, 1], [1, 0]], lambda array: array.swapaxes(0, 1)),
        ([[0, -1], [1, 0]], np.rot90),
    ]
    for linear, move in moves:
        made = warp(sample, about_centre(side, linear))
        for ours, source in zip(made, sample, strict=True):
            np.testing.assert_array_equal(ours, move(source))


@pytest.mark.parametrize("shift", [(3, 0), (0, -5), (-31, 31), (32, 0), (0, -32), (7, 40)])
def test_what_a_shift_leaves_free_is_black_and_ignored(shift: tuple[int, int]) -> None:
    sample, side = noise(32), 32
    made = warp(sample, STILL + np.array([[0, 0, shift[0]], [0, 0, shift[1]]], np.float32))
    padded = [np.pad(array, [(64, 64), (64, 64), (0, 0)][: array.ndim], constant_values=k == 2)
              for k, array in enumerate(sample)]  # fmt: skip
    top, left = 64 + shift[1], 64 + shift[0]
    for ours, source in zip(made, padded, strict=True):
        np.testing.assert_array_equal(ours, source[top : top + side, left : left + side])


def test_half_a_pixel_is_the_mean_of_two_and_half_of_the_last_one() -> None:
    sample = noise(32)
    made = warp(sample, STILL + np.array([[0, 0, 0.5], [0, 0, 0]], np.float32)).image.astype(float)
    source = sample.image.astype(float)
    assert np.abs(made[:, :-1] - (source[:, :-1] + source[:, 1:]) / 2).max() <= 0.5
    assert np.abs(made[:, -1] - source[:, -1] / 2).max() <= 0.5


@pytest.mark.parametrize("far", [1e4, -1e7, 3e9, -1e30, math.inf, math.nan])
@pytest.mark.parametrize("place", [(0, 2), (1, 2), (0, 0), (1, 1), (1, 0)])
def test_wild_matrices_are_safe_and_outside(far: float, place: tuple[int, int]) -> None:
    matrix = STILL.copy()
    matrix[place] = far
    colour = PLAIN + np.array([0, 0, 0, 9], np.float32)
    made = warp(noise(32), matrix, colour)
    assert (made.image == 9).all()
    assert not made.person.any()
    assert made.ignore.all()


def test_colours_are_clipped_at_both_ends() -> None:
    sample = noise(32)
    for gain, shift in ((3.0, -200.0), (-2.0, 300.0), (7.9, 0.0)):
        colour = gain * PLAIN
        colour[:, 3] = shift
        image = warp(sample, STILL, colour).image
        assert {0, 255} <= set(image.ravel().tolist()) or shift == 0.0
        assert_warp(sample, STILL, colour)


def test_one_colour_stays_that_colour() -> None:
    matrix = about_centre(64, [[0.61, 0.17], [-0.13, 0.59]])
    for value in (0, 1, 127, 254, 255):
        sample = Sample(np.full((64, 64, 3), value, np.uint8), *noise(64)[1:])
        assert (warp(sample, matrix).image == value).all()


def _warp_at_the_edge_of_memory() -> None:
    """Warp a sample that has pages before and behind it that cannot be read."""
    side = 64  # its image is three pages of 4096 bytes
    pages = mmap.mmap(-1, 7 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    address = start + mmap.PAGESIZE
    end = address + 3 * side * side
    libc = ctypes.CDLL(None)
    for page in (start, end):
        assert libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    planes = np.zeros(side * side // 8, np.uint8).ctypes.data
    out = [np.empty(size * side * side, np.uint8) for size in (3, 1, 1)]
    for scale in (1.0, -1.0, 0.5, 2.0):
        matrix = about_centre(side, [[scale, 0.1], [0.1, scale]])
        warp_sample(address, planes, planes, side, matrix, PLAIN, *out, new_canvas(side))


@pytest.mark.skipif(mmap.PAGESIZE != 4096 or not hasattr(mmap, "MAP_PRIVATE"), reason="needs mprotect and 4 KiB pages")
def test_nothing_is_read_around_the_image(start_child: Any) -> None:
    code = f"from {__name__} import _warp_at_the_edge_of_memory as warp; warp()"
    child = start_child([sys.executable, "-c", code])
    _, errors = child.communicate()
    assert child.returncode == 0, f"-11: read beyond the first or the last pixel; {errors}"


@pytest.mark.parametrize("side", [32, 64, 160, 384])
@pytest.mark.parametrize("level", ["light", "heavy"])
def test_drawn_parameters(level: str, side: int) -> None:
    config = LEVELS["light" if level == "light" else "heavy"]
    sample = noise(side, seed=side)
    for matrix, colour in zip(*draw_parameters(config, side, 1, 0, np.arange(6)), strict=True):
        assert_warp(sample, matrix, colour)


def test_threads_do_not_disturb_each_other() -> None:
    samples = [noise(96, seed) for seed in range(24)]
    parameters = draw_parameters(LEVELS["heavy"], 96, 3, 0, np.arange(24))

    def make(number: int) -> Sample:
        return warp(samples[number], parameters.matrix[number], parameters.colour[number])

    alone = [make(number) for number in range(24)]
    with ThreadPoolExecutor(4) as pool:
        for number, made in enumerate(pool.map(make, list(range(24)) * 4)):
            for ours, theirs in zip(made, alone[number % 24], strict=True):
                np.testing.assert_array_equal(ours, theirs)


def _digest() -> str:
    """Of what the kernel makes of some samples."""
    made = hashlib.sha256()
    for level in ("light", "heavy"):
        for matrix, colour in zip(*draw_parameters(LEVELS[level], 64, 5, 0, np.arange(8)), strict=True):
            for array in warp(noise(64), matrix, colour):
                made.update(array.tobytes())
    return made.hexdigest()


def test_processors_without_avx2_make_the_same(start_child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the instructions are those of x86")
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "")
    child = start_child([sys.executable, "-c", f"from {__name__} import _digest; print(_digest())"])
    output, errors = child.communicate()
    assert output.strip() == _digest(), errors


# Fuzz


@st.composite
def matrices(draw: st.DrawFn, side: int) -> F32:
    """Rotation, flip and scales 0.2 to 5, with the centre anywhere up to well outside; often of round numbers."""
    if draw(st.booleans()):
        turn = draw(st.sampled_from([0.0, 0.5, 1.0])) * math.pi
        scales = [draw(st.sampled_from([-2.0, -1.0, -0.5, 0.2, 0.5, 1.0, 2.0, 5.0])) for _ in range(2)]
        shift = [draw(st.integers(-4 * side, 4 * side)) / 2 for _ in range(2)]
    else:
        turn = draw(st.floats(-math.pi, math.pi))
        scales = [draw(st.floats(0.2, 5.0)) * draw(st.sampled_from([-1, 1])) for _ in range(2)]
        shift = [draw(st.floats(-1.5 * side, 1.5 * side)) for _ in range(2)]
    cosine, sine = math.cos(turn), math.sin(turn)
    linear = [[cosine * scales[0], -sine * scales[1]], [sine * scales[0], cosine * scales[1]]]
    return about_centre(side, linear, (shift[0], shift[1]))


@fuzz
@given(st.data(), st.sampled_from([8, 32, 40, 64]), st.integers(0, 2**32 - 1))
def test_fuzzed_maps(data: st.DataObject, side: int, seed: int) -> None:
    matrix = data.draw(matrices(side), "matrix")
    rng = np.random.default_rng(seed)
    colour = np.concatenate([rng.uniform(-1, 2, (3, 3)), rng.uniform(-100, 100, (3, 1))], axis=1).astype(np.float32)
    assert_warp(noise(side, seed), matrix, data.draw(st.sampled_from([PLAIN, colour]), "colour"))


@fuzz
@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=6, max_size=6))
def test_fuzzed_matrices_of_any_size(entries: list[float]) -> None:
    """Planes are right for whatever matrix; so the image reads where it should."""
    matrix = np.array(entries, np.float32).reshape(2, 3)
    sample = noise(8)
    assert_planes(sample, matrix, warp(sample, matrix))
