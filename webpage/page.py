"""The web page: photos in, cutouts without their backgrounds out, on this machine alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cache.machine import settle
from cache.messages import install
from console.language import PAGE, _, chosen, speaking

try:
    import streamlit as st
    from streamlit.runtime.scriptrunner import get_script_run_ctx
except ImportError:
    with speaking(chosen((), os.environ)):
        sys.exit(_("error: the page wants the package streamlit; {install}", install=install("app")))
else:
    settle()

from webpage.choices import choose_finish, offer_downloads, take_photos
from webpage.header import open_network, show_header, show_scores
from webpage.session import see_photos
from webpage.view import choose_photo, show_photo


def show_page() -> None:
    """One run of the page, from top to bottom: the server makes one whenever a widget is used."""
    if get_script_run_ctx(suppress_warning=True) is None:
        with speaking(chosen((), os.environ)):
            sys.exit(_("error: the page wants a server; {command}", command=PAGE))
    path = show_header(Path.cwd())
    trained = open_network(path)
    if trained is None:
        return
    uploads = take_photos()
    photos = see_photos(uploads, trained)
    if not photos:
        return
    with st.container(key="work"):
        left, right = st.columns([5, 3], gap="large")
    with left:
        photo = choose_photo(photos)
    with right:
        finish = choose_finish(trained.threshold)
        offer_downloads(photo, photos, finish)
    with left:
        scores = show_photo(photo, finish, trained)
    show_scores(scores)


def main() -> None:
    """The command `maskcache-page`: start the server of the page. Its options are those of `streamlit run`."""
    from streamlit.web.cli import main as serve

    serve(["run", str(Path(__file__).with_name("server.py")), *sys.argv[1:]])


if __name__ == "__main__":
    show_page()
