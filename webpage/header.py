"""The head of the page: what it is, which language, which network."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from console.language import LANGUAGES
from webpage.language import KEY, NAMES, _, browsers
from webpage.network import find_checkpoints
from webpage.style import show_style

_LOCAL = ("localhost", "127.0.0.1", "::1")


def show_header(folder: Path) -> Path | None:
    """Show it, and give the checkpoint that is chosen; None if there is none.

    Args:
        folder: whose runs there are to choose from.
    """
    st.set_page_config(page_title="maskcache", page_icon="✂️", layout="wide")
    found = find_checkpoints(folder)
    with st.container(
        key="header", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", wrap=False
    ):
        title = st.container(gap=None)
        with st.popover("", icon=":material/tune:", key="settings", help=_("Language and network")):
            _choose_language()
            path = _choose_checkpoint(found)
    show_style()
    with title:
        st.title(_("Remove backgrounds"), anchor=False)
        st.caption(_("Photos stay on the computer that runs this page."))
    return path


def _choose_language() -> None:
    st.segmented_control(
        _("Language"), LANGUAGES, format_func=NAMES.__getitem__, key=KEY, default=browsers(), required=True,
        width="stretch",
    )  # fmt: skip


def _choose_checkpoint(found: list[Path]) -> Path | None:
    # Whoever comes over the network is not to try what files there are.
    local = st.get_option("server.address") in _LOCAL
    typed = _("The best_model.pth of a run, the newest first. The path of another one can be typed.")
    chosen = st.selectbox(
        _("Network"),
        [str(path) for path in found],
        key="checkpoint",
        format_func=short_name,
        accept_new_options=local,
        placeholder=_("Path of a best_model.pth"),
        help=typed if local else None,
    )
    return Path(chosen) if chosen else None


def short_name(path: str) -> str:
    """A run's name for its best checkpoint, and any other path as it is."""
    return path.removesuffix("/checkpoints/best_model.pth")
