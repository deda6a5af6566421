"""`cli.py predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.options import CHECKPOINT, PRECISIONS, quality_thresholds, thresholds_of
from commands.output import show_json

if TYPE_CHECKING:
    from predict.plan import Job


@click.command(short_help="Remove backgrounds: photos and videos in, cutouts, masks or composites out.")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--model", type=CHECKPOINT, required=True, help="A best_model.pth or last_model.pth that training wrote.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the results; - for standard output."
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["cutout", "mask", "composite"]),
    help="The photo with the mask as its alpha, the mask alone, or before a --background.  [default: cutout]",
)
@click.option(
    "--background",
    metavar="WHAT",
    help="Of a composite: #rrggbb, a CSS name, blur, blur:PERCENT (of the diagonal), or a picture.",
)
@click.option(
    "--format", type=click.Choice(["png", "jpeg"]), default="png", show_default=True, help="jpeg: composites."
)
@click.option(
    "--video-format",
    type=click.Choice(["webm", "mov"]),
    default="webm",
    show_default=True,
    help="Of a video's cutout, with alpha: VP9 for browsers, ProRes 4444 for editing. Other videos are H.264 in MP4.",
)
@click.option(
    "--smooth",
    default=0.8,
    show_default=True,
    help="Of videos: weight of the frames before where nothing moves, so that masks do not flicker; 0: none.",
)
@click.option("--hard", is_flag=True, help="A mask of 0 and 255 instead of the probability.")
@click.option(
    "--threshold", default=0.5, show_default=True, help="Above it a pixel is a person, for --hard and the coverage."
)
@click.option("--refine", is_flag=True, help="Draw the mask's edges along the photo's, by a guided filter.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Make results anew that are there already.  [default: skip those of the same photo and options]",
)
@click.option("--side", type=int, help="Of the square that the network sees, pixels.  [default: as in training]")
@click.option(
    "--batch-size", default=0, show_default=True, help="Photos or frames predicted together; 0: as in training."
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Where.  [default: a GPU if there is one]")
@click.option(
    "--precision", type=PRECISIONS, help="Of the convolutions.  [default: as in training, if the device can do it]"
)
@click.option("--threads", default=0, show_default=True, help="CPU threads that read and write; 0: one a processor.")
@quality_thresholds
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def predict(kind: Any, as_json: bool, **given: Any) -> None:
    """Remove the backgrounds of photos and videos: files, folders, "patterns", or - for a photo on standard input.

    Each result has its photo's size, upright, and is called as its photo is; sub-folders of a folder are kept. Videos
    are known by their suffixes, keep their time stamps and their sound, and want pip install -e '.[video]'. Exits with
    1 if something had to be left out.
    """
    from console.language import _
    from console.predict import predict_lines
    from console.progress import progress_bar
    from predict.config import PredictConfig, PredictError
    from predict.plan import plan_jobs
    from predict.run import predict as run_prediction

    quality = thresholds_of(given)
    kind = kind or ("composite" if given["background"] else "cutout")
    try:
        config = PredictConfig(kind=kind, quality=quality, **given)
        plan = plan_jobs(config)
    except PredictError as error:
        raise click.UsageError(str(error)) from None
    if as_json and config.to_standard_output:
        raise click.UsageError(_("standard output can hold the result or --json; name a folder with --out"))
    with ExitStack() as bars:
        update = bars.enter_context(progress_bar(_("Predicting"))) if plan.jobs else None

        def watch(job: Job) -> AbstractContextManager[Callable[[int, int], None]]:
            bars.close()  # a terminal shows one at a time
            return progress_bar(job.name, "frames")

        report = run_prediction(config, plan, update, watch)
    if as_json:
        show_json(report.to_dict())
    else:
        click.echo("\n".join(predict_lines(report)), err=config.to_standard_output)
    if report.count("rejected"):
        sys.exit(1)
