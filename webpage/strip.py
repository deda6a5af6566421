"""Small pictures in a row, of which one is chosen: radio buttons, to the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

_HTML = """<div class="strip" role="radiogroup"></div>"""

_CSS = """
.strip { display: flex; gap: .5rem; overflow-x: auto; padding: 4px; scrollbar-width: thin; }
label { flex: none; width: 4.5rem; cursor: pointer; }
input { position: absolute; opacity: 0; width: 0; height: 0; }
.picture {
  display: block; height: 4.5rem; border-radius: .6rem;
  background: var(--st-secondary-background-color) center / cover;
  box-shadow: inset 0 0 0 1px var(--st-border-color);
}
.name {
  display: block; margin-top: .25rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  font: .75rem/1.3 var(--st-font), sans-serif; color: var(--st-text-color); text-align: center;
}
input:checked + .picture { outline: 3px solid var(--st-primary-color); }
input:checked ~ .name { font-weight: 600; }
input:focus-visible + .picture { outline: 3px solid var(--st-primary-color); outline-offset: 1px; }
"""

_JS = """
export default function ({ parentElement, data, setStateValue }) {
  const strip = parentElement.querySelector(".strip");
  strip.setAttribute("aria-label", data.label);
  strip.replaceChildren(...data.pictures.map(({ key, name, url }) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio", name: "strip", value: key, checked: key === data.chosen,
    });
    const picture = Object.assign(document.createElement("span"), { className: "picture" });
    picture.style.backgroundImage = `url(${url})`;
    const text = Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name });
    input.onchange = () => setStateValue("chosen", key);
    label.append(input, picture, text);
    return label;
  }));
}
"""


class Small(NamedTuple):
    """A small picture.

    Attributes:
        key: to choose it by.
        name: what stands below it.
        url: of the picture.
    """

    key: str
    name: str
    url: str


def strip(pictures: Sequence[Small], *, label: str, key: str) -> str:
    """Show some pictures, and give the key of the chosen one; the first, if there is no such any more."""
    keys = [picture.key for picture in pictures]
    before = st.session_state.get(key, {}).get("chosen")
    chosen = before if before in keys else keys[0]
    component = st.components.v2.component("strip", html=_HTML, css=_CSS, js=_JS)
    component(
        key=key,
        data={"label": label, "chosen": chosen, "pictures": [picture._asdict() for picture in pictures]},
        on_chosen_change=lambda: None,
    )
    return chosen
