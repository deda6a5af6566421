"""Asking once: yes or no, in the language in use."""

from __future__ import annotations

import sys

import click

from console.language import _


def confirmed(question: str, *, default: bool) -> bool:
    """Ask until the answer is yes or no; an empty one is the default. English answers are always understood.

    Raises:
        click.Abort: there is nobody to answer.
    """
    yes, no = _("y"), _("n")
    hint = f"{yes.upper()}/{no}" if default else f"{yes}/{no.upper()}"
    while True:
        answer = click.prompt(f"{question} [{hint}]", default="", show_default=False)
        word = answer.strip().casefold()
        if not word:
            return default
        if word in (yes, _("yes"), "y", "yes"):
            return True
        if word in (no, _("no"), "n", "no"):
            return False
        print(_("Please answer {yes} or {no}.", yes=yes, no=no), file=sys.stderr)
