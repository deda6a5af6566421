"""The photo that is looked at: before and after, its mask.

Two parts of it are components of this page, which are in `assets/`. `compare` lays two pictures on top of each other,
with a line between them to move by pointer, finger or arrow keys. `strip` shows small pictures of which one is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from cache.spec import things
from predict.mask import Finish
from preprocess.check.quality import QualityScores
from train.predictor import Predictor
from webpage.photo import SeenPhoto, show
from webpage.session import _, choose

_ASSETS = Path(__file__).parent / "assets"


def choose_photo(photos: Sequence[SeenPhoto]) -> SeenPhoto:
    """Let one of several photos be chosen; the first one is shown if the chosen one is gone."""
    if len(photos) == 1:
        return photos[0]
    before = st.session_state.get("strip", {}).get("chosen")
    chosen = next((photo for photo in photos if photo.upload.key == before), photos[0])
    pictures = [{"key": each.upload.key, "name": each.upload.name, "url": each.thumbnail} for each in photos]
    data = {"label": _("Photos"), "chosen": chosen.upload.key, "pictures": pictures}
    _show_component("strip", data, on_chosen_change=lambda: None)
    return chosen


def show_photo(photo: SeenPhoto, finish: Finish, trained: Predictor) -> QualityScores:
    """Show what becomes of a photo, and return its scores; `trained` is the network."""
    shown = show(photo, finish, trained.side)
    views = {"after": _("After"), "mask": _("Mask")}
    with st.container(key="view", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        size = {"width": photo.width, "height": photo.height}
        st.caption(_("{width} × {height} pixels, {percent:.0f} % kept", **size, percent=shown.scores.coverage))
        view = choose(_("View"), views, key="look", default="after", label_visibility="collapsed")
    urls = {"before": photo.before, "after": shown.mask if view == "mask" else shown.after}
    names = {"beforeName": _("Before"), "afterName": views[view]}
    _show_component("compare", {**urls, **names, **size, "label": _("How much of the photo is shown as it was")})
    if not shown.scores.coverage:
        st.warning(
            _("The network finds no {things} in this photo.", things=things(trained.spec.category)),
            icon=":material/search_off:",
        )
    return shown.scores


def _show_component(name: str, data: dict[str, Any], **callbacks: Any) -> None:
    html, css, js = ((_ASSETS / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    st.components.v2.component(name, html=html, css=css, js=js)(key=name, data=data, **callbacks)
