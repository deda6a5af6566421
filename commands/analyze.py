"""`cli.py analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from commands.options import DEFAULT_COCO, FILE, coco_or_cache, photo_options, quality_thresholds, thresholds_of
from commands.output import show_json

if TYPE_CHECKING:
    from preprocess.survey import QualitySurvey, SurveyConfig


@click.command(short_help="What is in it? Statistics and a picture.")
@coco_or_cache
@click.option("--category", default="person", show_default=True, help="COCO category to count.")
@click.option(
    "--picture", type=FILE, default=Path("analysis.png"), show_default=True, help="Where to draw the histograms."
)
@click.option("--quality", is_flag=True, help="Read photos, too, and score them and their persons' masks.")
@click.option(
    "--limit",
    default=2000,
    show_default=True,
    help="Of --quality: so many photos of each split, evenly over it; 0 takes all.",
)
@click.option("--side", default=384, show_default=True, help="Of --quality: what the network is to see of a dataset.")
@photo_options
@quality_thresholds
@click.pass_context
def analyze(
    context: click.Context,
    /,
    coco: Path | None,
    cache: Path | None,
    as_json: bool,
    category: str,
    picture: Path,
    quality: bool,
    **given: Any,
) -> None:
    """What is in it? Images, persons, sizes, what each rule of `preprocess --images` selects; and a picture of it.

    With --quality also four scores of each photo, from 0 to 100: coverage, contrast, edge and resolution, how many
    photos reach their thresholds, and which are furthest from that. docs/quality.md says what they mean.
    """
    from cache.index import CacheIndex
    from cache.reader import CacheReader
    from console.histogram import draw_histograms
    from console.inspect import show_cache_statistics, show_statistics
    from console.language import _
    from console.progress import progress_bar
    from console.quality import survey_lines
    from preprocess.analyze import analyze as analyze_table
    from preprocess.analyze import analyze_cache, cache_distributions, distributions
    from preprocess.coco import annotation_file, load_persons
    from preprocess.sources import SPLIT_FOLDERS
    from preprocess.survey_photos import survey_cache, survey_dataset

    config = _survey_config(context, given, wanted=quality)
    found: dict[str, dict[str, Any]] = {}
    drawn = []
    surveys: dict[str, list[QualitySurvey]] = {"coco": [], "cache": []}
    if coco or not cache:
        root, found["coco"] = coco or DEFAULT_COCO, {}
        for split, folder in SPLIT_FOLDERS.items():
            table = load_persons(annotation_file(root, folder), category)
            found["coco"][split] = analyze_table(table)
            drawn.append(distributions(table, split))
            if config:
                with progress_bar(_("Scoring {split}").format(split=split)) as update:
                    surveys["coco"].append(survey_dataset(root, split, table, config, update))
    if cache:
        found["cache"] = {}
        for split in CacheIndex.load(cache).splits:
            with CacheReader(cache, split) as reader:
                found["cache"][split] = analyze_cache(reader)
                if "coco" not in found:  # the picture is of one thing: the dataset if both are given
                    drawn.append(cache_distributions(reader))
                if config:
                    with progress_bar(_("Scoring {split}").format(split=split), "samples") as update:
                        surveys["cache"].append(survey_cache(reader, config, update))
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_histograms(drawn, picture, str(coco or cache or DEFAULT_COCO), surveys["coco"] or surveys["cache"])
    if as_json:
        scores = {of: {each.split: each.to_dict() for each in surveys[of]} for of in found}
        show_json({**found, **({"quality": scores} if quality else {}), "picture": picture})
        return
    for split, statistics in found.get("coco", {}).items():
        show_statistics(statistics, split)
    for statistics in found.get("cache", {}).values():
        show_cache_statistics(statistics)
    for survey in (*surveys["coco"], *surveys["cache"]):
        click.echo("\n".join(survey_lines(survey)))
    click.echo(_("🖼️  Picture: {path}").format(path=picture))


def _survey_config(context: click.Context, given: dict[str, Any], *, wanted: bool) -> SurveyConfig | None:
    """What to score; None if nothing. Without --quality its options would do nothing, and are refused."""
    from console.language import _
    from preprocess.survey import SurveyConfig

    if wanted:
        return SurveyConfig(thresholds=thresholds_of(given), **given)
    for name in given:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(_("{option} is of --quality; give that, too").format(option=option))
    return None
