"""Run `predict`: load the network, make the photos, then the videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from threading import Lock
from time import perf_counter

from cache.choices import Device
from cache.messages import message
from model.base import check_side
from predict.config import PhotoResult, PredictConfig, PredictReport, VideoResult
from predict.pipeline import Advance, Setup, make_photos
from predict.plan import Job, Plan
from predict.record import FileState, check_made, decisive_options, file_state, video_options
from preprocess.image import quiet_pillow
from train.memory import memory_errors
from train.predictor import Predictor, load_predictor

Watch = Callable[[Job], AbstractContextManager[Advance]]
"""Called for each video; gives the `Advance` for its frames."""

_LOADING = Lock()


def kept_predictor(path: Path, device: Device | None) -> Predictor:
    """As `load_predictor`, for any thread: the latest two are kept, until their files are written anew."""
    with _LOADING:  # or several threads would load the same network
        return _load(path.absolute(), file_state(path), device)


@lru_cache(maxsize=2)
def _load(path: Path, _state: FileState | None, device: Device | None) -> Predictor:
    return load_predictor(path, device, None)


def predict(
    config: PredictConfig, plan: Plan, advance: Advance | None = None, watch: Watch | None = None
) -> PredictReport:
    """Make what was planned: the photos, then the videos. What cannot be read is rejected with its reason.

    Raises:
        CheckpointError: see `load_network`.
        HardwareError: the device or the precision that was asked for is not to be had, or its memory is too small.
        PredictError: a result that is there was made otherwise, see `predict.record`; or one cannot be written.
        ValueError: the network cannot take the side.
    """
    predictor = load_predictor(config.checkpoint, config.device, config.precision)
    side = predictor.side if config.side is None else config.side
    threshold = predictor.threshold if config.threshold is None else config.threshold
    config = dataclasses.replace(config, threshold=threshold)
    finish = dataclasses.replace(plan.finish, threshold=threshold)
    check_side(predictor.network, side)
    batch_size = config.batch_size or predictor.config.loader.batch_size
    options = decisive_options(config, plan.finish.background, side, predictor.precision)
    check_made(config, plan, options)
    setup = Setup(config=config, finish=finish, predictor=predictor, side=side, batch_size=batch_size, options=options)
    started = perf_counter()
    with memory_errors(batch_size, side, less=batch_size // 2, others=message("a smaller --side, or another --device")):
        photos = _make_photos(setup, plan, advance)
        seconds = perf_counter() - started
        videos = tuple(_make_videos(setup, plan, watch)) if plan.videos else ()
    return PredictReport(
        config=config,
        device=predictor.device,
        precision=predictor.precision,
        side=side,
        batch_size=batch_size,
        threads=setup.threads,
        notes=predictor.notes + predictor.side_notes(side),
        photos=photos,
        videos=videos,
        seconds=seconds,
        passed_over=plan.passed_over,
    )


def _make_photos(setup: Setup, plan: Plan, advance: Advance | None) -> tuple[PhotoResult, ...]:
    """All results in the order of the jobs, those that are there already among them."""
    wanted = [job for job in plan.photos if not job.skip]
    made = list[PhotoResult]()
    with quiet_pillow():
        for result in make_photos(setup, wanted):
            made.append(result)
            if advance:
                advance(len(made), len(wanted))
    results = iter(made)
    return tuple(
        PhotoResult(input=job.name, output=str(job.output), status="skipped") if job.skip else next(results)
        for job in plan.photos
    )


def _make_videos(setup: Setup, plan: Plan, watch: Watch | None) -> Iterator[VideoResult]:
    from predict.video.pipeline import make_video  # needs the optional package av

    setup = dataclasses.replace(setup, options=video_options(setup.config, setup.options))
    for job in plan.videos:
        if job.skip:
            yield VideoResult(input=job.name, output=str(job.output), status="skipped")
            continue
        with watch(job) if watch else nullcontext() as advance:
            yield make_video(setup, job, advance)
