"""The cache format on disk. Knows numpy, lmdb and zarr; neither torch nor COCO. Names load these when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.errors import CacheError
    from cache.index import CacheIndex
    from cache.reader import CacheReader
    from cache.spec import CacheSpec

__all__ = ["CacheError", "CacheIndex", "CacheReader", "CacheSpec"]

_HOMES = {"CacheError": "errors", "CacheIndex": "index", "CacheReader": "reader", "CacheSpec": "spec"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"cache.{_HOMES[name]}"), name)
