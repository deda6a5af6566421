"""What is downloaded: a PNG, or all of them in a ZIP; made when it is asked for."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePath

import streamlit as st

from webpage.language import _
from webpage.photo import Finish, SeenPhoto, make_png


def offer_downloads(photo: SeenPhoto, photos: Sequence[SeenPhoto], finish: Finish) -> None:
    """Show the buttons: one for the photo that is looked at, one for all of them if there are several."""
    names = result_names([each.upload.name for each in photos])
    results = dict(zip(names, photos, strict=True))
    st.download_button(
        _("Download PNG"), partial(make_png, photo, finish), names[photos.index(photo)], "image/png",
        key="download", on_click="ignore", type="primary", icon=":material/download:", width="stretch",
    )  # fmt: skip
    if len(photos) > 1:
        st.download_button(
            _("Download all {count} as ZIP", count=len(photos)), partial(make_zip, results, finish),
            "maskcache.zip", "application/zip",
            key="download-all", on_click="ignore", icon=":material/folder_zip:", width="stretch",
        )  # fmt: skip


def result_names(photos: Sequence[str]) -> list[str]:
    """Name the results as their photos are called, with a number where two would be called the same."""
    names: list[str] = []
    for photo in photos:
        stem = PurePath(photo).stem or "photo"
        name, number = f"{stem}.png", 1
        while name in names:
            number += 1
            name = f"{stem} ({number}).png"
        names.append(name)
    return names


def make_zip(results: Mapping[str, SeenPhoto], finish: Finish) -> bytes:
    """Make results and put them into a ZIP, by the names of their files; stored, for a PNG does not get smaller."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, photo in results.items():
            archive.writestr(name, make_png(photo, finish))
    return buffer.getvalue()
