"""The folder of an export: its files appear whole and all together, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cache.atomic import sync_directory, sync_tree
from export.config import CARD, FILES, ExportConfig, ExportError
from preprocess.interrupt import deferred_interrupt


def check_free(config: ExportConfig) -> None:
    """Refuse to write over what is there, unless that is wanted.

    Raises:
        ExportError: a file has one of the names, or `out` is one itself.
    """
    if config.out.exists() and not config.out.is_dir():
        raise ExportError(f"out={config.out} is to be a folder, not a file; choose another --out")
    there = [name for name in config.names if (config.out / name).exists()]
    if there and not config.overwrite:
        raise ExportError(
            f"{config.out} has {' and '.join(there)} already; put new ones in their place with --overwrite, "
            "or choose another --out"
        )


def older_files(config: ExportConfig) -> tuple[str, ...]:
    """Say which files of an earlier export stay beside the new ones: the new card is not about them."""
    older = [name for name in FILES.values() if name not in config.names and (config.out / name).exists()]
    return tuple(f"{name} in {config.out} is of an earlier export, and the card is not about it" for name in older)


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """Give a folder within `out` to write into; it goes away with what is still in it, and `out` too if it is new.

    Raises:
        ExportError: it cannot be made, or written to.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    except OSError as error:
        raise ExportError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    try:
        yield place
    except OSError as error:
        raise ExportError(
            f"cannot write to {out}: {error.strerror or error}; free some space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # where it is not empty, it is done
                out.rmdir()


def commit(place: Path, out: Path, names: Sequence[str]) -> None:
    """Move files from the workplace to where they belong. The card comes last: it never describes other files."""
    sync_tree(place)
    with deferred_interrupt():
        (out / CARD).unlink(missing_ok=True)
        for name in names:
            (place / name).replace(out / name)
        sync_directory(out)
