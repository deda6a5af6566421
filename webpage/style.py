"""How the page looks where `.streamlit/config.toml` does not reach, and words for those that Streamlit brings along."""

from __future__ import annotations

import json

import streamlit as st

from webpage.language import _

_STYLE = """
.stApp .stAppHeader { display: none; }
.stApp .stMainBlockContainer { max-width: 76rem; padding: 2.25rem 2rem 4rem; }
.stApp h1 { padding: 0 0 .9rem; font-size: 1.9rem; letter-spacing: -.01em; }

.stApp:not(:has(.st-key-work)) .st-key-photos section:has([data-testid=stFileUploaderDropzoneInstructions]) {
  flex-direction: column; justify-content: center; align-items: center; gap: .75rem; min-height: min(50vh, 24rem);
  border: 2px dashed color-mix(in srgb, currentColor 25%, transparent);
}
.stApp:not(:has(.st-key-work)) .st-key-photos [data-testid=stFileUploaderDropzoneInstructions] {
  flex: none; width: auto; margin: 0; align-self: center; text-align: center;
}
.st-key-camera { max-width: 40rem; }
.st-key-camera [data-testid=stCameraInputWebcamComponent] p { padding: 0 1.5rem; text-align: center; }
.st-key-camera [data-testid=stCameraInputWebcamComponent] p a { display: none; }

.scores { display: grid; grid-template-columns: repeat(4, 1fr); gap: .75rem; }
.score {
  padding: .7rem .9rem .8rem; border-radius: .6rem; border: 1px solid color-mix(in srgb, currentColor 14%, transparent);
}
.score .title, .score .hint, .score .goal { font-size: .8rem; line-height: 1.35; }
.score .title { display: block; font-weight: 600; }
.score .value { font-size: 1.5rem; font-weight: 600; line-height: 1.4; font-variant-numeric: tabular-nums; }
.score .goal { opacity: .7; }
.score .bar {
  display: block; position: relative; height: .35rem; border-radius: 1rem;
  background: color-mix(in srgb, currentColor 12%, transparent);
}
.score .bar i { display: block; height: 100%; border-radius: 1rem; background: #2b8a3e; }
.score.low .bar i { background: #d9730d; }
.score .bar b { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: currentColor; }
.score .hint { display: block; margin-top: .5rem; }

@media (max-width: 40rem) {
  .stApp .stMainBlockContainer { padding: 1.25rem 1rem 3rem; }
  .stApp h1 { font-size: 1.5rem; }
  .st-key-photos [data-testid=stFileChips] > div { flex-flow: row nowrap; overflow-x: auto; scrollbar-width: thin; }
  .st-key-photos [data-testid=stFileChips] > div > div { flex: none; width: auto; max-width: 12rem; }
  .stApp .st-key-work .stHorizontalBlock { gap: 1.25rem; }
  .scores { grid-template-columns: repeat(2, 1fr); }
}
"""

_WORDS = """
{place} {{ font-size: 0; }}
{place}::after {{ content: {text}; font-size: {size}; }}
"""
"""Puts a text in the place of Streamlit's own, which is English in every language."""


def show_style() -> None:
    """Put it on the page."""
    megabytes = st.get_option("server.maxUploadSize")
    button, limit = (
        "[data-testid=stFileUploaderDropzone] button p",
        "[data-testid=stFileUploaderDropzoneInstructions] span",
    )
    many = _("or drop them here, up to {megabytes} MB each").format(megabytes=megabytes)
    one = _("up to {megabytes} MB").format(megabytes=megabytes)
    words = {
        f".st-key-photos {button}": (_("Choose photos"), ".9rem"),
        f".st-key-photos {limit}": (many, ".875rem"),
        ".st-key-camera [data-testid=stCameraInputWebcamComponent] p": (
            _("Allow the camera in the browser. From another device that works over https alone."),
            ".9rem",
        ),
        ".st-key-camera div:has(> video) ~ button": (_("Take the photo"), ".9rem"),
        ".st-key-camera div:has(> img) ~ button": (_("Take another one"), ".9rem"),
        f".st-key-picture {button}": (_("Choose a picture"), ".9rem"),
        f".st-key-picture {limit}": (one, ".875rem"),
    }
    rules = [
        _WORDS.format(place=place, text=json.dumps(text, ensure_ascii=False), size=size)
        for place, (text, size) in words.items()
    ]
    st.html(f"<style>{_STYLE}{''.join(rules)}</style>")
