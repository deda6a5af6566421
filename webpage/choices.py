"""What the user gives, chooses and takes away: photos, background and outline, and the results as PNG or ZIP."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePath

import streamlit as st
from PIL import ImageColor
from streamlit.runtime.uploaded_file_manager import UploadedFile

from predict.background import BLUR, Background, Blur, Colour
from predict.mask import Finish
from preprocess.errors import ImageError
from preprocess.image import SUFFIXES
from webpage.photo import SeenPhoto, Upload, make_png
from webpage.session import _, choose, read_picture, show_unreadable

MOST_PHOTOS = 20
"""Photos that the page takes at a time, see `webpage.server`."""

# Streamlit would copy all files of a widget in every run of the page, and leave the copies to the collector of garbage.
UploadedFile.__deepcopy__ = lambda file, _memo: file  # type: ignore[attr-defined]

TYPES = sorted(suffix.removeprefix(".") for suffix in SUFFIXES)


def take_photos() -> list[Upload]:
    """Let photos be dropped, chosen or taken, and return them."""
    files_tab, camera_tab = st.tabs([_("Files"), _("Camera")], key="source", on_change="rerun")
    with files_tab:
        files = st.file_uploader(
            _("Photos"), TYPES, accept_multiple_files=True, key="photos", label_visibility="collapsed"
        )
    if camera_tab.open:  # or the camera would be asked for at once
        with camera_tab:
            st.session_state["shot"] = st.camera_input(_("Take a photo"), key="camera", label_visibility="collapsed")
    uploads = [*map(to_upload, files)]
    shot: UploadedFile | None = st.session_state.get("shot")
    if shot:
        uploads.append(to_upload(shot)._replace(name=_("camera") + ".jpg"))
    if len(uploads) > MOST_PHOTOS:
        st.warning(_("These are more than {most} photos: the first {most} are taken.", most=MOST_PHOTOS))
    return uploads[:MOST_PHOTOS]


def to_upload(file: UploadedFile) -> Upload:
    """A file that the browser sent."""
    return Upload(file.file_id, file.name, file.getvalue())


def choose_finish(usual: float) -> Finish:
    """Let the background be chosen, and how the mask is drawn; `usual` is the network's threshold."""
    background = _choose_background()
    with st.expander(_("More"), key="more"):
        hard = st.toggle(_("Sharp outline"), key="hard", help=_("Each pixel is kept or removed, nothing in between."))
        sure = _("How sure the network has to be to keep a pixel.")
        start, key = min(0.95, max(0.05, usual)), f"threshold of {usual}"  # another network begins at its own
        threshold = st.slider(_("Threshold"), 0.05, 0.95, start, 0.01, key=key, help=sure)
    return Finish(background=background, hard=hard, threshold=threshold)


def _choose_background() -> Background | None:
    names = {"none": _("Transparent"), "colour": _("Colour"), "blur": _("Blur"), "picture": _("Picture")}
    kind = choose(_("Background"), names, key="kind", default="none", width="stretch")
    if kind == "colour":
        chosen = st.color_picker(_("Colour"), "#ffffff", key="colour", persist_state="session")
        red, green, blue = ImageColor.getrgb(chosen)[:3]
        return Colour((red, green, blue))
    if kind == "blur":
        unit = _("In percent of the diagonal.")
        return Blur(
            st.slider(_("Strength"), 0.5, 10.0, BLUR, 0.5, "%.1f %%", key="blur", persist_state="session", help=unit)
        )
    if kind == "picture":
        file = st.file_uploader(_("Picture"), TYPES, key="picture", label_visibility="collapsed")
        if file is None:
            return None
        try:
            return read_picture(to_upload(file))
        except ImageError as error:
            show_unreadable(file.name, error)
    return None


def offer_downloads(photo: SeenPhoto, photos: Sequence[SeenPhoto], finish: Finish) -> None:
    """Show a button for the photo that is shown, and one for all photos if there are several."""
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
    """Name the results as their photos are called, with a number where some system takes two for the same.

    What a system has another use for in names, or does not show, is replaced, and no name is too long for one.
    """
    names: dict[str, str] = {}
    for photo in photos:
        shown = "".join(each if each.isprintable() else "_" for each in PurePath(photo).stem)
        stem = re.sub(r'[\\/:*?"<>|]', "_", shown).encode("utf-8", "replace")[:200].decode("utf-8", "ignore") or "photo"
        name, number = f"{stem}.png", 1
        while name.casefold() in names:
            number += 1
            name = f"{stem} ({number}).png"
        names[name.casefold()] = name
    return [*names.values()]


def make_zip(results: Mapping[str, SeenPhoto], finish: Finish) -> bytes:
    """Make results and put them into a ZIP, by the names of their files; stored, for a PNG does not get smaller."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, photo in results.items():
            archive.writestr(name, make_png(photo, finish))
    return buffer.getvalue()
