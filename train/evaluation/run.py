"""How good a checkpoint is on a split: at a cache's side, at the photos' own size, or at both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from cache.choices import Device
from cache.files import file_digest
from cache.spec import CacheSpec
from loader.batch import LoaderConfig
from loader.loader import Loader, open_loader
from model.base import check_side
from model.loss import LOSSES
from preprocess.sources import Split, read_split
from train.evaluation.config import EvalConfig
from train.evaluation.folder import write_report
from train.evaluation.images import CacheImages, EvalImages
from train.evaluation.photos import PhotoImages
from train.evaluation.result import EvalReport, SizeReport
from train.evaluation.score import score_images
from train.hardware import HardwareError, describe, read_hardware
from train.predictor import load_predictor

Advance = Callable[[int, int], None]
"""Called with (images done, images in all), over all sizes."""


def evaluate(config: EvalConfig, advance: Advance | None = None) -> EvalReport:
    """Score a checkpoint and write `metrics.json`, `per_image.csv` and two pictures.

    Scores are pooled over all pixels that count. Images that cannot be read are left out, counted, and named with the
    reason. Memory does not grow with the number of images, but for a few numbers of each.

    Raises:
        CheckpointError: see `load_network`.
        CacheError, DatasetError: the cache or the dataset cannot be used.
        EvalError: no image could be read, or the folder cannot be written.
        HardwareError: the device or the precision that was asked for is not to be had, or its memory is too small.
        ValueError: the network cannot take the cache's side.
    """
    trained = load_predictor(config.checkpoint, config.device, config.precision)
    predictor, notes = trained.predictor, trained.notes
    device = predictor.device
    batch_size = config.batch_size or trained.config.loader.batch_size

    with ExitStack() as stack:
        views: list[EvalImages] = []
        spec = CacheSpec(side=trained.side, fit=trained.fit, orientation=config.orientation, outside=config.outside)
        loader = None
        if config.cache:
            loader = stack.enter_context(open_loader(_loader_config(config, config.cache, device, batch_size)))
            spec = loader.reader.index.spec
            views.append(CacheImages(loader, predictor, LOSSES[trained.config.loss]))
            check_side(predictor.network, spec.side, name="the cache's side")
        if config.coco:
            split = read_split(config.coco, config.split, spec)
            photos = PhotoImages(split, spec, predictor, batch_size=batch_size, threads=config.threads)
            views.append(stack.enter_context(photos))
            notes += _strangers(loader, split, config)
        if spec.side != trained.side:
            notes += (f"the network was trained at side {trained.side} and sees side {spec.side} here",)
        if spec.fit != trained.fit:
            notes += (f"the network was trained on a {trained.fit} cache and sees {spec.fit} here",)
        total = sum(len(view) for view in views)
        sizes = list[SizeReport]()
        try:
            for number, view in enumerate(views):
                before = sum(len(earlier) for earlier in views[:number])
                sizes.append(score_images(view, partial(_tell, advance, total, before)))
        except torch.OutOfMemoryError as error:
            raise HardwareError(
                f"the GPU's memory cannot hold batch_size={batch_size} at side {spec.side}; "
                f"use --batch-size {max(1, batch_size // 2)}"
            ) from error
        report = EvalReport(
            checkpoint=config.checkpoint,
            checkpoint_sha256=file_digest(config.checkpoint),
            network=dataclasses.asdict(trained.config.network),
            parameters=sum(parameter.numel() for parameter in predictor.network.parameters()),
            trained_side=trained.side,
            split=config.split,
            cache=config.cache,
            coco=config.coco,
            side=spec.side,
            fit=spec.fit,
            device=device,
            precision=trained.precision,
            batch_size=batch_size,
            environment=describe(read_hardware()),
            notes=notes,
            sizes=tuple(sizes),
        )
        return write_report(report, views[-1], config.folder)


def _loader_config(config: EvalConfig, cache: Path, device: Device, batch_size: int) -> LoaderConfig:
    return LoaderConfig(
        cache=cache,
        split=config.split,
        batch_size=batch_size,
        device=device,
        shuffle=False,
        drop_last=False,
        threads=config.threads,
        on_bad_record="skip",
    )


def _strangers(loader: Loader | None, split: Split, config: EvalConfig) -> tuple[str, ...]:
    """A line when the cache seems to be of another dataset."""
    if loader is None:
        return ()
    ids = set(split.table.image_id[split.rows].tolist())
    strange = sum(image_id not in ids for image_id in loader.reader.samples["image_id"].tolist())
    if not strange:
        return ()
    return (
        f"{strange:,} of the cache's {len(loader.reader):,} {split.name} images are not in {config.coco}: "
        "it seems to be made from another dataset",
    )


def _tell(advance: Advance | None, total: int, before: int, seen: int) -> None:
    if advance:
        advance(before + seen, total)
