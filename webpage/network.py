"""The network that the page asks."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from console.language import CHECKOUT, PAGE, PROGRAM
from predict.config import CHECKPOINTS, find_checkpoints
from predict.run import kept_predictor
from train.predictor import Predictor
from webpage.session import _, literal, translated

VARIABLE = "MASKCACHE_MODEL"
"""The environment variable that names the checkpoint that the page begins with."""

_DEMO = "data/*/run/checkpoints/best_model.pth"
"""Where `make demo` writes checkpoints, below the working folder."""


def known_checkpoints(folder: Path) -> list[Path]:
    """The checkpoint that `MASKCACHE_MODEL` names, then those of the runs below a folder, the newest first."""
    named = os.environ.get(VARIABLE)
    known = [path.relative_to(folder) for path in find_checkpoints(folder, CHECKPOINTS, _DEMO)]
    return list(dict.fromkeys([Path(named), *known])) if named else known


def open_network(path: Path | None) -> Predictor | None:
    """Give the network of a checkpoint; if that cannot be had, say on the page why, and what to do."""
    if path is None:
        _show_how_to_train()
        return None
    try:
        return kept_predictor(path, None)
    except (ValueError, OSError) as error:  # CheckpointError and HardwareError are ValueErrors
        st.error(_("This network cannot be used; choose another one in the settings above."), icon=":material/error:")
        st.caption(literal(translated(error)))
        return None


def _show_how_to_train() -> None:
    st.subheader(_("There is no network yet"), anchor=False)
    st.write(_("A network of drawn people, to try this page with, takes some minutes:"))
    people, cache = "data/people", "data/people-cache"
    _show_commands(
        f"synth {people} --images 1500",
        f"preprocess --coco {people} --out {cache} --side 96 --fit stretch",
        f"train --cache {cache} --network unet --width 16 --batch-size 8 --lr 4e-3 --augment none --epochs 10",
    )
    st.write(_("One that knows photos is trained on COCO:"))
    _show_commands("preprocess --coco COCO --out data/cache", "train --cache data/cache --profile auto")
    elsewhere = _(
        "Load this page again afterwards. A checkpoint that lies elsewhere is named by `{variable}`:", variable=VARIABLE
    )
    st.write(elsewhere)
    st.code(f"{VARIABLE}=best_model.pth {PAGE}", language="bash")


def _show_commands(*commands: str) -> None:
    python = "python " if CHECKOUT else ""
    st.code("\n".join(f"{python}{PROGRAM} {command}" for command in commands), language="bash")
