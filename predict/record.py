"""The record in a result's metadata of how it was made, so that no result of other options counts as done.

It is written with the file, in one rename, and moves with it: whenever a run is killed, and however many runs share a
folder, each result says itself what it is. A PNG has it as the text `comment`, a JPEG and a video as their comment.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from cache.files import file_digest
from cache.messages import joined, message
from predict.background import Background, Blur, Colour
from predict.config import PredictConfig, PredictError
from predict.photo import read_comment
from predict.plan import Plan
from predict.video.sink import is_video
from preprocess.image import quiet_pillow


class FileState(NamedTuple):
    """State of a file, which changes when it is written anew: its size in bytes, and when that was in nanoseconds."""

    size: int
    written: int


class Option(NamedTuple):
    """The value of an option.

    Attributes:
        value: the value; of a file a digest of its content.
        file: name of the file, for people; files of the same content count as the same.
    """

    value: str
    file: str = ""

    def __str__(self) -> str:
        """The value for people: `red`, or `beach.jpg (sha256 1f2e3d4c5b6a7988)`."""
        return f"{self.file} (sha256 {self.value})" if self.file else self.value


Options = dict[str, Option]
"""Options by their flag."""

_Difference = tuple[str, str, str]
"""Flag, old and new value of an option that differs; what else differs has a name of its own in place of the flag."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """How one result was made.

    Attributes:
        source: state of the photo or video when it was read; None: it came from standard input.
        options: what decided the result.
        maskcache: version of this record.
    """

    source: FileState | None
    options: Options
    maskcache: Literal[1] = 1

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
    """The options that decide a photo's result; see `video_options`.

    The others decide the file's suffix (`--format`, `--video-format`), only what is reported (`--threshold` without
    `--hard`), or no more than rounding (`--batch-size`, `--device`, `--threads`).

    Args:
        config: what is asked for.
        background: of a composite.
        side: of the network's square, pixels.
        precision: of the network.
    """
    options = {"--model": _content(config.model), "--as": Option(config.kind)}
    if config.background is not None:
        options["--background"] = _background(config.background, background)
    options["--hard"] = Option("yes" if config.hard else "no")
    if config.hard:
        options["--threshold"] = Option(str(config.threshold))
    options["--refine"] = Option("yes" if config.refine else "no")
    return {**options, "--side": Option(str(side)), "--precision": Option(precision)}


def video_options(config: PredictConfig, options: Options) -> Options:
    """The options that decide a video's result: those of a photo, and one more."""
    return {**options, "--smooth": Option(str(config.smooth))}


def check_made(config: PredictConfig, plan: Plan, options: Options) -> None:
    """Refuse to count a result as done that was not made as it is asked for now.

    Raises:
        PredictError: it names all that differs, and a file of each difference.
    """
    others: dict[_Difference, list[Path]] = {}
    with quiet_pillow():
        for jobs, wanted in ((plan.jobs, options), (plan.videos, video_options(config, options))):
            for job in jobs:
                if job.skip and job.output:
                    for difference in _differences(job.source, job.output, wanted):
                        others.setdefault(difference, []).append(job.output)
    if others:
        reasons = joined("; ", [_reason(difference, files) for difference, files in others.items()])
        raise PredictError(
            "{out} holds results that were made otherwise: {reasons}; use another --out, or --overwrite to "
            "make all of them anew",
            out=config.out,
            reasons=reasons,
        )


def _differences(source: Path | None, output: Path, options: Options) -> list[_Difference]:
    record = _read(output)
    if record is None:
        return [("unknown", "", "")]
    found = [
        (flag, str(record.options[flag]), str(option))
        for flag, option in options.items()
        if flag in record.options and record.options[flag].value != option.value
    ]
    if source is None or record.source is None:
        return [*found, ("stdin", "", "")]
    return found if record.source == file_state(source) else [*found, ("changed", "", "")]


def _reason(difference: _Difference, files: list[Path]) -> str:
    named = (
        message("{files} and {files_count:,} more", files=files[0], files_count=len(files) - 1)
        if len(files) > 1
        else str(files[0])
    )
    match difference:
        case ("unknown", _, _):
            return message("without a record of how, as by another program or an older release ({named})", named=named)
        case ("changed", _, _):
            return message("of another input, or of one that has changed since ({named})", named=named)
        case ("stdin", _, _):
            return message("of standard input, where there may be another photo now ({named})", named=named)
        case (flag, old, new):
            flag = {"--model": "--checkpoint"}.get(flag, flag)  # records keep the older spelling
            return message("{flag}: {old}, not {new} ({named})", flag=flag, old=old, new=new, named=named)


def _read(path: Path) -> Record | None:
    """The record of a result; None if it has none."""
    try:
        if is_video(path):
            from predict.video.sink import read_comment as read_video_comment  # wants the optional package av

            return msgspec.json.decode(read_video_comment(path), type=Record)
        return msgspec.json.decode(read_comment(path), type=Record)
    except Exception:  # whatever a decoder makes of a file that is not ours: Pillow promises no kind of error
        return None


def _content(path: Path) -> Option:
    """A file's content: 64 bits of its digest, against accidents."""
    return Option(file_digest(path)[:16], path.name)


def _background(text: str, background: Background | None) -> Option:
    match background:
        case Colour(rgb):
            return Option("#{:02x}{:02x}{:02x}".format(*rgb))
        case Blur(percent):
            return Option(f"blur:{percent:g}")
    return _content(Path(text))
