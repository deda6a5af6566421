"""What `quick`, `verify` and `analyze` print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cache.messages import message
from cache.spec import things
from console.language import _, plain, translated
from console.text import by_reason, count, files, shards, size, standard_output

if TYPE_CHECKING:
    from bench.hardware import Machine
    from preprocess.check.statistics import CacheStatistics, Statistics, Summary
    from preprocess.check.structure import Check
    from preprocess.check.verify import CacheReport, DatasetReport, Finding, SplitReport

SHOWN_FINDINGS = 20
"""How many findings are printed; the others are counted, and `--json` gives them all."""

_STYLES = {"===": "bold", "❌": "red", "✅": "green"}
_FOUND = {
    "root": message("✅ Main folder found: {path}"),
    "layout": message("✅ Layout: {note}"),
    "annotations": message("✅ Annotations folder found: {path}"),
    "annotation_file/train": message("✅ Training annotations found: {path} ({size})"),
    "annotation_file/val": message("✅ Validation annotations found: {path} ({size})"),
    "images": message("✅ Folder {folder} found with {value:,} images"),
    "index": message("✅ Cache index found: {path} (format {value})"),
    "spec": message("✅ Side {value}, {note}"),
    "samples/train": message("✅ Training samples: {value:,}"),
    "samples/val": message("✅ Validation samples: {value:,}"),
    "shards/train": message("✅ Training shards: {note}, {size}"),
    "shards/val": message("✅ Validation shards: {note}, {size}"),
}
_ANNOTATIONS = {
    ("train", True): message("✅ Training annotations readable: {file}, {images:,} images"),
    ("val", True): message("✅ Validation annotations readable: {file}, {images:,} images"),
    ("train", False): message("❌ Training annotations cannot be read"),
    ("val", False): message("❌ Validation annotations cannot be read"),
}
"""What is said of a split's annotations, readable or not."""

_SPLITS = {"train": message("Training"), "val": message("Validation")}
_LITTLE_SPACE = 20_000_000_000  # bytes; the guide's advice for COCO


def show_structure(checks: Sequence[Check]) -> None:
    """Print what `quick` found, of a dataset or of a cache."""
    cached = checks[0].kind == "index"
    missing = sum(not check.ok for check in checks)
    lines = [_("=== QUICK CACHE CHECK ===") if cached else _("=== QUICK COCO STRUCTURE CHECK ==="), ""]
    lines += [*map(_check_line, checks), ""]
    if missing:
        things = count(missing, "{count:,} thing", "{count:,} things")
        template = message("❌ {things} to mend before preprocessing")
        if cached:
            template = message("❌ {things} to mend before training")
        lines.append(_(template, things=things))
    elif cached:
        lines += [_("✅ Cache verified!"), _("   ✅ All its shards are there"), _("   ✅ Ready to train the model")]
    else:
        lines += [_("✅ COCO structure verified!"), _("   ✅ All the files needed are there")]
        lines.append(_("   ✅ Ready to preprocess"))
    _show(lines)


def _check_line(check: Check) -> str:
    if not check.ok:
        return _marked(check.problem, good=False)
    value = check.value or 0
    folder = check.path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    template = _FOUND.get(check.kind) or _FOUND[f"{check.kind}/{check.split}"]
    return _(template, path=check.path, folder=folder, value=value, size=size(value), note=check.note)


def show_machine(machine: Machine) -> None:
    """Print what `verify` says of the machine."""
    features = f" ({', '.join(machine.features)})" if machine.features else ""
    libraries = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    cores = count(machine.cores, "{count:,} core", "{count:,} cores")
    free, total = size(machine.memory_free), size(machine.memory_total)
    lines = [
        _("🖥️ Environment:"),
        _("   - Processor: {name}, {cores}", name=machine.processor, cores=cores) + features,
        _("   - Memory: {total}, {free} free", total=total, free=free),
        _("   - System: {system}, Python {python}", system=machine.system, python=machine.python),
        _("   - Libraries: {libraries}", libraries=libraries),
    ]
    for gpu in machine.gpus:
        values = {**vars(gpu), "memory": size(gpu.memory)}
        driver = _(", driver {driver}", driver=machine.driver) if machine.driver else ""
        lines.append(_("   - GPU: {name}, {memory}, capability {capability}", **values) + driver)
    if not machine.gpus:
        lines.append(_("   - GPU: none that torch can use; training runs on the CPU"))
    if machine.dali_devices is None:
        lines.append(_("   - DALI: not installed"))
    else:
        lines.append("   - DALI: " + count(machine.dali_devices, "{count:,} GPU", "{count:,} GPUs"))
    compiler = machine.compiler or message("none; the model runs without torch.compile on a CPU")
    lines.append(_("   - C++ compiler: {compiler}", compiler=compiler))
    if disk := machine.disk:
        little = _(" ⚠️ little for the whole of COCO") if disk.free < _LITTLE_SPACE else ""
        lines.append(_("   - Disk of {path}: {free} free", path=disk.path, free=size(disk.free)) + little)
    _show([*lines, ""])


def show_dataset(report: DatasetReport) -> None:
    """Print what `verify` found in a dataset."""
    lines = [_("=== COMPLETE CHECK OF {path} ===", path=report.coco), ""]
    if report.layout:
        lines.append(_("✅ Layout: {note}", note=report.layout))
    unusable = Counter(finding.split for finding in report.findings if finding.kind == "annotation")
    for split in report.splits:
        lines += _split_lines(split, report, unusable[split.split])
    lines += ["", *_findings((_where(each), translated(each.reason)) for each in report.findings)]
    _show([*lines, _("✅ Dataset is sound") if report.sound else _("❌ Dataset is not sound")])


def _split_lines(split: SplitReport, report: DatasetReport, unusable: int) -> list[str]:
    """What was found in a split, of whose annotations some are unusable."""
    if split.file:
        name = _(_SPLITS[split.split])
        values = {**vars(split), "split": name, "rule": report.spec.images}
        values["category"] = things(report.spec.category, 1)
        values["usable"] = split.annotations - unusable
        annotations = _("{split}: {usable:,} of {annotations:,} {category} annotations sound", **values)
        pictures = _(
            "{split}: {checked:,} of {selected:,} images (`--select {rule}`) are there, decode and have the size that "
            "the JSON says",
            **values,
        )
        lines = [
            _(_ANNOTATIONS[split.split, True], **values),
            _marked(annotations, good=not unusable),
            _marked(pictures, good=split.checked == split.selected),
        ]
    else:
        lines = [_(_ANNOTATIONS[split.split, False])]
    if split.absent:
        lines.append(_("   - {count:,} more images are not there and not needed", count=split.absent))
    if split.unlisted:
        lines.append(_("   - {files} that the JSON does not name", files=files(split.unlisted)))
    return [*lines, *_doubts(split.doubts)]


def _doubts(lines: Sequence[str]) -> list[str]:
    return [_("   - ⚠️ {doubt}", doubt=line) for line in lines]


def _marked(found: str, *, good: bool) -> str:
    return _("✅ {found}", found=found) if good else _("❌ {found}", found=found)


def _where(finding: Finding) -> str:
    where = f"{finding.split}/{finding.file}" if finding.split else finding.file
    if finding.image_id is not None:
        where = _("{where}, image {image_id}", where=where, image_id=finding.image_id)
    if finding.annotation_id is not None:
        where = _("{where}, annotation {annotation_id}", where=where, annotation_id=finding.annotation_id)
    return where


def show_cache(report: CacheReport) -> None:
    """Print what `verify` found in a cache."""
    lines = [_("=== COMPLETE CHECK OF {path} ===", path=report.cache), ""]
    if spec := report.spec:
        template = message("📦 Side {side}, {fit}, {codec} in {store}, masks of {things}, images: `--select {images}`")
        lines.append(_(template, things=things(spec.category), **vars(spec)))
    for split in report.splits:
        bad = sum(damage.where.startswith(split.split) for damage in report.damages)
        values = {**vars(split), "shards": shards(split.shards), "size": size(split.bytes)}
        if bad:
            values["damages"] = count(bad, "{count:,} damage", "{count:,} damages")
            line = _("❌ {split}: {damages} among {samples:,} records in {shards} ({size})", **values)
        else:
            line = _("✅ {split}: {samples:,} records in {shards} ({size}) sound", **values)
        if split.rejected:
            line += count(split.rejected, ", {count:,} image was rejected", ", {count:,} images were rejected")
        lines.append(line)
    if report.stale:
        lines += [_("❌ It no longer agrees with the dataset: {reason}", reason=reason) for reason in report.stale]
        lines.append(_("   The same `preprocess` again brings it up to date"))
    elif report.stale is not None:
        lines.append(_("✅ It agrees with the dataset"))
    lines += ["", *_findings((translated(each.where), translated(each.what)) for each in report.damages)]
    _show([*lines, _("✅ Cache is sound") if report.sound else _("❌ Cache is not sound")])


def _findings(found: Iterable[tuple[str, str]]) -> list[str]:
    """The first findings, and how many more there are."""
    reasons, more = by_reason(found, SHOWN_FINDINGS)
    lines = [_marked(line, good=False) for line in reasons]
    if more:
        lines.append(_("   and {count:,} more; `verify --json` names them all", count=more))
    return [*lines, ""] if lines else []


def show_statistics(statistics: Statistics, split: str, category: str | Sequence[str]) -> None:
    """Print what `analyze` counted of a category, or of several, in a split of a dataset."""
    s, masked = statistics, things(category)
    lines = [
        _("=== ANALYSIS OF COCO ANNOTATIONS: {split} ===", split=split),
        "",
        _("📈 General statistics:"),
        _("   - Total images: {count:,}", count=s.images),
        _("   - Total annotations: {count:,}", count=s.annotations),
        _("   - Valid annotations of {things}: {count:,}", things=masked, count=s.valid_persons),
        _("   - Images with valid {things}: {count:,}", things=masked, count=s.images_with_valid_persons),
        _("   - Mean number of {things} per image: {mean:.2f}", things=masked, mean=s.persons_per_image_mean),
        _("   - Largest number of {things} in one image: {count:,}", things=masked, count=s.persons_per_image_max),
        _("   - Crowd annotations: {count:,}", count=s.crowds),
    ]
    if s.unreadable:
        lines.append(_("   - Annotations that cannot be drawn: {count:,} (`verify` names them)", count=s.unreadable))
    lines += _doubts(s.doubts)
    if s.by_keypoints:
        lines.append(_("   - An annotation is valid when not a crowd and with a labelled keypoint"))
    else:
        lines.append(_("   - An annotation is valid when not a crowd; the file has no keypoints"))
    if s.area:
        lines += [
            "",
            _("📏 Sizes of valid annotations (area):"),
            _("   - Mean area: {area:,.0f} pixels²", area=s.area.mean),
            _("   - Smallest area: {area:,.0f} pixels²", area=s.area.minimum),
            _("   - Largest area: {area:,.0f} pixels²", area=s.area.maximum),
            _("   - Median: {area:,.0f} pixels²", area=s.area.median),
        ]
    lines += ["", _("🗂️ Images by rule (`preprocess --select`):")]
    lines += [f"   - {name}: {count:,}" for name, count in s.rules.items()]
    if s.width and s.height:
        lines += ["", _("🖼️ Image sizes:"), *_size_lines(s.width, s.height)]
    ready = _("✅ Analysis done. Dataset ready for preprocessing.")
    _show([*lines, "", ready if s.rules["person"] else _("❌ No image has an annotation of this category."), ""])


def show_cache_statistics(statistics: CacheStatistics) -> None:
    """Print what `analyze` counted in a split of a cache."""
    s, fraction, masked = statistics, statistics.person_fraction, things(statistics.spec.category)
    stored = _("{codec} in {store}", **vars(s.spec))
    whole, each = size(s.bytes), size(round(s.bytes_per_sample))
    quantiles = ", ".join(f"{100 * value:.1f}% ({percent}%)" for percent, value in s.person_fraction_quantiles.items())
    lines = [
        _("=== ANALYSIS OF THE CACHE: {split} ===", split=s.split),
        "",
        _("📈 General statistics:"),
        _("   - Samples: {samples:,} of side {side}; {rejected:,} images rejected", side=s.spec.side, **vars(s)),
        _("   - Number of {things}: {count:,}", things=masked, count=s.persons),
        _("   - Mean number of {things} per image: {mean:.2f}", things=masked, mean=s.persons_per_image_mean),
        _("   - Largest number of {things} in one image: {count:,}", things=masked, count=s.persons_per_image_max),
        _("   - Samples with an empty mask: {count:,}", count=s.without_person),
        "",
        _("📏 Pixels of the mask, share of the image:"),
        _("   - Mean: {percent:.1f}%", percent=100 * fraction.mean),
        _("   - Largest: {percent:.1f}%", percent=100 * fraction.maximum),
        _("   - Quantiles: {quantiles}", quantiles=quantiles),
        "",
        _("🖼️ Sizes of the photos:"),
        *_size_lines(s.width, s.height),
        "",
        _("💾 On disk:"),
        _("   - {size} in all, {each} a sample ({stored})", size=whole, each=each, stored=stored),
        "",
    ]
    _show(lines)


def _size_lines(width: Summary, height: Summary) -> list[str]:
    return [
        _("   - Width: {minimum:.0f} to {maximum:.0f} pixels, median {median:.0f}", **vars(width)),
        _("   - Height: {minimum:.0f} to {maximum:.0f} pixels, median {median:.0f}", **vars(height)),
    ]


def _show(lines: Iterable[str]) -> None:
    """Print lines as they are, never wrapped; on a terminal a line is coloured by the mark that it begins with."""
    out = standard_output()
    for line in lines:
        bare = line.lstrip()
        style = next((style for mark, style in _STYLES.items() if bare.startswith((mark, plain(mark)))), None)
        out.print(line, style=style, soft_wrap=True)
