"""How the page looks where `.streamlit/config.toml` does not reach, and words for those that Streamlit brings along."""

from __future__ import annotations

import json
from pathlib import Path

import streamlit as st

from webpage.language import _

_STYLE = Path(__file__).parent / "assets" / "page.css"


def show_style() -> None:
    """Put the style sheet on the page; it also replaces Streamlit's own texts, which are English in every language."""
    megabytes = st.get_option("server.maxUploadSize")
    button = "[data-testid=stFileUploaderDropzone] button p"
    limit = "[data-testid=stFileUploaderDropzoneInstructions] span"
    camera = ".st-key-camera [data-testid=stCameraInputWebcamComponent] p"
    many = _("or drop them here, up to {megabytes} MB each", megabytes=megabytes)
    one = _("up to {megabytes} MB", megabytes=megabytes)
    words = {
        f".st-key-photos {button}": _("Choose photos"),
        f".st-key-photos {limit}": many,
        camera: _("Allow the camera in the browser. From another device that works over https alone."),
        ".st-key-camera div:has(> video) ~ button": _("Take the photo"),
        ".st-key-camera div:has(> img) ~ button": _("Take another one"),
        f".st-key-picture {button}": _("Choose a picture"),
        f".st-key-picture {limit}": one,
    }
    rules = [
        f"{place} {{ font-size: 0; }}\n"
        f"{place}::after {{ content: {json.dumps(text, ensure_ascii=False)}; font-size: .9rem; }}"
        for place, text in words.items()
    ]
    st.html("\n".join(["<style>", _STYLE.read_text(encoding="utf-8"), *rules, "</style>"]))
