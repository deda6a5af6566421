"""Backgrounds: field, street, room, or nothing but a surface."""

from __future__ import annotations

import cv2
import numpy as np

from preprocess.drawing.colour import cloth_colour, jitter
from preprocess.drawing.paint import Bytes, paste, ramp, to_bytes
from preprocess.drawing.texture import cloud, ground, surface
from preprocess.drawing.thing import draw_thing


def draw_scenery(rng: np.random.Generator, frame: tuple[int, int], horizon: int) -> Bytes:
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
            layer = draw_thing(
                rng, kind, rng.uniform(0, w), horizon + rng.uniform(0, 0.1) * h, h * rng.uniform(0.06, 0.4), frame
            )
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
