"""The network that the page asks, loaded once for all sessions."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from train.predictor import Trained, load_predictor
from webpage.checkpoints import VARIABLE
from webpage.language import _, translated
from webpage.session import literal


def open_network(path: Path | None) -> Trained | None:
    """Give the network of a checkpoint; if that cannot be had, say on the page why, and what to do."""
    if path is None:
        _show_how_to_train()
        return None
    try:
        return _load(path, _state(path))
    except (ValueError, OSError) as error:  # CheckpointError and HardwareError are ValueErrors
        st.error(_("This network cannot be used; choose another one in the settings above."), icon=":material/error:")
        st.caption(literal(translated(error)))
        return None


def _state(path: Path) -> tuple[int, int]:
    """What differs when a file is written anew; of none that is there, zeros."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@st.cache_resource(max_entries=2, show_spinner=False)
def _load(path: Path, written: tuple[int, int]) -> Trained:  # a file that is written anew is loaded anew
    return load_predictor(path, None, None)


def _show_how_to_train() -> None:
    st.subheader(_("There is no network yet"), anchor=False)
    st.write(_("A network of drawn people, to try this page with, takes some minutes:"))
    st.code("make demo", language="bash")
    st.write(_("One that knows photos is trained on COCO:"))
    st.code(
        "python cli.py preprocess --coco COCO --out data/cache\npython cli.py train --cache data/cache --profile auto",
        language="bash",
    )
    st.write(
        _("Load this page again afterwards. A checkpoint that lies elsewhere is named by `{variable}`:").format(
            variable=VARIABLE
        )
    )
    st.code(f"{VARIABLE}=best_model.pth streamlit run app.py", language="bash")
