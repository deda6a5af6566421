"""The photo that is looked at: before and after, its mask."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from preprocess.quality import QualityScores
from webpage.compare import compare
from webpage.language import _
from webpage.photo import Finish, SeenPhoto, show
from webpage.strip import Small, strip


def choose_photo(photos: Sequence[SeenPhoto]) -> SeenPhoto:
    """Let one of several photos be chosen to be looked at."""
    if len(photos) == 1:
        return photos[0]
    small = [Small(photo.upload.key, photo.upload.name, photo.thumbnail) for photo in photos]
    chosen = strip(small, label=_("Photos"), key="strip")
    return next(photo for photo in photos if photo.upload.key == chosen)


def show_photo(photo: SeenPhoto, finish: Finish, side: int) -> QualityScores:
    """Show what becomes of a photo, and give its scores; `side`: of the network's square."""
    shown = show(photo, finish, side)
    views = {"after": _("After"), "mask": _("Mask")}
    with st.container(key="view", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        facts = _("{width} × {height} pixels, {percent:.0f} % person")
        st.caption(facts.format(width=photo.width, height=photo.height, percent=shown.scores.coverage))
        view = st.segmented_control(
            _("View"), views, format_func=views.__getitem__, key="look", default="after", required=True,
            label_visibility="collapsed",
        )  # fmt: skip
    compare(
        photo.before,
        shown.mask if view == "mask" else shown.after,
        size=(photo.width, photo.height),
        names=(_("Before"), views[view or "after"]),
        label=_("How much of the photo is shown as it was"),
        key="compare",
    )
    if not shown.scores.coverage:
        st.warning(_("The network finds nobody in this photo."), icon=":material/person_off:")
    return shown.scores
