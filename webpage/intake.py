"""Where photos come from: files and the camera."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from predict.photo import SUFFIXES
from webpage.language import _
from webpage.photo import Upload

MOST_PHOTOS = 20
"""Photos that the page takes at a time: each keeps its file and some 5 MB in memory."""

TYPES = sorted(suffix.removeprefix(".") for suffix in SUFFIXES)


def take_photos() -> list[Upload]:
    """Let photos be dropped, chosen or taken, and give them."""
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
        uploads.append(Upload(shot.file_id, f"{_('camera')}.jpg", shot.getvalue()))
    if len(uploads) > MOST_PHOTOS:
        st.warning(_("These are more than {most} photos: the first {most} are taken.", most=MOST_PHOTOS))
    return uploads[:MOST_PHOTOS]


def to_upload(file: UploadedFile) -> Upload:
    """A file that the browser sent."""
    return Upload(file.file_id, file.name, file.getvalue())
