"""Changes to inputs: of any bytes, and of the values in a JSON document."""

from __future__ import annotations

import copy
import json
import random
from contextlib import suppress
from typing import Any

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 7, 64, 255, 10**6, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, 2**63),
    *(-(2**63), 2**64, 10**30, 0.0, -0.0, 0.5, 1e-320, 1e8, 1e9, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "0", "-1", "12", "1e3", "NaN", "\0", "a%00/b", "../x", "/etc", "\ud800", "\U0001f600", "é" * 40),
    *("b'12'", "b'\\q'", "0" * 30, "9" * 25, "person", "train", [], {}, [[]], [{}], [None], {"id": 1}, [0] * 7),
]
"""What values are replaced by."""


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """Change, remove, repeat or exchange a few bytes, or cut the end off."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, size = draw.randrange(len(out) + 1), draw.choice((1, 1, 2, 4, 8, 30))
        match draw.randrange(6):
            case 0:
                out[at : at + size] = draw.randbytes(size)
            case 1 if at < len(out):
                out[at] ^= 1 << draw.randrange(8)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size]
            case 4:
                out[at : at + 4] = draw.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x01"))
            case 5 if draw.random() < 0.2:
                del out[at:]
    return bytes(out)


def mutate_json(data: bytes, draw: random.Random) -> bytes | None:
    """Change one to three values of a JSON document; None if it is none."""
    with suppress(ValueError, RecursionError):
        return _mutated(json.loads(data), draw)
    return None


def _mutated(document: Any, draw: random.Random) -> bytes:
    holder = [document]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = _places(holder)
        container, key = draw.choice(places)
        value, (other, from_key) = container[key], draw.choice(places)
        match draw.randrange(9):
            case 0 | 1 | 2:
                container[key] = copy.deepcopy(draw.choice(VALUES))
            case 3:
                container[key] = copy.deepcopy(other[from_key])
            case 4 if container is not holder:
                del container[key]
            case 5 if isinstance(container, list) and container is not holder:
                container.insert(key, copy.deepcopy(value))
            case 6:
                container[key] = [value]
            case 7 if isinstance(value, int | float):
                container[key] = draw.choice((value + 1, -value, value * 2, float(value), str(value), value / 3))
            case 8 if isinstance(value, str):
                container[key] = mutate_bytes(value.encode(errors="replace"), draw).decode(errors="replace")
    if draw.random() < 0.01:
        depth = draw.choice((10, 100, 900, 1100, 2000))
        return b"[" * depth + json.dumps(holder[0]).encode() + b"]" * depth
    return json.dumps(holder[0]).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each value within a list or dictionary: its container, and its key there."""
    found, waiting = [], [value]
    while waiting:
        container = waiting.pop()
        for key in range(len(container)) if isinstance(container, list) else list(container):
            found.append((container, key))
            if isinstance(container[key], list | dict):
                waiting.append(container[key])
    return found
