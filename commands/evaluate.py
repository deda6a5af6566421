"""`cli.py eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.choices import BaselineScale, Fit, Split
from cache.messages import message
from commands import options
from commands.options import FILE, FOLDER, option
from console.language import _


@click.command(
    "eval",
    short_help=message("Score a trained network on a split."),
    help=message(
        "Score a trained network on a split of a cache (--cache), of a dataset (--coco), or of both.\n\n"
        "A cache is scored at its side, as in training. Photos of a dataset are predicted as a cache would "
        "hold them, and the answer is brought back to each photo's own size: this is what a user of the "
        "network gets. With several splits, --out gets a folder for each."
    ),
)
@options.checkpoint
@option("--cache", "Score the images of this cache at its side.", type=FOLDER)
@options.dataset(
    "Options", option("--coco", "Score the photos of this dataset at their own size.", type=options.DATASET)
)
@options.photos
@option(
    "--category",
    "Score masks of this category of --coco, by its name or number; may be repeated.  [default: the network's]",
    multiple=True,
)
@option("--split", "Score this split; may be repeated.", "splits", type=Split, multiple=True, default=["val"])
@option("--out", "Write the results to this folder.  [default: eval-SPLIT in the run's folder]", type=FOLDER)
@option("--side", "Show the network photos at this side, in pixels.  [default: as measured in training]", type=int)
@option("--threshold", "Take pixels above this as foreground.  [default: as measured in training]", type=float)
@option(
    "--baseline",
    "Score the photos with another network, too, from this .onnx or .tflite file; may be repeated.",
    "baselines",
    type=FILE,
    multiple=True,
)
@option(
    "--baseline-scale",
    "Scale the pixels to this for --baseline.  [default: 0..1, or 0..255 where it takes integers]",
    type=BaselineScale,
)
@option("--baseline-fit", "Lay the photos out like this for --baseline.", type=Fit, default="stretch")
@options.inference
@options.as_json
def evaluate(splits: tuple[str, ...], out: Path | None, as_json: bool, **given: Any) -> None:
    from console.evaluate import eval_lines
    from console.progress import progress_bar
    from train.evaluation.result import EvalConfig
    from train.evaluation.run import evaluate as run_evaluation

    reports = {}
    for split in dict.fromkeys(splits):
        config = EvalConfig(split=split, out=out / split if out and len(splits) > 1 else out, **given)
        with progress_bar(_("Evaluating")) as update:
            report = run_evaluation(config, update)
        reports[split] = report.to_dict()
        if not as_json:
            click.echo("\n".join(eval_lines(report)))
    if as_json:
        click.echo(options.as_json_text(reports if len(reports) > 1 else report.to_dict()))
