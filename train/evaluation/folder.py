"""The folder of an evaluation."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

from cache.atomic import write_atomically
from train.evaluation.config import EvalError
from train.evaluation.images import EvalImages
from train.evaluation.result import EvalReport, SizeReport, choose_images
from train.plots import plot_confusion, plot_samples

_WORDS = {"cache": "at the cache's side", "photo": "at the photos' own size"}
_MEASURES = ("iou", "dice", "accuracy", "precision", "recall")


def write_report(report: EvalReport, images: EvalImages, folder: Path) -> EvalReport:
    """Write `metrics.json`, `per_image.csv` and two pictures; give the report with their paths.

    Args:
        report: what was found.
        images: of the foremost size, which the pictures are of.
        folder: is made.

    Raises:
        EvalError: they cannot be written.
    """
    foremost = report.foremost
    files = tuple(
        folder / name for name in ("metrics.json", "per_image.csv", "confusion_matrix.png", "sample_predictions.png")
    )
    report = dataclasses.replace(report, files=files)
    metrics, table, confusion, samples = files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(table, _csv(report.sizes).encode())
        plot_confusion(foremost.counts, confusion, title=f"{report.split}, {_WORDS[foremost.size]}")
        chosen = choose_images(foremost.images)
        plot_samples([(word, images.one(image.number).sample(image.scores.iou)) for word, image in chosen], samples)
        write_atomically(metrics, json.dumps(report.to_dict(), indent=1).encode() + b"\n")
    except OSError as error:
        raise EvalError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    return report


def _csv(sizes: Sequence[SizeReport]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("size", "image_id", "height", "width", "person_fraction", *_MEASURES, "boundary_f", "tp", "fp", "fn", "tn")
    writer.writerow(head)
    for size in sizes:
        for image in size.images:
            scores = image.scores
            values = [image.person_fraction, *(getattr(scores, name) for name in _MEASURES), image.boundary.f]
            rounded = [f"{value:.6f}" for value in values]
            writer.writerow([size.size, image.image_id, image.height, image.width, *rounded, *image.counts])
    return text.getvalue()
