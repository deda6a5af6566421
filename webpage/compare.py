"""Two pictures on top of each other, and a line between them to move: by pointer, finger or arrow keys.

A range input, which every browser makes usable by keys and readable aloud, lies invisibly over the pictures. Pointers
are followed here: a range's own knob would have to be hit first, and is off the pointer near the ends.
"""

from __future__ import annotations

import streamlit as st

_HTML = """
<figure class="compare">
  <img class="before" draggable="false"><img class="after" draggable="false">
  <span class="name before-name"></span><span class="name after-name"></span>
  <span class="line"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M9 6l-6 6 6 6M15 6l6 6-6 6"/></svg></span>
  <input type="range" min="0" max="100" value="50" step="1">
</figure>
"""

_CSS = """
.compare {
  --at: 50%; position: relative; margin: 0 auto; overflow: hidden; border-radius: var(--st-base-radius, .75rem);
  width: min(100%, var(--widest)); aspect-ratio: var(--ratio); background: var(--st-secondary-background-color);
  cursor: ew-resize; touch-action: pan-y; user-select: none; -webkit-user-select: none;
}
img { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.after { clip-path: inset(0 0 0 var(--at)); }
.name {
  position: absolute; top: .75rem; padding: .2rem .6rem; border-radius: 1rem; background: rgb(0 0 0 / .6); color: #fff;
  font: 600 .75rem/1.3 var(--st-font), sans-serif; pointer-events: none;
}
.before-name { left: .75rem; }
.after-name { right: .75rem; }
.line {
  position: absolute; top: 0; bottom: 0; left: var(--at); width: 3px; margin-left: -1.5px; background: #fff;
  box-shadow: 0 0 6px rgb(0 0 0 / .45); pointer-events: none;
}
.line svg {
  position: absolute; top: 50%; left: 50%; width: 2.75rem; height: 2.75rem; padding: .6rem; box-sizing: border-box;
  transform: translate(-50%, -50%); border-radius: 50%; background: #fff; box-shadow: 0 1px 6px rgb(0 0 0 / .4);
  fill: none; stroke: #1c2126; stroke-width: 2.5; stroke-linecap: round; stroke-linejoin: round;
}
input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; pointer-events: none; }
.compare:has(input:focus-visible) { outline: 3px solid var(--st-primary-color); outline-offset: 2px; }
"""

_JS = """
export default function ({ parentElement, data }) {
  const figure = parentElement.querySelector(".compare");
  const range = figure.querySelector("input");
  const set = (name, value) => figure.style.setProperty(name, value);
  const show = () => {
    set("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} %`);
  };
  const follow = (event) => {
    const place = figure.getBoundingClientRect();
    range.value = (100 * (event.clientX - place.left)) / place.width;
    show();
  };
  for (const which of ["before", "after"]) {
    const image = figure.querySelector(`img.${which}`);
    if (image.src !== data[which]) image.src = data[which];
    image.alt = data[`${which}Name`];
    figure.querySelector(`.${which}-name`).textContent = data[`${which}Name`];
  }
  set("--ratio", data.width / data.height);
  set("--widest", `calc(min(54vh, 44rem) * ${data.width / data.height})`);
  range.setAttribute("aria-label", data.label);
  range.oninput = show;
  figure.onmousedown = (event) => event.preventDefault(); // or the browser would give the focus away again
  figure.onpointerdown = (event) => {
    figure.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    follow(event);
  };
  figure.onpointermove = (event) => {
    if (figure.hasPointerCapture(event.pointerId)) follow(event);
  };
  show();
}
"""


def compare(before: str, after: str, *, size: tuple[int, int], names: tuple[str, str], label: str, key: str) -> None:
    """Show two pictures of the same size.

    Args:
        before, after: their URLs; the first is seen to the left of the line.
        size: width and height, in any unit.
        names: what is written over them.
        label: of the line, for those who hear the page.
        key: of the place on the page; the line stays where it is when the pictures change.
    """
    component = st.components.v2.component("compare", html=_HTML, css=_CSS, js=_JS)
    component(
        key=key,
        data={
            "before": before,
            "after": after,
            "beforeName": names[0],
            "afterName": names[1],
            "width": size[0],
            "height": size[1],
            "label": label,
        },
    )
