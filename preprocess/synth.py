"""A procedural people dataset in the COCO layout: posed figures in scenes, with masks that match the pixels."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.figure import (
    KEYPOINTS,
    PATTERNS,
    SKIN,
    Bytes,
    Colour,
    Layer,
    Sprite,
    cloth_colour,
    cloud,
    dim,
    jitter,
    paint_figure,
    pattern,
    pose_figure,
    ramp,
    to_bytes,
)

MARKER = "synth.json"
_FORMAT = "maskcache-synth-1"
_SKELETON = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10],
             [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]]  # fmt: skip
_LEAST_PIXELS = 30  # a person of whom less is seen gets no annotation
_LEAST_STATURE = 40.0  # pixels; a smaller person has no labelled keypoints, as in COCO
_CROWD = -1  # in the map of owners: 0 is scenery, k the k-th person
_GROUND: tuple[Colour, ...] = ((92, 128, 62), (134, 152, 84), (150, 122, 88), (194, 172, 130), (120, 118, 114),
                               (84, 82, 84), (186, 182, 176), (112, 84, 62))  # fmt: skip
_THINGS = ("box", "ball", "pole", "trunk", "bush", "table", "chair", "barrel", "coat", "log", "panel")
_OCCLUDERS = ("box", "bush", "table", "pole", "barrel", "panel", "chair", "trunk")


class SynthError(ValueError):
    """A synthetic dataset can't be made as asked."""


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What to draw. Image k is a pure function of (seed, k) and the sizes and shares below, whatever `images` is."""

    images: int = 400  # train and val together
    val_fraction: float = 0.15  # the last images, at least one when there are two
    seed: int = 0
    long_side: tuple[int, int] = (320, 480)  # pixels, drawn uniformly, both ends included
    aspect: tuple[float, float] = (0.62, 1.0)  # short side over long side
    empty_share: float = 0.12  # of the images, without a person
    crowd_share: float = 0.07  # of the images, with a crowd region
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        """Check each field against its limits."""
        if self.images < 1:
            raise SynthError(f"images={self.images} is below 1; ask for at least one image")
        if self.seed < 0:
            raise SynthError(f"seed={self.seed} is negative; use 0 or more")
        if not 0 <= self.val_fraction < 1:
            raise SynthError(f"val_fraction={self.val_fraction} is not in [0, 1); 0.15 keeps a seventh for validation")
        low, high = self.long_side
        if not 64 <= low <= high <= 4096:
            raise SynthError(
                f"long_side={self.long_side} is not an ordered pair within 64 to 4096 pixels; try (320, 480)"
            )
        if not 0.25 <= self.aspect[0] <= self.aspect[1] <= 1:
            raise SynthError(f"aspect={self.aspect} is not an ordered pair within 0.25 to 1; try (0.62, 1.0)")
        if min(self.empty_share, self.crowd_share) < 0 or self.empty_share + self.crowd_share > 1:
            raise SynthError(
                f"empty_share={self.empty_share} and crowd_share={self.crowd_share}: each must be at least 0 "
                "and their sum at most 1; try 0.12 and 0.07"
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise SynthError(f"jpeg_quality={self.jpeg_quality} is not in 1 to 100; 92 looks like a photo's")

    @property
    def val_images(self) -> int:
        """How many of the images, the last ones, are for validation."""
        wanted = round(self.images * self.val_fraction)
        return min(max(wanted, 1), self.images - 1) if self.val_fraction > 0 else 0


@dataclass(frozen=True, kw_only=True)
class Person:
    """One visible person: `mask` (H, W) bool, its visible pixels; `keypoints` (17, 3) int64 of x, y, v as in COCO."""

    mask: NDArray[np.bool_]
    keypoints: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image (H, W, 3) uint8 RGB, its persons from the farthest to the nearest, and its crowd region, if any."""

    image: Bytes
    persons: tuple[Person, ...]
    crowd: NDArray[np.bool_] | None


@dataclass(frozen=True, kw_only=True)
class SynthReport:
    """What `make_dataset` wrote. `person_fraction` is the mean share of person pixels, crowds left out."""

    root: Path
    train_images: int
    val_images: int
    persons: int
    crowds: int
    empty_images: int
    person_fraction: float
    bytes_written: int
    seconds: float


def make_dataset(
    root: Path, config: SynthConfig, progress: Callable[[int], None] | None = None, *, workers: int | None = None
) -> SynthReport:
    """Write a dataset in the COCO layout under `root`, and replace an earlier one that this function made there.

    The two annotation files come last, under temporary names that are then renamed: a folder without them is not whole.
    `progress(1)` is called after each image, from the calling thread. `workers` threads draw, by default one a core
    up to four; the bytes don't depend on it. Raises SynthError if `root` holds something else.
    """
    started = time.perf_counter()
    _claim(root, config)
    train_images = config.images - config.val_images
    names = ["train2017"] * train_images + ["val2017"] * config.val_images
    content = {split: _frame_of_json(config) for split in ("train2017", "val2017")}
    fractions, empty, size = 0.0, 0, 0
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are the unit of parallel work
    pool = ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1))
    try:
        jobs = [pool.submit(_write_image, root / split, index, config) for index, split in enumerate(names)]
        for split, job in zip(names, jobs, strict=True):
            record, annotations, fraction, file_size = job.result()
            content[split]["images"].append(record)
            content[split]["annotations"] += annotations
            fractions, size = fractions + fraction, size + file_size
            empty += not annotations
            if progress is not None:
                progress(1)
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads_before)
    files = {root / "annotations" / f"person_keypoints_{split}.json": data for split, data in content.items()}
    for path, data in files.items():
        with path.with_suffix(".tmp").open("w", encoding="utf-8") as stream:
            json.dump(data, stream, separators=(",", ":"))
            stream.flush()
            os.fsync(stream.fileno())
    for path in files:
        size += path.with_suffix(".tmp").stat().st_size
        path.with_suffix(".tmp").replace(path)
    everyone = [annotation["iscrowd"] for data in content.values() for annotation in data["annotations"]]
    return SynthReport(
        root=root,
        train_images=train_images,
        val_images=config.val_images,
        persons=everyone.count(0),
        crowds=everyone.count(1),
        empty_images=empty,
        person_fraction=fractions / config.images,
        bytes_written=size,
        seconds=time.perf_counter() - started,
    )


def render(index: int, config: SynthConfig) -> Scene:
    """Draw image `index` (from 0). A pure function: the same arguments give the same bytes on the same OpenCV."""
    rng = np.random.default_rng([config.seed, index])
    long_side = int(rng.integers(config.long_side[0], config.long_side[1] + 1))
    short_side = round(long_side * rng.uniform(*config.aspect))
    height, width = (short_side, long_side) if rng.random() < 0.62 else (long_side, short_side)
    stage = _Stage(rng, height, width)
    kinds = ("empty", "crowd", "close", "group", "few")
    rest = 1 - config.empty_share - config.crowd_share
    kind = rng.choice(kinds, p=[config.empty_share, config.crowd_share, 0.48 * rest, 0.43 * rest, 0.09 * rest])
    stage.populate(str(kind))
    return stage.photograph()


def trace(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] around a mask (H, W), along the edges of its pixels; pixel i spans [i, i + 1).

    A hole is joined to its outline by a slit of no width, which COCO's even-odd filling cancels. Specks of fewer than
    three pixels are left out.
    """
    # Contours run through pixel centres. Doubling the mask and rounding odd coordinates up puts them on pixel edges.
    double = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons: list[list[float]] = []
    for number, contour in enumerate(contours):
        if hierarchy[0][number][3] >= 0:
            continue
        outline = _simplify(contour)
        if outline is None:
            continue
        hole = hierarchy[0][number][2]
        while hole >= 0:
            inner = _simplify(contours[hole], hole=True)
            if inner is not None:
                outline = _join(outline, inner)
            hole = hierarchy[0][hole][0]
        polygons.append([float(value) for value in outline.ravel()])
    return polygons


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed RLE of a mask (H, W): run lengths in column order, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    if edges.size and edges[-1] == mask.size:
        edges = edges[:-1]
    return [int(run) for run in np.diff(np.concatenate([[0], edges, [mask.size]]))]


def _simplify(contour: NDArray[Any], *, hole: bool = False) -> NDArray[np.float64] | None:
    # A hole's contour runs through the pixels around it, which are the mask's own: its edge is half a pixel inwards.
    points = contour[:, 0, :]
    if hole:
        x0, y0, w, h = cv2.boundingRect(contour)
        canvas = np.zeros((h, w), np.uint8)
        cv2.drawContours(canvas, [contour - np.array([x0, y0])], -1, 1, cv2.FILLED)
        cv2.drawContours(canvas, [contour - np.array([x0, y0])], -1, 0, 1)
        inside, _ = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not inside:
            return None
        points = max(inside, key=len)[:, 0, :] + np.array([x0, y0])
    edges = (points + 1) // 2
    area = abs(cv2.contourArea(edges.astype(np.int32)))
    if area < 3:
        return None
    # Small shapes keep every step of their outline; large ones may move by half a pixel.
    corners = cv2.approxPolyDP(edges.astype(np.int32), 0.3 if area < 1500 else 0.75, True)[:, 0, :]
    return corners.astype(np.float64) if len(corners) >= 3 else None


def _join(outline: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = ((outline[:, None] - inner[None]) ** 2).sum(-1)
    i, j = np.unravel_index(int(distance.argmin()), distance.shape)
    return np.concatenate([outline[: i + 1], inner[j:], inner[: j + 1], outline[i:]])


class _Stage:
    """One scene as it is built up from the back to the front."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.horizon = int(height * rng.uniform(0.25, 0.62))
        self.owner: NDArray[np.int16] = np.zeros((height, width), np.int16)
        self.cast: list[tuple[Sprite, float]] = []
        self.image = self.scenery()
        for _ in range(rng.integers(0, 4)):
            self.thing(
                str(rng.choice(_THINGS)),
                rng.uniform(0, width),
                rng.uniform(0.45, 1.0) * height,
                height * rng.uniform(0.12, 0.6),
            )
        if rng.random() < 0.8:  # a lens focused on the people
            self.image = np.asarray(cv2.GaussianBlur(self.image, (0, 0), rng.uniform(0.8, 4.0)), np.uint8)

    def scenery(self) -> Bytes:
        """A background (H, W, 3): field, street, room, or nothing but a surface."""
        rng, h, w, horizon = self.rng, self.height, self.width, self.horizon
        place = rng.choice(["field", "street", "room", "surface"], p=[0.3, 0.25, 0.3, 0.15])
        if place == "surface":
            return self.surface(h, w)
        if place == "room":
            room = np.concatenate([self.surface(horizon, w, rng.uniform(0, 0.7)), self.surface(h - horizon, w)])
            cv2.rectangle(room, (0, horizon - 4), (w, horizon + 2), cloth_colour(rng), -1)
            for _ in range(rng.integers(0, 4)):  # pictures, doors, windows
                x, y, side = rng.integers(-20, w), rng.integers(-20, horizon), rng.integers(30, 140, 2)
                box = room[max(0, y) : max(0, y + side[1]), max(0, x) : max(0, x + side[0])]
                if box.size:
                    box[:] = self.surface(box.shape[0], box.shape[1])
                    cv2.rectangle(room, (int(x), int(y)), (int(x + side[0]), int(y + side[1])), cloth_colour(rng), 3)
            return room
        haze = np.linspace(0, 140, horizon, dtype=np.float32)[:, None] + 200 * cloud(rng, horizon, w, w / 3, 4)
        sky = ramp(jitter(rng, (150, 190, 230), 40), (238, 238, 238), to_bytes(haze))
        ground = self.ground(h - horizon, w)
        view = np.concatenate([sky, ground])
        if place == "street":
            self.buildings(view)
        else:
            for _ in range(rng.integers(0, 7)):
                kind = str(rng.choice(["bush", "trunk", "bush"]))
                layer = self.layer(
                    kind, rng.uniform(0, w), horizon + rng.uniform(0, 0.1) * h, h * rng.uniform(0.06, 0.4)
                )
                if layer is not None:
                    _paste(view, layer)
        return view

    def ground(self, height: int, width: int) -> Bytes:
        """Grass, sand, earth or asphalt, coarser towards the viewer."""
        rng = self.rng
        far = jitter(rng, _GROUND[rng.integers(len(_GROUND))], 22)
        near = jitter(rng, far if rng.random() < 0.6 else _GROUND[rng.integers(len(_GROUND))], 30)
        weight = np.linspace(0, 200, height, dtype=np.float32)[:, None] + 170 * cloud(rng, height, width, 60, 5)
        ground = ramp(far, near, to_bytes(weight))
        grain = to_bytes(128 + rng.uniform(20, 110) * cloud(rng, height, width, rng.uniform(2, 6), 2))
        return dim(ground, grain, 128)

    def surface(self, height: int, width: int, pale: float = 0.0) -> Bytes:
        """A wall, floor or curtain: two colours, a pattern, uneven light; `pale` (0 to 1) moves it towards white."""
        rng = self.rng
        first = jitter(rng, SKIN[rng.integers(4)], 20) if rng.random() < 0.15 else cloth_colour(rng)
        # Walls and floors are seldom as bright as clothes are, and their patterns seldom as strong.
        grey = rng.uniform(0.35, 0.9)
        low, high = (_towards(_towards(c, grey, (sum(c) // 3,) * 3), pale) for c in (first, cloth_colour(rng)))
        high = _towards(low, rng.uniform(0, 0.55), high)
        weight: Bytes = np.zeros((height, width), np.uint8)
        if rng.random() < 0.55:
            weight = pattern(rng, str(rng.choice(PATTERNS)), height, width, rng.uniform(7, 90))
        # Light changes slowly: half the resolution is enough.
        light = to_bytes(128 + 70 * cloud(rng, height // 2 + 1, width // 2 + 1, max(height, width) / 4, 5))
        light = np.asarray(cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        return dim(ramp(low, high, weight), light, 128)

    def buildings(self, view: Bytes) -> None:
        """House fronts with rows of windows above the horizon, and lane marks below it."""
        rng, w, horizon = self.rng, self.width, self.horizon
        x = -int(rng.integers(0, 40))
        while x < w:
            wide, top = int(rng.integers(50, 190)), int(rng.uniform(-0.2, 0.75) * horizon)
            front = view[max(0, top) : horizon, max(0, x) : max(0, x + wide)]
            front[:] = self.surface(*front.shape[:2])
            step, glass = int(rng.integers(16, 42)), cloth_colour(rng)
            for wy in range(top + step // 2, horizon - step // 2, step):
                for wx in range(x + step // 3, x + wide - step // 2, step):
                    cv2.rectangle(view, (wx, wy), (wx + step // 2, wy + int(step * 0.6)), jitter(rng, glass, 30), -1)
            x += wide
        if rng.random() < 0.6:
            vanish, paint = int(rng.uniform(0, w)), jitter(rng, (225, 222, 205), 20)
            for lane in rng.uniform(-1, 2, 3) * w:
                stripe = np.array(
                    [(vanish, horizon), (vanish + 2, horizon), (lane + 14, self.height), (lane - 14, self.height)]
                )
                cv2.fillPoly(view, [stripe.astype(np.int32)], paint, cv2.LINE_AA)

    def layer(self, kind: str, x: float, y: float, size: float) -> Layer | None:
        """A thing that is no person, `size` pixels high, standing at (x, y)."""
        rng = self.rng
        shapes = [(np.asarray(points, np.float64) * size + (x, y), light) for points, light in _outline(rng, kind)]
        corners = np.concatenate([points for points, _ in shapes])
        (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
        x0, y0, x1, y1 = max(0, x0), max(0, y0), min(self.width, x1), min(self.height, y1)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return None
        alpha: Bytes = np.zeros((y1 - y0, x1 - x0), np.uint8)
        shade: Bytes = np.zeros_like(alpha)
        for points, light in shapes:
            fixed = np.rint((points - (x0, y0) - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(alpha, [fixed], 255, cv2.LINE_AA, 4)
            cv2.fillPoly(shade, [fixed], 200 * light, cv2.LINE_AA, 4)
        round_off = np.linspace(1.0, rng.uniform(0.45, 0.95), x1 - x0) * (0.75 + 0.5 * rng.random())
        colour = self.surface(y1 - y0, x1 - x0)
        if kind in ("bush", "trunk"):
            colour = self.ground(y1 - y0, x1 - x0)
        elif kind == "log":  # the colours and the shape of an arm or a leg
            colour[:] = jitter(rng, SKIN[rng.integers(len(SKIN))], 10)
        shade = to_bytes(shade * round_off)
        colour = dim(colour, shade, 200)
        colour = dim(colour, alpha, 255)
        return Layer(x=x0, y=y0, colour=colour, alpha=alpha)

    def thing(self, kind: str, x: float, y: float, size: float) -> None:
        """Put a thing that is no person into the scene, before whatever is there."""
        layer = self.layer(kind, x, y, size)
        if layer is not None:
            _paste(self.image, layer)
            _own(self.owner, layer, 0)

    def populate(self, kind: str) -> None:
        """Place the people of one kind of scene, the small first, now and then with something before them."""
        rng, h, w = self.rng, self.height, self.width
        if kind == "empty":
            for _ in range(rng.integers(2, 7)):
                self.thing(
                    str(rng.choice(_THINGS)), rng.uniform(0, w), rng.uniform(0.6, 1.15) * h, h * rng.uniform(0.2, 0.9)
                )
            return
        sizes: list[float] = []
        if kind == "crowd":
            self.crowd()
            sizes = [rng.uniform(0.4, 0.8) for _ in range(rng.integers(0, 3))]
        elif kind == "close":
            sizes = [rng.uniform(0.45, 0.8) for _ in range(rng.choice(3, p=[0.6, 0.25, 0.15]))]
            sizes += [rng.uniform(1.1, 2.1) for _ in range(rng.choice([1, 2], p=[0.7, 0.3]))]
        elif kind == "group":
            sizes = [rng.uniform(0.6, 1.05) for _ in range(rng.choice([1, 2, 3, 4, 5], p=[0.36, 0.3, 0.18, 0.1, 0.06]))]
        else:
            sizes = [rng.uniform(0.1, 0.42) for _ in range(rng.integers(1, 8))]
        for size in sorted(sizes):
            self.person(size * min(h, 1.25 * w))

    def person(self, stature: float) -> None:
        """Place one person, its shadow, its seat, and with some luck something that hides a part of it."""
        rng, h, w = self.rng, self.height, self.width
        figure = pose_figure(rng)
        x0, y0, x1, y1 = (stature * bound for bound in figure.bounds)
        x = rng.uniform(0.06, 0.94) * w - (x0 + x1) / 2
        if stature > h:
            x = rng.uniform(0.25, 0.75) * w - (x0 + x1) / 2
            y = h * rng.uniform(0.01, 0.25) - y0
        else:
            high, low = (0.82 * h, 1.06 * h) if stature > 0.45 * h else (self.horizon, 0.97 * h)
            y = min(rng.uniform(high, low), h + 0.35 * stature) - y1
        ground = y + y1
        if ground < h + 10 and figure.pose != "jump":
            _shadow(self.image, x + (x0 + x1) / 2, ground, (x1 - x0) * 0.5, stature * 0.035)
        if figure.pose == "sit":
            self.thing(
                str(rng.choice(["box", "chair", "barrel"])),
                x,
                ground - 0.02 * stature,
                (y1 + 0.06 * stature) * rng.uniform(0.95, 1.25),
            )
        sprite = paint_figure(rng, figure, x, y, stature, (h, w))
        if sprite is None:
            return
        self.cast.append((sprite, stature))
        _paste(self.image, sprite)
        _own(self.owner, sprite, len(self.cast))
        if rng.random() < 0.2:
            shift = rng.uniform(-0.25, 0.25) * stature
            tall = min(stature, h) * rng.uniform(0.15, 0.5)
            self.thing(str(rng.choice(_OCCLUDERS)), x + shift, min(ground, h) + rng.uniform(0, 0.06) * stature, tall)

    def crowd(self) -> None:
        """Rows of tiny people, none of them annotated by itself."""
        rng, h, w = self.rng, self.height, self.width
        stature = max(20.0, h * rng.uniform(0.08, 0.16))
        figures = [pose_figure(rng, str(rng.choice(["stand", "walk", "cheer", "wave", "sit"]))) for _ in range(8)]
        middle, reach, top = rng.uniform(0.3, 0.7) * w, rng.uniform(0.25, 0.55) * w, rng.uniform(0.3, 0.7) * h
        rows = int(rng.integers(2, 4))
        for row in range(rows):
            for x in np.arange(middle - reach, middle + reach, stature * rng.uniform(0.32, 0.5)):
                figure = figures[rng.integers(len(figures))]
                size = stature * rng.uniform(0.9, 1.1)
                sprite = paint_figure(
                    rng,
                    figure,
                    float(x) + rng.normal(0, 2),
                    top + row * stature * 0.45 + rng.normal(0, 2),
                    size,
                    (h, w),
                )
                if sprite is not None:
                    _paste(self.image, sprite)
                    _own(self.owner, sprite, _CROWD)
        self.crowd_grain = int(stature * 0.3) | 1

    def photograph(self) -> Scene:
        """Light, lens and sensor over the finished scene; masks and keypoints from the map of owners."""
        rng, h, w = self.rng, self.height, self.width
        light = cv2.resize(rng.uniform(0.78, 1.18, (3, 3)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
        cast = rng.normal(1, 0.05, 3).astype(np.float32) * np.float32(rng.uniform(0.82, 1.12))
        image = self.image
        if rng.random() < 0.4:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1)), np.uint8)
        lit = cv2.multiply(image, light[..., None] * cast, dtype=cv2.CV_32F)
        noise = (rng.random((h, w), np.float32) - np.float32(0.5)) * np.float32(rng.uniform(2, 24))
        grainy = cv2.add(lit, cv2.merge((noise, noise, noise)), dtype=cv2.CV_8U)
        gamma = (np.arange(256) / 255) ** rng.uniform(0.8, 1.25) * 255
        image_HW3 = np.asarray(cv2.LUT(grainy, to_bytes(gamma)), np.uint8)
        persons = []
        for number, (sprite, stature) in enumerate(self.cast, 1):
            mask = self.owner == number
            if int(mask.sum()) >= _LEAST_PIXELS:
                persons.append(Person(mask=mask, keypoints=self.keypoints(number, sprite, stature)))
        crowd = self.owner == _CROWD
        if crowd.any():
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (self.crowd_grain, self.crowd_grain))
            crowd = cv2.morphologyEx(crowd.astype(np.uint8), cv2.MORPH_CLOSE, kernel).astype(bool) & (self.owner <= 0)
        return Scene(image=image_HW3, persons=tuple(persons), crowd=crowd if crowd.any() else None)

    def keypoints(self, number: int, sprite: Sprite, stature: float) -> NDArray[np.int64]:
        """COCO's triples (17, 3): v is 2 in sight, 1 hidden, and all three are 0 outside or for the very small."""
        table: NDArray[np.int64] = np.zeros((17, 3), np.int64)
        if stature < _LEAST_STATURE:
            return table
        for k, (px, py) in enumerate(np.floor(sprite.keypoints).astype(int)):
            if 0 <= px < self.width and 0 <= py < self.height:
                seen = sprite.shown[k] and self.owner[py, px] == number
                table[k] = px, py, 2 if seen else 1
        return table


def _towards(colour: Colour, share: float, goal: Colour = (240, 240, 240)) -> Colour:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, goal, strict=True))
    return red, green, blue


def _paste(image: Bytes, layer: Layer) -> None:
    h, w = layer.alpha.shape
    place = image[layer.y : layer.y + h, layer.x : layer.x + w]
    below = dim(place, ~layer.alpha)
    place[:] = cv2.add(below, layer.colour)


def _own(owner: NDArray[np.int16], layer: Layer, number: int) -> None:
    h, w = layer.alpha.shape
    owner[layer.y : layer.y + h, layer.x : layer.x + w][layer.alpha >= 128] = number


def _shadow(image: Bytes, x: float, y: float, half_width: float, half_height: float) -> None:
    height, width = image.shape[:2]
    x0, x1 = max(0, int(x - 1.6 * half_width)), min(width, int(x + 1.6 * half_width))
    y0, y1 = max(0, int(y - 2.5 * half_height)), min(height, int(y + 2.5 * half_height))
    if x1 <= x0 or y1 <= y0:
        return
    dark: Bytes = np.zeros((y1 - y0, x1 - x0), np.uint8)
    axes = (max(1, int(half_width)), max(1, int(half_height)))
    cv2.ellipse(dark, (int(x) - x0, int(y) - y0), axes, 0, 0, 360, 120, -1)
    soft = 2 * (axes[1] // 2) + 3
    place = image[y0:y1, x0:x1]
    place[:] = dim(place, ~np.asarray(cv2.blur(dark, (soft, soft)), np.uint8))


def _bar(x: float, half: float, top: float) -> list[tuple[float, float]]:
    return [(x - half, 0), (x - half, -top), (x + half, -top), (x + half, 0)]


def _outline(rng: np.random.Generator, kind: str) -> list[tuple[Any, float]]:
    """Polygons (n, 2) of a thing one unit high that stands at (0, 0), y down, each with its brightness."""
    u = rng.uniform
    circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24)), np.sin(np.linspace(0, 2 * np.pi, 24))], 1)
    if kind == "ball":
        return [(circle * 0.5 - (0, 0.5), 1.0), (circle * 0.3 - (0.1, 0.6), 1.15)]
    if kind == "bush":
        blobs = [circle * u(0.18, 0.34) + (u(-0.45, 0.45), -u(0.25, 0.75)) for _ in range(9)]
        return [(blob, u(0.7, 1.2)) for blob in [circle * (0.5, 0.35) - (0, 0.35), *blobs]]
    if kind in ("pole", "trunk"):
        half, top = (u(0.012, 0.035), 1.6) if kind == "pole" else (u(0.06, 0.13), 1.3)
        return [([(-half, 0), (-half * u(0.5, 1), -top), (half * u(0.5, 1), -top), (half, 0)], 1.0)]
    if kind == "barrel":
        half = u(0.25, 0.4)
        return [([(-half, 0), (-half * 1.12, -0.5), (-half, -1), (half, -1), (half * 1.12, -0.5), (half, 0)], 1.0),
                (circle * (half, 0.08) - (0, 1), 1.2)]  # fmt: skip
    if kind == "table":
        half, thick = u(0.6, 1.1), u(0.05, 0.12)
        legs = [_bar(side * half * 0.9, 0.04, 1) for side in (-1, 1)]
        rim = [(-half, -1), (-half * 0.85, -1 - 2 * thick), (half * 0.85, -1 - 2 * thick), (half, -1)]
        return [(legs[0], 0.8), (legs[1], 0.8), ([*rim, (half, thick - 1), (-half, thick - 1)], 1.1)]
    if kind == "chair":
        seat = [(-0.32, -0.42), (-0.32, -0.52), (0.31, -0.52), (0.31, -0.42)]
        return [(_bar(-0.28, 0.03, 0.5), 0.8), (_bar(0.28, 0.03, 1), 0.9), (seat, 1.1)]
    if kind == "coat":  # a garment without a wearer
        flare, sleeve = u(0.24, 0.4), u(0.5, 0.9)
        right = [(0.07, -1), (0.26, -0.92), (0.22, -0.4), (flare, 0)]
        body = right + [(-bx, by) for bx, by in reversed(right)]
        return [(body, 1.0)] + [
            ([(s * 0.2, -0.95), (s * 0.3, -0.9), (s * 0.42, -1 + sleeve), (s * 0.3, -1 + sleeve)], 0.9) for s in (-1, 1)
        ]
    if kind in ("log", "panel"):
        half, bend, turn = u(0.05, 0.11), u(-0.15, 0.15), u(0, np.pi)
        points = np.concatenate([circle * half - (0, 0.5), circle * half + (bend, 0.5)])
        if kind == "panel":
            points = np.array([(-0.5, -0.35), (0.5, -0.35), (0.5, 0.35), (-0.5, 0.35)]) * u(0.5, 1, 2)
            turn = rng.normal(0, 0.2)
        hull = cv2.convexHull(points.astype(np.float32))[:, 0]
        spin = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
        return [(hull @ spin - (0, 0.45), 1.0)]
    half, deep = u(0.35, 0.75), u(0.08, 0.25)  # a box with a lit top and a dark side
    return [([(-half, 0), (-half, -1), (half, -1), (half, 0)], 1.0),
            ([(-half, -1), (deep - half, -1 - deep), (half + deep, -1 - deep), (half, -1)], 1.2),
            ([(half, 0), (half, -1), (half + deep, -1 - deep), (half + deep, -deep)], 0.7)]  # fmt: skip


def _write_image(
    folder: Path, index: int, config: SynthConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], float, int]:
    """Render and write one image; its COCO record, its annotations, its share of person pixels, its bytes."""
    scene = render(index, config)
    height, width = scene.image.shape[:2]
    name = f"{index + 1:012d}.jpg"
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality]
    )
    assert done, name
    (folder / name).write_bytes(data.tobytes())
    record = {"license": 1, "file_name": name, "height": height, "width": width, "date_captured": "", "id": index + 1}
    annotations: list[dict[str, Any]] = []
    covered = 0
    for person in scene.persons:
        polygons = trace(person.mask)
        if polygons:
            annotations.append(_annotation(index, len(annotations), person.mask, polygons, person.keypoints, 0))
            covered += annotations[-1]["area"]
    if scene.crowd is not None:
        counts = {"counts": run_lengths(scene.crowd), "size": [height, width]}
        annotations.append(_annotation(index, len(annotations), scene.crowd, counts, np.zeros((17, 3), np.int64), 1))
    return record, annotations, covered / (height * width), len(data)


def _annotation(
    index: int, number: int, mask: NDArray[np.bool_], segmentation: Any, keypoints: NDArray[np.int64], crowd: int
) -> dict[str, Any]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x, y = int(columns[0]), int(rows[0])
    return {
        "segmentation": segmentation,
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "area": int(mask.sum()),
        "iscrowd": crowd,
        "keypoints": keypoints.ravel().tolist(),
        "image_id": index + 1,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "category_id": 1,
        "id": (index + 1) * 100 + number,  # at most nine people and a crowd in an image
    }


def _frame_of_json(config: SynthConfig) -> dict[str, Any]:
    return {
        "info": {
            "description": f"Procedural people, seed {config.seed}",
            "version": _FORMAT,
            "year": 2017,
            "contributor": "maskcache",
            "url": "",
            "date_created": "",
        },
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": [],
        "annotations": [],
        "categories": [
            {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(KEYPOINTS), "skeleton": _SKELETON}
        ],
    }


def _claim(root: Path, config: SynthConfig) -> None:
    """Make `root` an empty dataset of ours: marked, without annotations, without the images of an earlier one."""
    marker = root / MARKER
    if root.exists() and not root.is_dir():
        raise SynthError(f"{root} is a file; name a directory for the dataset")
    if root.is_dir() and any(root.iterdir()):
        try:
            ours = json.loads(marker.read_text(encoding="utf-8"))["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise SynthError(
                f"{root} is not empty and no synthetic dataset (its {MARKER} is missing or says another format than "
                f"{_FORMAT}); nothing was touched: choose a new or an empty directory"
            )
        # The annotations go first: from here on the old dataset is not whole.
        for folder in ("annotations", "train2017", "val2017"):
            if (root / folder).exists():
                shutil.rmtree(root / folder)
    # The mark goes first: a run that is cut short leaves a folder that the next one knows as ours.
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"format": _FORMAT, "config": asdict(config)}, indent=1) + "\n", encoding="utf-8")
    for folder in ("annotations", "train2017", "val2017"):
        (root / folder).mkdir(exist_ok=True)
