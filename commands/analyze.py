"""`cli.py analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cache.choices import Orientation
from cache.messages import message
from commands import options
from commands.options import DEFAULT_COCO, FILE, group, option
from console.language import _

if TYPE_CHECKING:
    from preprocess.check.survey import QualitySurvey, SurveyConfig
    from preprocess.dataset import Location


@click.command(
    cls=options.GroupedCommand,
    short_help=message("Count images and annotations, and draw their distributions."),
    help=message(
        "Count images, annotations, sizes and what each rule of `preprocess --select` takes, and draw their "
        "distributions.\n\n"
        "--quality adds four scores of each photo, from 0 to 100: coverage, contrast, edge and resolution. "
        "It prints how many photos reach the thresholds, and which are furthest below. docs/quality.md "
        "explains the scores."
    ),
)
@options.coco_or_cache
@options.category
@options.photos
@option("--picture", "Draw the histograms into this file.", type=FILE, default=Path("analysis.png"))
@option("--quality", "Read the photos, too, and score them and their masks.", is_flag=True)
@group(
    message("Options of --quality"),
    option("--limit", "Score this many photos of each split, evenly over it; 0 scores all.", default=2000),
    option("--side", "Score a dataset for a network that sees images of this side, in pixels.", default=384),
    options.thresholds,
)
@click.pass_context
def analyze(
    context: click.Context,
    /,
    coco: Location | None,
    cache: Path | None,
    as_json: bool,
    picture: Path,
    quality: bool,
    **given: Any,
) -> None:
    from cache.index import CacheIndex
    from cache.reader import CacheReader
    from cache.spec import CacheSpec
    from console.inspect import show
    from console.pictures import draw_histograms
    from console.progress import progress_bar
    from console.quality import survey_lines
    from preprocess.check.statistics import analyze as analyze_table
    from preprocess.check.statistics import analyze_cache, cache_distributions, distributions
    from preprocess.check.survey import survey_cache, survey_dataset
    from preprocess.dataset import open_dataset, read_content

    spec = CacheSpec(**{name: given.pop(name) for name in ("category", "val_share", "orientation", "outside")})
    config = _survey_config(context, given, spec.orientation, wanted=quality)
    found: dict[str, dict[str, Any]] = {}
    drawn = []
    surveys: dict[str, list[QualitySurvey]] = {"coco": [], "cache": []}
    if coco or not cache:
        dataset, found["coco"] = open_dataset(coco or DEFAULT_COCO), {}
        for split in dataset.names(dataset.share(spec.val_share)):
            content = read_content(dataset, split, spec)
            found["coco"][split] = analyze_table(content.table, spec.orientation)
            drawn.append(distributions(content.table, split))
            if config:
                with progress_bar(_("Scoring {split}", split=split)) as update:
                    surveys["coco"].append(survey_dataset(content, config, update))
    if cache:
        found["cache"] = {}
        for split in CacheIndex.load(cache).splits:
            with CacheReader(cache, split) as reader:
                found["cache"][split] = analyze_cache(reader)
                if "coco" not in found:  # the picture is of one thing: the dataset if both are given
                    drawn.append(cache_distributions(reader))
                if config:
                    with progress_bar(_("Scoring {split}", split=split), "samples") as update:
                        surveys["cache"].append(survey_cache(reader, config, update))
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_histograms(drawn, picture, str(coco or cache or DEFAULT_COCO), surveys["coco"] or surveys["cache"])
    if as_json:
        scores = {of: {each.split: each.to_dict() for each in surveys[of]} for of in found}
        click.echo(options.as_json_text({**found, **({"quality": scores} if quality else {}), "picture": picture}))
        return
    for split, statistics in found.get("coco", {}).items():
        show("statistics", s=statistics, split=split, category=spec.category)
    if "coco" in found:
        click.echo(_("layout of the dataset: {layout}", layout=dataset.layout) + "\n")
    for statistics in found.get("cache", {}).values():
        show("cache_statistics", s=statistics)
    for survey in (*surveys["coco"], *surveys["cache"]):
        click.echo("\n".join(survey_lines(survey)))
    click.echo(_("🖼️  Picture: {path}", path=picture))


def _survey_config(
    context: click.Context, given: dict[str, Any], orientation: Orientation, *, wanted: bool
) -> SurveyConfig | None:
    """What to score, or None. Options of --quality would do nothing without it, and are refused."""
    from preprocess.check.quality import QualityThresholds
    from preprocess.check.survey import SurveyConfig

    if wanted:
        thresholds = QualityThresholds(**options.taken(given, "min_"))
        return SurveyConfig(thresholds=thresholds, orientation=orientation, **given)
    for name in given:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(_("{option} needs --quality; give that, too", option=option))
    return None
