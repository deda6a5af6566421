"""What a command prints for programs."""

from __future__ import annotations

import json
from typing import Any

import click


def as_json_text(value: Any) -> str:
    """Dataclasses, structs, paths and what they hold, as indented JSON."""
    import msgspec

    return json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=1)


def show_json(value: Any) -> None:
    """Print it as JSON."""
    click.echo(as_json_text(value))
