"""Fuzzing: for each parser of foreign bytes a target, whose check fails at whatever is neither right nor our own error.

A check takes any bytes. It returns if they are refused with an error of this package, or give what they should: what
another reader makes of them, where there is one. `python -m tests.fuzz --help` says how they are run.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from importlib import import_module

MODULES = {
    "segmentations": "annotations",
    "kernel": "annotations",
    "document": "annotations",
    "index": "cached",
    "index_file": "cached",
    "table": "cached",
    "manifest": "cached",
    "record": "cached",
    "zarr": "cached",
    "checkpoint_values": "checkpoints",
    "checkpoint_pickle": "checkpoints",
    "checkpoint_file": "checkpoints",
    "photo": "decoders",
    "video": "decoders",
}
"""The targets, and the module of each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What is fuzzed.

    Attributes:
        check: raises an error for bytes that show a fault.
        seeds: gives bytes to begin with.
        mutate: gives other bytes; None if it knows nothing to be made of these.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, random.Random], bytes | None] | None = None


def load_target(name: str) -> Target:
    """Import a target's module, and give the target."""
    return import_module(f"tests.fuzz.{MODULES[name]}").TARGETS[name]
