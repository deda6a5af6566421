"""What a browser's session keeps: its language, its photos, each seen once by the chosen network, its background."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from cache.messages import Message
from console.language import ENGLISH, LANGUAGES, catalogue, translate
from predict.background import Picture
from predict.photo import decode_photo
from preprocess.errors import ImageError
from train.predictor import Predictor
from webpage.photo import WHOLE, SeenPhoto, Upload, see, shrink

KEY = "language"
"""Where the session's state has it."""

LANGUAGE_NAMES = {ENGLISH: "English", "es": "Español"}


def _(template: str, /, **values: object) -> str:
    """The message in the language of this session."""
    return translated(Message(template, **values))


def translated(text: str | BaseException) -> str:
    """A message, or what an error says, in the language of this session."""
    return translate(text, catalogue(spoken()).gettext)


def spoken() -> str:
    """The language of this session: the one that was chosen, else the browser's, else English."""
    chosen: str | None = st.session_state.get(KEY)
    return chosen or browsers()


def browsers() -> str:
    """The browser's language, if the page has it; else English."""
    language = (st.context.locale or "").partition("-")[0]
    return language if language in LANGUAGES else ENGLISH


def choose(label: str, names: Mapping[str, str], *, key: str, default: str, **look: Any) -> str:
    """Let one of several things be chosen by their names; one always is."""
    chosen: str | None = st.segmented_control(
        label, names, format_func=names.__getitem__, key=key, default=default, required=True, **look
    )
    return chosen or default


def see_photos(uploads: Sequence[Upload], predictor: Predictor) -> list[SeenPhoto]:
    """Show those photos to the network that it has not seen yet, and forget those that are gone.

    Files that are not photos are left out, and named on the page.
    """
    state = st.session_state
    before: dict[str, SeenPhoto | ImageError] = state.get("seen", {})
    if state.get("seen by") is not predictor:
        before = {}
    seen = {upload.key: before[upload.key] for upload in uploads if upload.key in before}
    # Kept from now on: who uses a widget meanwhile stops this run, and the next one goes on from here.
    state["seen"], state["seen by"] = seen, predictor
    waiting = [upload for upload in uploads if upload.key not in seen]
    bar = st.empty()
    for number, upload in enumerate(waiting):
        text = _("{name}: {number} of {total}", name=upload.name, number=number + 1, total=len(waiting))
        bar.progress(number / len(waiting), literal(text))
        try:
            with WHOLE:
                seen[upload.key] = see(upload, predictor)
        except ImageError as error:
            seen[upload.key] = error
    bar.empty()
    for upload in uploads:
        outcome = seen[upload.key]
        if isinstance(outcome, ImageError):
            show_unreadable(upload.name, outcome)
    return [photo for photo in (seen[upload.key] for upload in uploads) if isinstance(photo, SeenPhoto)]


def show_unreadable(name: str, error: ImageError) -> None:
    """Say that a file is no picture, and why."""
    text = _("{name} cannot be read: {reason}", name=name, reason=translated(error))
    st.error(literal(text), icon=":material/broken_image:")


def literal(text: str) -> str:
    """Markdown that shows a text as it is: a file may be called anything."""
    return re.sub(r"([!-/:-@[-`{-~])", r"\\\1", text)


def read_picture(upload: Upload) -> Picture:
    """Decode a picture for the background, once for all runs of the page.

    Raises `ImageError`: see `predict.photo.decode_photo`.
    """
    state = st.session_state
    if state.get("picture key") != upload.key:
        with WHOLE:
            state["picture pixels"] = shrink(decode_photo(upload.data).pixels, 4096)  # 50 MB at most
        state["picture key"] = upload.key
    return Picture(state["picture pixels"])
