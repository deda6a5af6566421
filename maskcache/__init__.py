"""The public face: what other programs use of maskcache. Names load their module, and torch with it, when first used.

from maskcache import LoaderConfig, open_loader, remove_background
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loader.batch import Batch, LoaderConfig
    from loader.dataset import MaskDataset
    from loader.loader import open_loader
    from maskcache.background import remove_background

__all__ = ["Batch", "LoaderConfig", "MaskDataset", "open_loader", "remove_background"]

_LOADING = ("cache", "loader")
_PREDICTING = (*_LOADING, "preprocess", "model", "train", "predict")
_HOMES = {
    "Batch": ("loader.batch", _LOADING),
    "LoaderConfig": ("loader.batch", _LOADING),
    "MaskDataset": ("loader.dataset", _LOADING),
    "open_loader": ("loader.loader", _LOADING),
    "remove_background": ("maskcache.background", _PREDICTING),
}
"""The module of each name, and the top-level packages that it needs, beside this one."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, packages = _HOMES[name]
    _check_packages(packages)
    return getattr(import_module(module), name)


def _check_packages(names: Iterable[str]) -> None:
    """Refuse to go on where another module has the name of one of our packages. None of them is imported.

    Raises:
        ImportError: a file of the user's, usually beside the script, is found in the place of a package.
    """
    own = Path(__file__).resolve().parent.parent
    for name in names:
        spec = find_spec(name)
        if spec and spec.origin and Path(spec.origin).resolve().parent != own / name:
            raise ImportError(f"{spec.origin} hides maskcache's package {name!r}; rename it, or move it off sys.path")
