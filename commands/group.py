"""The group of all commands: their order, their errors, Ctrl-C."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

_KEPT = {"preprocess": "Finished shards are", "download": "What is there is", "predict": "What is done is"}
"""What Ctrl-C leaves, by command."""


class FriendlyGroup(click.Group):
    """Turns the errors that a user can mend into one line; `MASKCACHE_TRACEBACK=1` shows where they come from."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """In the order of the road, not of the alphabet."""
        return list(self.commands)

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            kept = _KEPT.get(context.invoked_subcommand or "")
            click.echo("\nStopped." + (f" {kept} kept: the same command goes on." if kept else ""), err=True)
            sys.exit(130)
        except (ValueError, OSError) as error:
            if os.environ.get("MASKCACHE_TRACEBACK"):
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
