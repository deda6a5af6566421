"""`cli.py predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.choices import PredictFormat, PredictKind, VideoFormat
from cache.messages import message
from commands import options
from commands.options import group, option
from console.language import _, translated

if TYPE_CHECKING:
    from predict.plan import Job


@click.command(
    cls=options.GroupedCommand,
    short_help=message("Remove the backgrounds of photos and videos."),
    help=message(
        'Remove the backgrounds of photos and videos: files, folders, "patterns", or - for a photo on '
        "standard input.\n\n"
        "Each result has its photo's size, upright, and its photo's name; sub-folders of a folder are kept. "
        "Videos are known by their suffixes, keep their time stamps and their sound, and need the package av. "
        "The exit code is 1 if an input had to be left out."
    ),
)
@click.argument("inputs", metavar=message("INPUT..."), nargs=-1, required=True)
@group(
    message("Results"),
    option(
        "--out",
        "Write the results to this folder; - is standard output.",
        type=click.Path(path_type=Path),
        required=True,
    ),
    option(
        "--as",
        "Write the photo with the mask as its alpha, the mask alone, or the cutout before a --background.  "
        "[default: cutout]",
        "kind",
        type=PredictKind,
    ),
    option(
        "--background",
        "Put this behind the cutout: #rrggbb, a CSS name, blur, blur:PERCENT (of the diagonal), or a picture.",
        metavar=message("WHAT"),
    ),
    option("--format", "Write photos in this format; jpeg is for composites only.", type=PredictFormat, default="png"),
    option(
        "--video-format",
        "Write a video's cutout, which has alpha, as VP9 for browsers or as ProRes 4444 for editing. Other videos "
        "are H.264 in MP4.",
        type=VideoFormat,
        default="webm",
    ),
    option("--overwrite", "Replace results that are there.  [default: skip those made the same way]", is_flag=True),
    options.as_json,
)
@group(
    message("Mask"),
    option("--soft", "Take the probability as the alpha, and leave the colours as they are.", is_flag=True),
    option("--hard", "Make a mask of 0 and 255.", is_flag=True),
    option(
        "--threshold",
        "Take pixels above this probability as foreground.  [default: as measured in training]",
        type=float,
    ),
    option(
        "--smooth",
        "Weight earlier frames of a video by this where nothing moves, against flicker; 0 turns this off.",
        default=0.8,
    ),
)
@group(
    message("Network"),
    options.checkpoint,
    option("--side", "Use square images of this side, in pixels.  [default: as measured in training]", type=int),
    option("--tiles", "Find small persons in large photos: look at this many parts across, too.", default=1),
    options.inference,
)
@group(message("Quality"), options.thresholds)
def predict(checkpoint: Path, kind: Any, as_json: bool, **given: Any) -> None:
    from console.predict import predict_lines
    from console.progress import progress_bar
    from predict.config import PredictConfig, PredictError
    from predict.plan import plan_jobs
    from predict.run import predict as run_prediction
    from preprocess.check.quality import QualityThresholds

    quality = QualityThresholds(**options.taken(given, "min_"))
    kind = kind or ("composite" if given["background"] else "cutout")
    try:
        config = PredictConfig(checkpoint=checkpoint, kind=kind, quality=quality, **given)
        plan = plan_jobs(config)
    except PredictError as error:
        raise click.UsageError(translated(error)) from None
    if as_json and config.to_standard_output:
        raise click.UsageError(_("standard output can hold the result or --json; name a folder with --out"))
    with ExitStack() as bars:
        update = bars.enter_context(progress_bar(_("Predicting"))) if plan.photos else None

        def watch(job: Job) -> AbstractContextManager[Callable[[int, int], None]]:
            bars.close()  # a terminal shows one at a time
            return progress_bar(job.name, "frames")

        report = run_prediction(config, plan, update, watch)
    if as_json:
        click.echo(options.as_json_text(report.to_dict()))
    else:
        click.echo("\n".join(predict_lines(report)), err=config.to_standard_output)
    if report.count("rejected"):
        sys.exit(1)
