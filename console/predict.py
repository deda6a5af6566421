"""What `predict` prints."""

from __future__ import annotations

from collections import Counter

from cache.choices import PredictKind
from cache.messages import listed, message
from console.language import _, ngettext, translated
from console.quality import summary_line
from console.text import at_most, bulleted, count, duration, figure, photos, rejected
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
    lines = [*bulleted(report.notes), *_passed_over(report)]
    everything: tuple[PhotoResult | VideoResult, ...] = (*report.photos, *report.videos)
    skipped = [str(each.output) for each in everything if each.status == "skipped"]
    for those, counted in ((report.photos, photos), (report.videos, _videos)):
        names = [f"{each.input}: {translated(each.reason or '')}" for each in those if each.status == "rejected"]
        lines += _named(_("⚠️  {photos} left out:", photos=counted(len(names))), names)
    results = count(len(skipped), "{count:,} result", "{count:,} results")
    lines += _named(_("   - {results} there already, --overwrite makes them anew:", results=results), skipped)
    lines += [line for video in report.videos for line in _video_lines(video)]
    done, failed = report.count("done"), report.count("rejected")
    parts = [count(done, "{count:,} done", "{count:,} done"), rejected(failed)]
    if skipped:
        parts.append(count(len(skipped), "{count:,} skipped", "{count:,} skipped"))
    said = ", ".join(parts)
    if report.images_per_s:
        time, rate = duration(report.seconds), figure(report.images_per_s)
        said = _("{done} in {time}, {rate} images/s", done=said, time=time, rate=rate)
    if quality := summary_line((photo.scores for photo in report.photos), report.config.quality):
        lines.append(quality)
    place = _("standard output") if report.config.to_standard_output else str(report.config.out)
    values = {**vars(report), "done": said, "results": _(_RESULTS[report.config.kind], place=place)}
    if failed:
        return [*lines, _("❌ {done} ({device}, {precision}, side {side}): {results}", **values)]
    return [*lines, _("✅ {done} ({device}, {precision}, side {side}): {results}", **values)]


def _passed_over(report: PredictReport) -> list[str]:
    """How many files of the folders are no photos and no videos, and which kinds of files they are."""
    files = report.passed_over
    if not files:
        return []
    kinds = Counter(_("hidden") if file.hidden else file.file.suffix.lower() or _("no suffix") for file in files)
    values = {
        "count": len(files),
        "folders": translated(listed(dict.fromkeys(f"{file.folder}/" for file in files), "and")),
        "kinds": ", ".join([kind for kind, _number in kinds.most_common(SHOWN)] + ["..."] * (len(kinds) > SHOWN)),
    }
    line = ngettext(
        "   - {count:,} file of {folders} was passed over: {kinds}",
        "   - {count:,} files of {folders} were passed over: {kinds}",
        len(files),
        **values,
    )
    return [line]


def _videos(number: int) -> str:
    return count(number, "{count:,} video", "{count:,} videos")


def _video_lines(video: VideoResult) -> list[str]:
    """What was done, and what is worth knowing of it."""
    if video.status != "done":
        return []
    frames, time = count(video.frames, "{count:,} frame", "{count:,} frames"), duration(video.seconds or 0)
    values = {**vars(video), "name": video.input, "frames": frames, "time": time}
    values |= {"fps": figure(video.fps or 0), "rate": figure(video.frames_per_s)}
    line = _("🎬 {name}: {frames} of {width} x {height} at {fps} fps in {time}, {rate} frames/s", **values)
    return [line, *bulleted(video.notes)]


def _named(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = _("      and {count:,} more: --json names them all")
    return [title, *at_most(SHOWN, [f"      {name}" for name in names], more)]
