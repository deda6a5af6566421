"""What `predict` says."""

from __future__ import annotations

from cache.choices import PredictKind
from cache.messages import message
from console.language import _, ngettext, translated
from console.quality import summary_line
from console.text import at_most, bulleted, count, duration, figure, rejected
from predict.config import PhotoResult, PredictReport, VideoResult

SHOWN = 10
"""Photos that are named, of each kind that wants naming."""

_RESULTS: dict[PredictKind, str] = {
    "cutout": message("cutouts in {place}"),
    "mask": message("masks in {place}"),
    "composite": message("composites in {place}"),
}


def predict_lines(report: PredictReport) -> list[str]:
    """What was left out and why, and in one line what was done."""
    lines = bulleted(report.notes)
    everything: tuple[PhotoResult | VideoResult, ...] = (*report.photos, *report.videos)
    skipped = [str(each.output) for each in everything if each.status == "skipped"]
    photo, video = ("{count:,} photo", "{count:,} photos"), ("{count:,} video", "{count:,} videos")
    for words, those in ((photo, report.photos), (video, report.videos)):
        names = [f"{each.input}: {translated(each.reason or '')}" for each in those if each.status == "rejected"]
        lines += _named(_("⚠️  {photos} left out:", photos=count(len(names), *words)), names)
    there = _("   - {results} there already, --overwrite makes them anew:")
    lines += _named(there.format(results=count(len(skipped), "{count:,} result", "{count:,} results")), skipped)
    where = _("standard output") if report.config.to_standard_output else str(report.config.out)
    done, failed = report.count("done"), report.count("rejected")
    lines += [line for video in report.videos for line in _video_lines(video)]
    parts = [ngettext("{count:,} done", "{count:,} done", done, count=done), rejected(failed)]
    if skipped:
        parts.append(ngettext("{count:,} skipped", "{count:,} skipped", len(skipped), count=len(skipped)))
    said = ", ".join(parts)
    if report.images_per_s:
        rate = _("{done} in {time}, {rate} images/s")
        said = rate.format(done=said, time=duration(report.seconds), rate=figure(report.images_per_s))
    line = _("❌ {done} ({device}, {precision}, side {side}): {results}")
    if not failed:
        line = _("✅ {done} ({device}, {precision}, side {side}): {results}")
    results = _(_RESULTS[report.config.kind], place=where)
    how = {"device": report.device, "precision": report.precision, "side": report.side}
    quality = summary_line((photo.scores for photo in report.photos), report.config.quality)
    lines += [quality] if quality else []
    return [*lines, line.format(done=said, results=results, **how)]


def _video_lines(video: VideoResult) -> list[str]:
    """What was done, and what is worth knowing of it."""
    if video.status != "done":
        return []
    line = _(
        "🎬 {name}: {frames} of {width} x {height} at {fps} fps in {time}, {rate} frames/s",
        name=video.input,
        frames=count(video.frames, "{count:,} frame", "{count:,} frames"),
        width=video.width,
        height=video.height,
        fps=figure(video.fps or 0),
        time=duration(video.seconds or 0),
        rate=figure(video.frames_per_s),
    )
    return [line, *bulleted(video.notes)]


def _named(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = _("      and {count:,} more: --json names them all")
    return [title, *at_most(SHOWN, [f"      {name}" for name in names], more)]
