"""Scores a checkpoint on a split: at a cache's side, at the photos' own size, or at both."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from cache.atomic import write_atomically
from cache.choices import Device
from cache.files import file_digest
from cache.messages import message, system_reason
from cache.spec import CacheSpec
from loader.batch import LoaderConfig
from loader.loader import Loader, open_loader
from loader.resident_store import free_bytes
from model.base import check_side
from model.loss import LOSSES
from preprocess.build.plan import Split, read_split
from preprocess.dataset import open_dataset
from train.evaluation.baseline import Baseline
from train.evaluation.images import EvalImages, PhotoImages, score_images
from train.evaluation.result import BaselineReport, EvalConfig, EvalError, EvalReport, SizeReport
from train.hardware import describe, read_hardware
from train.memory import MemoryPlan, memory_errors
from train.plots import pick, plot_confusion, plot_samples
from train.predictor import CacheImages, Predictor, load_predictor

Advance = Callable[[int, int], object]
"""A callback for progress: (images done, images in all), over all sizes."""

_WORDS = {"cache": message("at the cache's side"), "photo": message("at the photos' own size")}
_MEASURES = ("iou", "dice", "accuracy", "precision", "recall")


def evaluate(config: EvalConfig, advance: Advance = lambda _done, _total: None) -> EvalReport:
    """Score a checkpoint and write `metrics.json`, `per_image.csv` and two pictures.

    Scores are pooled over all pixels that are not ignored. Images that cannot be read are left out, counted, and named
    with the reason. Only a few numbers are kept of each image.

    Raises:
        CheckpointError: see `load_network`.
        CacheError, DatasetError: the cache or the dataset cannot be used.
        EvalError: no image could be read, a baseline is no network of photos, or the folder cannot be written.
        HardwareError: the device or the precision that was asked for is not available, or its memory is too small.
        ValueError: the network cannot take the cache's side.
    """
    predictor = load_predictor(config.checkpoint, config.device, config.precision)
    threshold = predictor.threshold if config.threshold is None else config.threshold
    predictor = dataclasses.replace(predictor, inference=dataclasses.replace(predictor.inference, threshold=threshold))
    notes, trained = [*predictor.notes], predictor.config
    free = free_bytes(torch.device(predictor.device))
    batch_size = config.batch_size or trained.loader.batch_size

    with ExitStack() as stack:
        views: list[EvalImages] = []
        baselines: list[Baseline] = []
        # Of a dataset all photos with an annotation are scored, whichever of them a cache took to train on.
        spec = dataclasses.replace(
            predictor.spec,
            images=CacheSpec.images,
            limit=CacheSpec.limit,
            orientation=config.orientation,
            outside=config.outside,
        )
        loader = None
        if config.cache:
            loader = stack.enter_context(_open_cache(config.cache, config, predictor.device, batch_size))
            spec = loader.reader.index.spec
            views.append(CacheImages(loader, predictor, LOSSES[trained.loss]))
            check_side(predictor.network, spec.side, name=message("the cache's side"))
        if config.coco:
            usual = predictor.side if spec.side == predictor.spec.side else spec.side
            spec = dataclasses.replace(spec, side=config.side or usual, category=config.category or spec.category)
            check_side(predictor.network, spec.side)
            dataset = open_dataset(config.coco)
            share = config.val_share or (0.0 if "val" in dataset.splits else spec.val_share)
            split = read_split(dataset, config.split, dataclasses.replace(spec, val_share=share))
            scale, fit = config.baseline_scale, config.baseline_fit
            baselines = [Baseline(file, side=spec.side, scale=scale, fit=fit) for file in config.baselines]
            networks: list[Predictor | Baseline] = [predictor, *baselines]
            for network in networks:
                photos = PhotoImages(split, spec, network, batch_size=batch_size, threads=config.threads)
                views.append(stack.enter_context(photos))
            notes += _other_dataset(loader, split, config) if loader else []
        notes += (*predictor.side_notes(spec.side), *_other_masks(predictor.spec, spec))
        with memory_errors(batch_size, spec.side, less=batch_size // 2, others=message("another --device")):
            sizes = list(_score(views, advance))
        if not any(size.with_persons for size in sizes):
            notes += [message("no mask of {split} has a pixel: the scores mean nothing", split=config.split)]
        own = len(views) - len(baselines)
        device, pixels = predictor.device, batch_size * spec.side**2
        peak = torch.cuda.max_memory_reserved() if device == "cuda" else 0
        plan = MemoryPlan(device, free, peak, pixels, predictor.precision, measured=True, resident={})
        report = EvalReport(
            checkpoint=config.checkpoint,
            checkpoint_sha256=file_digest(config.checkpoint),
            network=dataclasses.asdict(trained.network),
            parameters=sum(parameter.numel() for parameter in predictor.network.parameters()),
            trained_side=predictor.spec.side,
            split=config.split,
            cache=config.cache,
            coco=config.coco,
            side=spec.side,
            cache_side=loader.side if loader else None,
            threshold=threshold,
            fit=spec.fit,
            category=spec.category,
            device=predictor.device,
            precision=predictor.precision,
            memory=str(plan),
            batch_size=batch_size,
            environment=describe(read_hardware()),
            notes=tuple(notes),
            sizes=tuple(sizes[:own]),
            baselines=tuple(
                BaselineReport(file=each.file, sha256=file_digest(each.file), traits=each.traits, photos=photos)
                for each, photos in zip(baselines, sizes[own:], strict=True)
            ),
        )
        return _write_report(report, views[own - 1], config.folder)


def _open_cache(cache: Path, config: EvalConfig, device: Device, batch_size: int) -> Loader:
    return open_loader(
        LoaderConfig(
            cache=cache,
            split=config.split,
            batch_size=batch_size,
            device=device,
            shuffle=False,
            drop_last=False,
            threads=config.threads,
            resident_bytes=1,  # none is: each record is used once
            on_bad_record="skip",
        )
    )


def _score(views: Sequence[EvalImages], advance: Advance) -> Iterator[SizeReport]:
    """Score one after the other; progress counts the images of them all."""
    total, done = sum(len(view) for view in views), 0

    def progress(count: int) -> None:
        advance(done + count, total)

    for view in views:
        yield score_images(view, progress)
        done += len(view)


def _other_masks(trained: CacheSpec, here: CacheSpec) -> Iterator[str]:
    """A line for each thing in which the masks differ from those that the network was trained on."""
    if here.fit != trained.fit:
        fits = {"trained": trained.fit, "fit": here.fit}
        yield message("the network was trained on a {trained} cache and sees {fit} here", **fits)
    if here.categories != trained.categories:
        names = {"trained": ", ".join(trained.categories), "category": ", ".join(here.categories)}
        yield message(
            "the network was trained on masks of {trained} and is scored on those of {category} here", **names
        )


def _other_dataset(loader: Loader, split: Split, config: EvalConfig) -> list[str]:
    """A line if the cache seems to be of another dataset."""
    unknown = np.isin(loader.reader.samples["image_id"], split.table.image_id[split.rows], invert=True)
    counts = {"unknown": int(unknown.sum()), "images": len(loader.reader), "split": split.name, "coco": config.coco}
    note = message(
        "{unknown:,} of the cache's {images:,} {split} images are not in {coco}: it seems to be made from another "
        "dataset",
        **counts,
    )
    return [note] if unknown.any() else []


def _write_report(report: EvalReport, images: EvalImages, folder: Path) -> EvalReport:
    """Write `metrics.json`, `per_image.csv` and two pictures of the foremost size; give the report with their paths."""
    foremost = report.foremost
    names = ("metrics.json", "per_image.csv", "confusion_matrix.png", "sample_predictions.png")
    metrics, table, confusion, samples = files = tuple(folder / name for name in names)
    report = dataclasses.replace(report, files=files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(table, _csv(report).encode())
        plot_confusion(foremost.counts, confusion, title=f"{report.split}, {_WORDS[foremost.size]}")
        chosen = pick(sorted(foremost.with_persons or foremost.images, key=lambda image: image.scores.iou))
        plot_samples([(word, images.one(image.number).sample()) for word, image in chosen], samples)
        write_atomically(metrics, json.dumps(report.to_dict(), indent=1).encode() + b"\n")
    except OSError as error:
        raise EvalError(
            "cannot write to {folder}: {reason}; choose another --out", folder=folder, reason=system_reason(error)
        ) from None
    return report


def _csv(report: EvalReport) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("size", "image_id", "height", "width", "person_fraction", *_MEASURES, "boundary_f", "tp", "fp", "fn", "tn")
    writer.writerow((*head, "network"))
    sizes = [(report.checkpoint, size) for size in report.sizes]
    for network, size in [*sizes, *((each.file, each.photos) for each in report.baselines)]:
        for image in size.images:
            scores = image.scores
            values = [image.person_fraction, *(getattr(scores, name) for name in _MEASURES), image.boundary.f]
            rounded = [f"{value:.6f}" for value in values]
            writer.writerow([size.size, image.image_id, image.height, image.width, *rounded, *image.counts, network])
    return text.getvalue()
