"""What the templates in `templates/` make of a report: text for people, whose words `_` translates as everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from rich.cells import cell_len

from cache.messages import listed, message
from cache.spec import things
from console.language import _, ngettext, translated
from console.text import bulleted, count, duration, figure, files, images, photos, rejected, shards, size, underlined

TEMPLATES = Path(__file__).parent / "templates"

_WORDS: tuple[Callable[..., Any], ...] = (_, message, ngettext, translated, listed, things)
_COUNTS = (count, files, images, photos, rejected, shards)
_FUNCTIONS = (*_WORDS, *_COUNTS, bulleted, cell_len, duration, figure, size, underlined, vars)


@cache
def template(name: str, *functions: Callable[..., Any]) -> jinja2.Template:
    """A template, which may call these functions by their names."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {function.__name__: function for function in functions}
    return environment.get_template(name)


def rendered(name: str, **values: Any) -> list[str]:
    """The lines of a report, by `templates/NAME.txt.j2`."""
    return template(f"{name}.txt.j2", *_FUNCTIONS).render(values).removesuffix("\n").split("\n")
