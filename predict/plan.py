"""Which result is made of which photo or video: decided, and found to be possible, before anything is computed."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cache.messages import install
from predict.background import parse_background
from predict.config import STANDARD, PassedOver, PredictConfig, PredictError
from predict.mask import Finish
from preprocess.image import SUFFIXES

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".flv", ".wmv", ".ogv"}
)
"""Suffixes of files that count as videos; `.ts` is left to TypeScript."""

Input = tuple[Path | None, Path]
"""A photo or video to read, None for standard input, and the path of its result within the folder of results."""


class Job(NamedTuple):
    """One photo or video and its result."""

    source: Path | None  # None is standard input
    output: Path | None  # None is standard output
    skip: bool  # something is there already, and is to stay

    @property
    def name(self) -> str:
        """Name of the source for people."""
        return STANDARD if self.source is None else str(self.source)


class Plan(NamedTuple):
    """The photos and the videos to be made, each in order, what is made of them, and what is passed over."""

    photos: tuple[Job, ...]
    finish: Finish
    videos: tuple[Job, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()


def is_video(path: Path | None) -> bool:
    """Whether an input is a video, by its suffix; standard input, which is None, never is."""
    return path is not None and path.suffix.lower() in VIDEO_SUFFIXES


def plan_jobs(config: PredictConfig) -> Plan:
    """Find the photos and videos, and choose an output for each.

    Raises `PredictError` if an input stands for nothing; two would give the same file; one would be overwritten; the
    background is none; `out` is no folder; there are videos, and nothing that reads them; see `Finish` as well.
    """
    background = None if config.background is None else parse_background(config.background)
    threshold = 0.5 if config.threshold is None else config.threshold
    finish = Finish(kind=config.kind, background=background, soft=config.soft, hard=config.hard, threshold=threshold)
    if config.to_standard_output:
        inputs, passed_over = _find_inputs(config.inputs, Path())
        if len(inputs) != 1:
            raise PredictError(
                "standard output holds one result, and there are {count} photos; name a folder", count=len(inputs)
            )
        ((path, _),) = inputs
        if is_video(path):
            raise PredictError("{path} is a video, which is not written to standard output; name a folder", path=path)
        return Plan((Job(path, None, skip=False),), finish, passed_over=passed_over)
    if not config.out.is_dir() and (config.out.exists() or config.out.suffix.lower() in VIDEO_SUFFIXES.union(SUFFIXES)):
        raise PredictError(
            "out={out} is to be a folder, not a file; results are called as their photos are", out=config.out
        )
    jobs = []
    inputs, passed_over = _find_inputs(config.inputs, config.out)
    for source, place in inputs:
        if is_video(source):
            suffix = f".{config.video_format}" if config.kind == "cutout" else ".mp4"
        else:
            suffix = ".jpg" if config.format == "jpeg" else ".png"
        output = config.out / place.with_suffix(suffix)
        jobs.append(Job(source, output, skip=output.exists() and not config.overwrite))
    _check_outputs(jobs, config)
    videos = tuple(job for job in jobs if is_video(job.source))
    if videos and not find_spec("av"):
        values = {"name": videos[0].name, "install": install("video")}
        raise PredictError("{name} is a video, which wants the package av; {install}", **values)
    return Plan(tuple(job for job in jobs if not is_video(job.source)), finish, videos, passed_over)


def _check_outputs(jobs: list[Job], config: PredictConfig) -> None:
    """Each result is a file of its own, and neither an input nor the picture for the background is written over."""
    read = {job.source.resolve() for job in jobs if job.source}
    if config.background:
        read.add(Path(config.background).resolve())
    made: dict[Path | None, Job] = {}
    for job in jobs:
        other = made.setdefault(job.output, job)
        if other is not job:
            raise PredictError(
                "{name} and {other} would both give {output}; rename one, or give them different --out",
                name=other.name,
                other=job.name,
                output=job.output,
            )
        if job.output and job.output.resolve() in read:
            raise PredictError(
                "{output} is itself an input and is never overwritten; choose another --out", output=job.output
            )


def _find_inputs(names: Sequence[str], out: Path) -> tuple[list[Input], tuple[PassedOver, ...]]:
    """All photos and videos in the order in which they are named, each once; those of a folder by path.

    With them the other files of the folders, which are passed over.

    In a folder, files with a known suffix count, without hidden ones and those beneath `out`. A file that is named, or
    meant by a pattern, is taken whatever its suffix.
    """
    if names.count(STANDARD) > 1:
        values = {"standard": STANDARD, "count": names.count(STANDARD)}
        raise PredictError("there is one standard input, and {standard} is named {count} times", **values)
    found: dict[Path | None, Input] = {}
    others: dict[Path | None, PassedOver] = {}
    for name in names:
        for each in _inputs_of(name, out.resolve()):
            if isinstance(each, PassedOver):
                others.setdefault(each.file.resolve(), each)
            else:
                found.setdefault(each[0] and each[0].resolve(), each)
    return list(found.values()), tuple(each for file, each in others.items() if file not in found)


def _inputs_of(name: str, out: Path) -> Iterator[Input | PassedOver]:
    if name == STANDARD:
        yield None, Path("stdin")
        return
    # A file whose name only looks like a pattern is that file.
    matches = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # pathlib's knows no absolute patterns
    for match in map(Path, matches):
        yield from _inputs_in(match, out) if match.is_dir() else [(match, Path(match.name))]
    if not matches and glob.has_magic(name):
        raise PredictError("no file is called {name}; check the pattern", name=name)
    if not matches:
        raise PredictError(
            "{name} does not exist; name a file, a folder, a pattern, or - for standard input", name=name
        )


def _inputs_in(folder: Path, out: Path) -> list[Input | PassedOver]:
    holds_results = folder.resolve() in out.parents  # those of an earlier call are no photos
    known = VIDEO_SUFFIXES.union(SUFFIXES)
    found, others = list[Input](), list[PassedOver]()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or (holds_results and out in path.resolve().parents):
            continue
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if path.suffix.lower() not in known or hidden:
            others.append(PassedOver(folder, path, hidden))
        else:
            found.append((path, place))
    if not found:
        raise PredictError(
            "{folder} holds no photo and no video; known are {known}", folder=folder, known=", ".join(sorted(known))
        )
    return [*found, *others]
