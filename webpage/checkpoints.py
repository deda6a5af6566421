"""Where trained networks may lie."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "MASKCACHE_MODEL"
"""Names a checkpoint that the page begins with."""

_PLACES = ("runs/*/checkpoints/best_model.pth", "data/*/run/checkpoints/best_model.pth")
"""Of `train` and of `make demo`, below the working folder."""


def find_checkpoints(folder: Path) -> list[Path]:
    """Give the one that `MASKCACHE_MODEL` names, then those of the runs below `folder`, the newest first."""
    found = {path for place in _PLACES for path in folder.glob(place)}
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    named = os.environ.get(VARIABLE)
    known = [path.relative_to(folder) for path in newest]
    return list(dict.fromkeys([Path(named), *known])) if named else known
