"""The head of the page with its style, language and network, and the four scores of a mask at its end."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

import streamlit as st

from console.quality import LABELS
from predict.config import CHECKPOINTS, SAMPLE, find_checkpoints
from predict.run import kept_predictor
from preprocess.check.quality import NAMES, QualityScores, QualityThresholds
from train.predictor import Predictor
from webpage.choices import MOST_PHOTOS
from webpage.session import KEY, LANGUAGE_NAMES, _, browsers, choose, literal, translated

VARIABLE = "MASKCACHE_MODEL"
"""The environment variable that names the checkpoint that the page begins with."""

_DEMO = "data/*/run/checkpoints/best_model.pth"
"""Where `make demo` writes checkpoints, below the working folder."""

_STYLE = Path(__file__).parent / "assets" / "page.css"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_THRESHOLDS = QualityThresholds()


def show_header(folder: Path) -> Path:
    """Show the head of the page, and return the checkpoint chosen among the runs of a folder and the sample."""
    st.set_page_config(page_title="maskcache", page_icon="✂️", layout="wide")
    found = known_checkpoints(folder)
    with st.container(
        key="header", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", wrap=False
    ):
        title = st.container(gap=None)
        with st.popover("", icon=":material/tune:", key="settings", help=_("Language and network")):
            choose(_("Language"), LANGUAGE_NAMES, key=KEY, default=browsers(), width="stretch")
            path = _choose_checkpoint(found)
    show_style()
    with title:
        st.title(_("Remove backgrounds"), anchor=False)
        st.caption(_("Photos stay on the computer that runs this page."))
    return path


def _choose_checkpoint(found: list[Path]) -> Path:
    # Whoever comes over the network is not to try what files there are.
    local = st.get_option("server.address") in _LOCAL
    names = {str(SAMPLE): _("Sample network")}
    typed = _("The best_model.pth of a run, the newest first. The path of another one can be typed.")
    chosen = st.selectbox(
        _("Network"),
        [str(path) for path in found],
        key="checkpoint",
        format_func=lambda path: names.get(path, path.removesuffix("/checkpoints/best_model.pth")),
        accept_new_options=local,
        placeholder=_("Path of a best_model.pth"),
        help=typed if local else None,
    )
    return Path(chosen or found[0])


def known_checkpoints(folder: Path) -> list[Path]:
    """The one that `MASKCACHE_MODEL` names, those of the runs below a folder, the newest first, and the sample."""
    named = os.environ.get(VARIABLE)
    known = [path.relative_to(folder) for path in find_checkpoints(folder, CHECKPOINTS, _DEMO)]
    return list(dict.fromkeys([*([Path(named)] if named else []), *known, SAMPLE]))


def open_network(path: Path) -> Predictor | None:
    """Give the network of a checkpoint; if that cannot be had, say on the page why, and what to do."""
    if path == SAMPLE:
        st.caption(_("This is a small sample network; one that you train on more photos makes better masks."))
    try:
        return kept_predictor(path, None)
    except (ValueError, OSError) as error:  # CheckpointError and HardwareError are ValueErrors
        st.error(_("This network cannot be used; choose another one in the settings above."), icon=":material/error:")
        st.caption(literal(translated(error)))
        return None


def show_style() -> None:
    """Put the style sheet on the page; it also replaces Streamlit's own texts, which are English in every language."""
    megabytes = st.get_option("server.maxUploadSize")
    button = "[data-testid=stFileUploaderDropzone] button p"
    limit = "[data-testid=stFileUploaderDropzoneInstructions] span"
    camera = ".st-key-camera [data-testid=stCameraInputWebcamComponent] p"
    words = {
        f".st-key-photos {button}": _("Choose photos"),
        f".st-key-photos {limit}": _(
            "or drop them here, up to {most} of {megabytes} MB each", most=MOST_PHOTOS, megabytes=megabytes
        ),
        camera: _("Allow the camera in the browser. From another device that works over https alone."),
        ".st-key-camera div:has(> video) ~ button": _("Take the photo"),
        ".st-key-camera div:has(> img) ~ button": _("Take another one"),
        f".st-key-picture {button}": _("Choose a picture"),
        f".st-key-picture {limit}": _("up to {megabytes} MB", megabytes=megabytes),
    }
    rules = [
        f"{place} {{ font-size: 0; }}\n"
        f"{place}::after {{ content: {json.dumps(text, ensure_ascii=False)}; font-size: .9rem; }}"
        for place, text in words.items()
    ]
    st.html("\n".join(["<style>", _STYLE.read_text(encoding="utf-8"), *rules, "</style>"]))


def show_scores(scores: QualityScores) -> None:
    """Show scores as bars with a mark at each threshold, and what helps where a score is below it."""
    below = _THRESHOLDS.missed_by(scores.to_dict())
    st.html(f'<div class="scores">{"".join(_tile(name, scores, low=name in below) for name in NAMES)}</div>')


def _tile(name: str, scores: QualityScores, *, low: bool) -> str:
    title, hint = _(LABELS[name]).capitalize(), _hints()[name]
    value, threshold = getattr(scores, name), getattr(_THRESHOLDS, name)
    goal = _("at least {threshold:.0f}", threshold=threshold)
    return (
        f'<div class="score{" low" if low else ""}"><span class="title">{html.escape(title)}</span>'
        f'<span class="value">{value:.0f}</span> <span class="goal">{html.escape(goal)}</span>'
        f'<span class="bar"><i style="width: {value:.1f}%"></i><b style="left: {threshold:.1f}%"></b></span>'
        + (f'<span class="hint">{html.escape(hint)}</span>' if low else "")
        + "</div>"
    )


def _hints() -> dict[str, str]:
    """What helps where a score is low."""
    return {
        "coverage": _("The subject takes up little of the photo: go closer, or crop it."),
        "contrast": _("Subject and background have much the same colours: a plainer background or more light helps."),
        "edge": _("The outline does not follow the edges of the photo: look at it closely, and try More."),
        "resolution": _("The subject is few pixels wide: a larger photo gives a finer outline."),
    }
