"""What the user chooses to be made of a photo."""

from __future__ import annotations

import streamlit as st
from PIL import ImageColor

from predict.background import BLUR, Background, Blur, Colour
from preprocess.errors import ImageError
from webpage.intake import TYPES, to_upload
from webpage.language import _
from webpage.photo import Finish
from webpage.session import read_picture, show_unreadable


def choose_finish() -> Finish:
    """Let the background be chosen, and how the mask is drawn."""
    background = _choose_background()
    with st.expander(_("More"), key="more"):
        refined = st.toggle(
            _("Follow the photo's edges"), key="refined", help=_("Draws the outline along the edges of the photo.")
        )
        hard = st.toggle(_("Sharp outline"), key="hard", help=_("Each pixel is kept or removed, nothing in between."))
        threshold = st.slider(
            _("Threshold"),
            0.05,
            0.95,
            0.5,
            0.05,
            key="threshold",
            help=_("How sure the network has to be that a pixel is a person: for the sharp outline and the scores."),
        )
    return Finish(background=background, refined=refined, hard=hard, threshold=threshold)


def _choose_background() -> Background | None:
    names = {"none": _("Transparent"), "colour": _("Colour"), "blur": _("Blur"), "picture": _("Picture")}
    kind = st.segmented_control(
        _("Background"),
        names,
        format_func=names.__getitem__,
        key="kind",
        default="none",
        required=True,
        width="stretch",
    )
    if kind == "colour":
        red, green, blue = ImageColor.getrgb(
            st.color_picker(_("Colour"), "#ffffff", key="colour", persist_state="session")
        )[:3]
        return Colour((red, green, blue))
    if kind == "blur":
        percent = st.slider(
            _("Strength"), 0.5, 10.0, BLUR, 0.5, "%.1f %%", key="blur", persist_state="session",
            help=_("In percent of the diagonal."),
        )  # fmt: skip
        return Blur(percent)
    if kind == "picture":
        return _choose_picture()
    return None


def _choose_picture() -> Background | None:
    file = st.file_uploader(_("Picture"), TYPES, key="picture", label_visibility="collapsed")
    if file is None:
        return None
    try:
        return read_picture(to_upload(file))
    except ImageError as error:
        show_unreadable(file.name, error)
        return None
