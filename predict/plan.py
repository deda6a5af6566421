"""Which result is made of which photo or video: decided, and found to be possible, before anything is computed."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from predict.background import Background, parse_background
from predict.config import STANDARD, PredictConfig, PredictError
from predict.photo import SUFFIXES
from predict.video.sink import VIDEO_SUFFIXES, choose_encoding, is_video

Input = tuple[Path | None, Path]
"""A photo or video to read, None for standard input, and the place of its result in the folder of results."""


class Job(NamedTuple):
    """One photo or video and its result.

    Attributes:
        source: its file; None is standard input.
        output: file of the result; None is standard output.
        skip: something is there already, and is to stay.
    """

    source: Path | None
    output: Path | None
    skip: bool

    @property
    def name(self) -> str:
        """Name of the source for people."""
        return STANDARD if self.source is None else str(self.source)


class Plan(NamedTuple):
    """The photos and videos to be made.

    Attributes:
        jobs: the photos, in order.
        background: of composites.
        videos: the videos, in order.
    """

    jobs: tuple[Job, ...]
    background: Background | None
    videos: tuple[Job, ...] = ()


def plan_jobs(config: PredictConfig) -> Plan:
    """Find the photos and videos, and choose an output for each.

    Raises:
        PredictError: an input stands for nothing; two would give the same file; one would be overwritten; the
            background is none; `out` is no folder; there are videos, and nothing that reads them.
    """
    background = None if config.background is None else parse_background(config.background)
    if config.to_standard_output:
        inputs = find_inputs(config.inputs, Path())
        if len(inputs) != 1:
            raise PredictError(
                "standard output holds one result, and there are {inputs_count} photos; name a folder",
                inputs_count=len(inputs),
            )
        ((path, _),) = inputs
        if is_video(path):
            raise PredictError("{path} is a video, which is not written to standard output; name a folder", path=path)
        return Plan((Job(path, None, skip=False),), background)
    if not config.out.is_dir() and (config.out.exists() or config.out.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES):
        raise PredictError(
            "out={out} is to be a folder, not a file; results are called as their photos are", out=config.out
        )
    jobs = [_job(source, place, config) for source, place in find_inputs(config.inputs, config.out)]
    _check_distinct(jobs)
    _check_safe(jobs, config)
    videos = tuple(job for job in jobs if is_video(job.source))
    if videos and not find_spec("av"):
        raise PredictError(
            "{name} is a video, which wants the package av; pip install -e '.[video]'", name=videos[0].name
        )
    return Plan(tuple(job for job in jobs if not is_video(job.source)), background, videos)


def _job(source: Path | None, place: Path, config: PredictConfig) -> Job:
    suffix = choose_encoding(config.kind, config.video_format).suffix if is_video(source) else config.suffix
    output = config.out / place.with_suffix(suffix)
    return Job(source, output, skip=output.exists() and not config.overwrite)


def _check_distinct(jobs: list[Job]) -> None:
    made: dict[Path | None, Job] = {}
    for job in jobs:
        other = made.setdefault(job.output, job)
        if other is not job:
            raise PredictError(
                "{name} and {name2} would both give {output}; rename one, or give them different --out",
                name=other.name,
                name2=job.name,
                output=job.output,
            )


def _check_safe(jobs: list[Job], config: PredictConfig) -> None:
    """No input, and no picture for the background, may be written over."""
    read = {job.source.resolve() for job in jobs if job.source}
    if config.background:
        read.add(Path(config.background).resolve())
    for job in jobs:
        if job.output and job.output.resolve() in read:
            raise PredictError(
                "{output} is itself an input and is never overwritten; choose another --out", output=job.output
            )


def find_inputs(names: Sequence[str], out: Path) -> list[Input]:
    """All photos and videos in the order in which they are named, each once; those of a folder by path.

    Of a folder what has a known suffix counts, hidden files and what is beneath `out` do not. A file that is named, or
    meant by a pattern, is taken whatever its suffix.

    Raises:
        PredictError: a name or pattern stands for nothing, or standard input is named twice.
    """
    if names.count(STANDARD) > 1:
        raise PredictError(
            "there is one standard input, and {standard} is named {count} times",
            standard=STANDARD,
            count=names.count(STANDARD),
        )
    found: dict[Path | None, Input] = {}
    for name in names:
        for each in _inputs(name, out.resolve()):
            found.setdefault(each[0] and each[0].resolve(), each)
    return list(found.values())


def _inputs(name: str, out: Path) -> Iterator[Input]:
    path = Path(name)
    if name == STANDARD:
        yield None, Path("stdin")
    elif path.is_dir():
        yield from _folder(path, out)
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(name):
        # Names with these signs in them were looked for as they are before.
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # pathlib's knows no absolute patterns
        if not matches:
            raise PredictError("no file is called {name}; check the pattern", name=name)
        for match in matches:
            one = Path(match)
            yield from _folder(one, out) if one.is_dir() else [(one, Path(one.name))]
    else:
        raise PredictError(
            "{name} does not exist; name a file, a folder, a pattern, or - for standard input", name=name
        )


def _folder(folder: Path, out: Path) -> Iterator[Input]:
    beneath = folder.resolve() in out.parents  # results of an earlier call are no photos
    empty, known = True, SUFFIXES | VIDEO_SUFFIXES
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if path.suffix.lower() not in known or hidden or not path.is_file():
            continue
        if beneath and out in path.resolve().parents:
            continue
        empty = False
        yield path, place
    if empty:
        raise PredictError(
            "{folder} holds no photo and no video; known are {known}", folder=folder, known=", ".join(sorted(known))
        )
