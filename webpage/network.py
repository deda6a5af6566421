"""The network that the page asks."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from predict.config import CHECKPOINTS, SAMPLE, find_checkpoints
from predict.run import kept_predictor
from train.predictor import Predictor
from webpage.session import _, literal, translated

VARIABLE = "MASKCACHE_MODEL"
"""The environment variable that names the checkpoint that the page begins with."""

_DEMO = "data/*/run/checkpoints/best_model.pth"
"""Where `make demo` writes checkpoints, below the working folder."""


def known_checkpoints(folder: Path) -> list[Path]:
    """The one that `MASKCACHE_MODEL` names, those of the runs below a folder, the newest first, and the sample."""
    named = os.environ.get(VARIABLE)
    known = [path.relative_to(folder) for path in find_checkpoints(folder, CHECKPOINTS, _DEMO)]
    return list(dict.fromkeys([*([Path(named)] if named else []), *known, SAMPLE]))


def open_network(path: Path) -> Predictor | None:
    """Give the network of a checkpoint; if that cannot be had, say on the page why, and what to do."""
    if path == SAMPLE:
        st.caption(_("This is a small sample network; one that you train on more photos makes better masks."))
    try:
        return kept_predictor(path, None)
    except (ValueError, OSError) as error:  # CheckpointError and HardwareError are ValueErrors
        st.error(_("This network cannot be used; choose another one in the settings above."), icon=":material/error:")
        st.caption(literal(translated(error)))
        return None
