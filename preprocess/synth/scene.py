"""A scene: persons, crowds and things, painted from back to front over a background, then photographed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.synth.figure import pose_figure
from preprocess.synth.painting import (
    Bytes,
    Layer,
    cloth_colour,
    cloud,
    dim,
    ground,
    jitter,
    paste,
    ramp,
    surface,
    to_bytes,
)
from preprocess.synth.sprites import OCCLUDERS, THINGS, Sprite, draw_thing, paint_figure

_LEAST_PIXELS = 30  # a person with fewer visible pixels gets no annotation
_LEAST_STATURE = 40.0  # pixels; a smaller person has no labelled keypoints, as in COCO
_CROWD = -1  # in the map of owners; 0 is scenery, k the k-th person


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


class Stage:
    """One scene as it is built up from the back to the front."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.horizon = int(height * rng.uniform(0.25, 0.62))
        self.owner: NDArray[np.int16] = np.zeros((height, width), np.int16)
        self.cast: list[tuple[Sprite, float]] = []
        self.image = _draw_background(rng, (height, width), self.horizon)
        self.scatter(int(rng.integers(0, 4)), (0.45, 1.0), (0.12, 0.6))
        if rng.random() < 0.8:  # a lens focused on the people
            self.image = np.asarray(cv2.GaussianBlur(self.image, (0, 0), rng.uniform(0.8, 4.0)), np.uint8)

    def scatter(self, number: int, ground: tuple[float, float], size: tuple[float, float]) -> None:
        """Put random things into the scene; `ground` and `size` are ranges in shares of the height."""
        rng, h = self.rng, self.height
        for _ in range(number):
            kind, x = str(rng.choice(THINGS)), rng.uniform(0, self.width)
            self.thing(kind, x, rng.uniform(*ground) * h, h * rng.uniform(*size))

    def thing(self, kind: str, x: float, y: float, size: float) -> None:
        """Put a thing in front of everything in the scene."""
        layer = draw_thing(self.rng, kind, x, y, size, (self.height, self.width))
        if layer is not None:
            self.put(layer, 0)

    def put(self, layer: Layer, number: int) -> None:
        """Paint a layer over the scene; the pixels that it covers get `number` in the map of owners."""
        paste(self.image, layer)
        h, w = layer.alpha.shape
        self.owner[layer.y : layer.y + h, layer.x : layer.x + w][layer.alpha >= 128] = number

    def populate(self, kind: str) -> None:
        """Place the people of one kind of scene, the small ones first, some of them with something in front."""
        rng, h, w = self.rng, self.height, self.width
        if kind == "empty":
            self.scatter(int(rng.integers(2, 7)), (0.6, 1.15), (0.2, 0.9))
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
        """Place one person with its shadow and its seat, and sometimes a thing that hides a part of it."""
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
            seat = str(rng.choice(["box", "chair", "barrel"]))
            self.thing(seat, x, ground - 0.02 * stature, (y1 + 0.06 * stature) * rng.uniform(0.95, 1.25))
        sprite = paint_figure(rng, figure, x, y, stature, (h, w))
        if sprite is None:
            return
        self.cast.append((sprite, stature))
        self.put(sprite, len(self.cast))
        if rng.random() < 0.2:
            shift = rng.uniform(-0.25, 0.25) * stature
            tall = min(stature, h) * rng.uniform(0.15, 0.5)
            self.thing(str(rng.choice(OCCLUDERS)), x + shift, min(ground, h) + rng.uniform(0, 0.06) * stature, tall)

    def crowd(self) -> None:
        """Place rows of tiny people, to be annotated as one crowd."""
        rng, h, w = self.rng, self.height, self.width
        stature = max(20.0, h * rng.uniform(0.08, 0.16))
        figures = [pose_figure(rng, str(rng.choice(["stand", "walk", "cheer", "wave", "sit"]))) for _ in range(8)]
        middle, reach, top = rng.uniform(0.3, 0.7) * w, rng.uniform(0.25, 0.55) * w, rng.uniform(0.3, 0.7) * h
        rows = int(rng.integers(2, 4))
        for row in range(rows):
            for x in np.arange(middle - reach, middle + reach, stature * rng.uniform(0.32, 0.5)):
                figure = figures[rng.integers(len(figures))]
                size = stature * rng.uniform(0.9, 1.1)
                at = float(x) + rng.normal(0, 2), top + row * stature * 0.45 + rng.normal(0, 2)
                sprite = paint_figure(rng, figure, *at, size, (h, w))
                if sprite is not None:
                    self.put(sprite, _CROWD)
        self.crowd_grain = int(stature * 0.3) | 1

    def photograph(self) -> Scene:
        """Apply light, lens and sensor; take masks and keypoints from the map of owners."""
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
        """COCO's triples (17, 3) of x, y, v: v is 2 on a visible pixel of the person, else 1. Outside and for
        tiny persons all are 0.
        """
        table: NDArray[np.int64] = np.zeros((17, 3), np.int64)
        if stature < _LEAST_STATURE:
            return table
        for k, (px, py) in enumerate(np.floor(sprite.keypoints).astype(int)):
            if 0 <= px < self.width and 0 <= py < self.height:
                table[k] = px, py, 2 if self.owner[py, px] == number else 1
        return table


def _shadow(image: Bytes, x: float, y: float, half_width: float, half_height: float) -> None:
    """Darken a soft ellipse around (x, y)."""
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


def _draw_background(rng: np.random.Generator, frame: tuple[int, int], horizon: int) -> Bytes:
    """A background (h, w, 3) uint8 RGB of size `frame`; at row `horizon` wall or sky ends and the ground begins."""
    h, w = frame
    place = rng.choice(["field", "street", "room", "surface"], p=[0.3, 0.25, 0.3, 0.15])
    if place == "surface":
        return surface(rng, h, w)
    if place == "room":
        room = np.concatenate([surface(rng, horizon, w, rng.uniform(0, 0.7)), surface(rng, h - horizon, w)])
        cv2.rectangle(room, (0, horizon - 4), (w, horizon + 2), cloth_colour(rng), -1)
        for _ in range(rng.integers(0, 4)):  # pictures, doors, windows
            x, y, side = rng.integers(-20, w), rng.integers(-20, horizon), rng.integers(30, 140, 2)
            box = room[max(0, y) : max(0, y + side[1]), max(0, x) : max(0, x + side[0])]
            if box.size:
                box[:] = surface(rng, box.shape[0], box.shape[1])
                cv2.rectangle(room, (int(x), int(y)), (int(x + side[0]), int(y + side[1])), cloth_colour(rng), 3)
        return room
    haze = np.linspace(0, 140, horizon, dtype=np.float32)[:, None] + 200 * cloud(rng, horizon, w, w / 3, 4)
    sky = ramp(jitter(rng, (150, 190, 230), 40), (238, 238, 238), to_bytes(haze))
    land = ground(rng, h - horizon, w)
    view = np.concatenate([sky, land])
    if place == "street":
        _build_street(rng, view, horizon)
    else:
        for _ in range(rng.integers(0, 7)):
            kind = str(rng.choice(["bush", "trunk", "bush"]))
            left, foot, tall = rng.uniform(0, w), horizon + rng.uniform(0, 0.1) * h, h * rng.uniform(0.06, 0.4)
            layer = draw_thing(rng, kind, left, foot, tall, frame)
            if layer is not None:
                paste(view, layer)
    return view


def _build_street(rng: np.random.Generator, view: Bytes, horizon: int) -> None:
    """House fronts with rows of windows above the horizon, and lane marks below it."""
    h, w = view.shape[:2]
    x = -int(rng.integers(0, 40))
    while x < w:
        wide, top = int(rng.integers(50, 190)), int(rng.uniform(-0.2, 0.75) * horizon)
        front = view[max(0, top) : horizon, max(0, x) : max(0, x + wide)]
        front[:] = surface(rng, *front.shape[:2])
        step, glass = int(rng.integers(16, 42)), cloth_colour(rng)
        for wy in range(top + step // 2, horizon - step // 2, step):
            for wx in range(x + step // 3, x + wide - step // 2, step):
                cv2.rectangle(view, (wx, wy), (wx + step // 2, wy + int(step * 0.6)), jitter(rng, glass, 30), -1)
        x += wide
    if rng.random() < 0.6:
        vanish, paint = int(rng.uniform(0, w)), jitter(rng, (225, 222, 205), 20)
        for lane in rng.uniform(-1, 2, 3) * w:
            stripe = np.array([(vanish, horizon), (vanish + 2, horizon), (lane + 14, h), (lane - 14, h)])
            cv2.fillPoly(view, [stripe.astype(np.int32)], paint, cv2.LINE_AA)
