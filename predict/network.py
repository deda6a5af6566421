"""A network that stays loaded between calls, for programs that remove backgrounds from time to time."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock

from cache.choices import Device
from predict.record import FileState, file_state
from train.predictor import Predictor, load_predictor

_LOADING = Lock()


def kept_predictor(path: Path, device: Device | None) -> Predictor:
    """Give the network of a checkpoint as `load_predictor` does; that of a file that is written anew is loaded anew.

    The latest two are kept. Any thread may call this: a network is loaded once, while the others wait for it.
    """
    with _LOADING:
        return _load(path.absolute(), file_state(path), device)


@lru_cache(maxsize=2)
def _load(path: Path, _state: FileState | None, device: Device | None) -> Predictor:
    return load_predictor(path, device, None)
