"""Which result is made of which photo or video: decided, and found to be possible, before anything is computed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from predict.background import Background, parse_background
from predict.config import STANDARD, PredictConfig, PredictError
from predict.inputs import Input, find_inputs
from predict.photo import SUFFIXES
from predict.video.format import VIDEO_SUFFIXES, choose_encoding, is_video


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
        """Of what it is made of, for people."""
        return STANDARD if self.source is None else str(self.source)


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        jobs: the photos, in order.
        background: what a composite has behind.
        videos: in order.
    """

    jobs: tuple[Job, ...]
    background: Background | None
    videos: tuple[Job, ...] = ()


def plan_jobs(config: PredictConfig) -> Plan:
    """Look for the photos and videos, and give each its output.

    Raises:
        PredictError: an input stands for nothing; two would give the same file; one would be overwritten; the
            background is none; `out` is no folder; there are videos, and nothing that reads them.
    """
    background = None if config.background is None else parse_background(config.background)
    if config.to_standard_output:
        inputs = find_inputs(config.inputs, Path())
        if len(inputs) != 1:
            raise PredictError(f"standard output holds one result, and there are {len(inputs)} photos; name a folder")
        if is_video(inputs[0].path):
            raise PredictError(f"{inputs[0].path} is a video, which is not written to standard output; name a folder")
        return Plan((Job(inputs[0].path, None, skip=False),), background)
    if not config.out.is_dir() and (config.out.exists() or config.out.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES):
        raise PredictError(f"out={config.out} is to be a folder, not a file; results are called as their photos are")
    jobs = [_job(each, config) for each in find_inputs(config.inputs, config.out)]
    _check_distinct(jobs)
    _check_safe(jobs, config)
    videos = tuple(job for job in jobs if is_video(job.source))
    if videos and not find_spec("av"):
        raise PredictError(f"{videos[0].name} is a video, which wants the package av; pip install -e '.[video]'")
    return Plan(tuple(job for job in jobs if not is_video(job.source)), background, videos)


def _job(each: Input, config: PredictConfig) -> Job:
    suffix = choose_encoding(config.kind, config.video_format).suffix if is_video(each.path) else config.suffix
    output = config.out / each.place.with_suffix(suffix)
    return Job(each.path, output, skip=output.exists() and not config.overwrite)


def _check_distinct(jobs: list[Job]) -> None:
    made: dict[Path | None, Job] = {}
    for job in jobs:
        other = made.setdefault(job.output, job)
        if other is not job:
            raise PredictError(
                f"{other.name} and {job.name} would both give {job.output}; rename one, or give them different --out"
            )


def _check_safe(jobs: list[Job], config: PredictConfig) -> None:
    """No input, and no picture for the background, may be written over."""
    read = {job.source.resolve() for job in jobs if job.source}
    if config.background:
        read.add(Path(config.background).resolve())
    for job in jobs:
        if job.output and job.output.resolve() in read:
            raise PredictError(f"{job.output} is itself an input and is never overwritten; choose another --out")
