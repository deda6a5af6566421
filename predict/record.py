"""The record in a result's metadata of how it was made, so that no result of other options counts as done.

It is written with the file, in one rename, and moves with it: whenever a run is killed, and however many runs share a
folder, each result says itself what it is. A PNG has it as the text `comment`, a JPEG and a video as their comment.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from cache.files import file_digest
from cache.messages import joined, message
from predict.background import Background, Blur, Colour
from predict.config import PredictConfig, PredictError
from predict.photo import read_comment
from predict.plan import Plan, is_video
from preprocess.image import quiet_pillow


class FileState(NamedTuple):
    """State of a file, which changes when it is written anew: its size in bytes, and when that was in nanoseconds."""

    size: int
    written: int


class Option(NamedTuple):
    """The value of an option; of a file a digest of its content, and its name for people."""

    value: str
    file: str = ""

    def __str__(self) -> str:
        """The value for people: `red`, or `beach.jpg (sha256 1f2e3d4c5b6a7988)`."""
        return f"{self.file} (sha256 {self.value})" if self.file else self.value


Options = dict[str, Option]
"""Options by their flag, of which the checkpoint's keeps its first spelling, `--model`, on disk."""

_EARLIER: Options = {"--tiles": Option("1"), "--soft": Option("yes")}
"""What options stand for that a record lacks: releases without them looked once, and took the probability as alpha."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """How one result was made."""

    source: FileState | None  # of the photo or video when it was read; None: it came from standard input
    options: Options  # what decided the result
    maskcache: Literal[1] = 1  # version of this record

    def to_text(self) -> str:
        """The record as JSON, in ASCII."""
        return json.dumps(dataclasses.asdict(self))


def file_state(path: Path | None) -> FileState | None:
    """The state of a file; None for standard input, and where there is no file."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return FileState(found.st_size, found.st_mtime_ns) if found else None


def decisive_options(config: PredictConfig, background: Background | None, side: int, precision: str) -> Options:
    """The options that decide a photo's result; `side` and `precision` are the network's.

    The others decide the file's suffix (`--format`, `--video-format`), only what is reported (`--threshold` with
    `--soft`), or no more than rounding (`--batch-size`, `--device`, `--threads`).
    """
    options = {"--model": _content(config.checkpoint), "--as": Option(config.kind)}
    match background:
        case Colour(rgb):
            options["--background"] = Option("#{:02x}{:02x}{:02x}".format(*rgb))
        case Blur(percent):
            options["--background"] = Option(f"blur:{percent:g}")
        case _ if config.background is not None:
            options["--background"] = _content(Path(config.background))
    options["--hard"] = Option("yes" if config.hard else "no")
    options["--soft"] = Option("yes" if config.soft else "no")
    if not config.soft:
        options["--threshold"] = Option(str(config.threshold))
    options["--tiles"] = Option(str(config.tiles))
    return {**options, "--side": Option(str(side)), "--precision": Option(precision)}


def _content(path: Path) -> Option:
    """A file's content: 64 bits of its digest, against accidents."""
    return Option(file_digest(path)[:16], path.name)


def video_options(config: PredictConfig, options: Options) -> Options:
    """The options that decide a video's result: those of a photo, never with tiles, and one more."""
    return {**options, "--tiles": Option("1"), "--smooth": Option(str(config.smooth))}


def check_made(config: PredictConfig, plan: Plan, options: Options) -> None:
    """Raise a `PredictError` if results were made otherwise than is asked for now: with all that differs, and where."""
    others: dict[str, list[Path]] = {}
    with quiet_pillow():
        for jobs, wanted in ((plan.photos, options), (plan.videos, video_options(config, options))):
            for job in jobs:
                if job.skip and job.output:
                    for difference in _differences(job.source, job.output, wanted):
                        others.setdefault(difference, []).append(job.output)
    reasons = []
    for difference, (file, *more) in others.items():
        files = message("{file} and {count:,} more", file=file, count=len(more)) if more else str(file)
        reasons.append(message("{difference} ({files})", difference=difference, files=files))
    if reasons:
        raise PredictError(
            "{out} holds results that were made otherwise: {reasons}; use another --out, or --overwrite to "
            "make all of them anew",
            out=config.out,
            reasons=joined("; ", reasons),
        )


def _differences(source: Path | None, output: Path, options: Options) -> Iterator[str]:
    record = _read(output)
    if record is None:
        yield message("without a record of how, as by another program or an older release")
        return
    for flag, new in options.items():
        old = record.options.get(flag, _EARLIER.get(flag, new))
        if old.value != new.value:
            flag = "--checkpoint" if flag == "--model" else flag
            yield message("{flag}: {old}, not {new}", flag=flag, old=str(old), new=str(new))
    if source is None or record.source is None:
        yield message("of standard input, where there may be another photo now")
    elif record.source != file_state(source):
        yield message("of another input, or of one that has changed since")


def _read(path: Path) -> Record | None:
    """The record of a result; None if it has none."""
    try:
        if is_video(path):
            from predict.video.sink import read_comment as read_video_comment  # needs the optional package av

            return msgspec.json.decode(read_video_comment(path), type=Record)
        return msgspec.json.decode(read_comment(path), type=Record)
    except Exception:  # whatever a decoder makes of a file that is not ours: Pillow promises no kind of error
        return None
