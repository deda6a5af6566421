"""The public face: what other programs use of maskcache. Names load their module, and torch with it, when first used.

from maskcache import LoaderConfig, open_loader, remove_background
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cache.messages import message

if TYPE_CHECKING:
    from loader.batch import Batch, LoaderConfig
    from loader.loader import open_loader
    from maskcache.background import remove_background

__all__ = ["Batch", "LoaderConfig", "open_loader", "remove_background"]

_HOMES = {
    "Batch": "loader.batch",
    "LoaderConfig": "loader.batch",
    "open_loader": "loader.loader",
    "remove_background": "maskcache.background",
}

_PACKAGES = ("cache", "preprocess", "loader", "model", "train", "predict")
"""The top-level packages that these names need, beside this one."""


def _check_packages() -> None:
    """Refuse to go on where another module has the name of one of our packages. None of them is imported.

    Raises:
        ImportError: a file of the user's, usually beside the script, is found in the place of a package.
    """
    own = Path(__file__).resolve().parent.parent
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec and spec.origin and Path(spec.origin).resolve().parent != own / name:
            raise ImportError(
                message(
                    "{origin} hides maskcache's package {name!r}; rename it, or move it off sys.path",
                    origin=spec.origin,
                    name=name,
                )
            )


_check_packages()


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
