"""What the log of `cache.kernel` says, for people: where compiled kernels are kept, if not where they should be."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from console.language import _
from console.sentences import translated
from console.text import tell


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell(_("   Note: {note}").format(note=translated(record.getMessage())))


@contextmanager
def kernel_notes() -> Iterator[None]:
    """Within the block, print them on standard error in the language in use."""
    log, handler = logging.getLogger("cache.kernel"), _Handler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
