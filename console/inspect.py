"""What `quick`, `verify` and `analyze` say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from console.text import count, size

if TYPE_CHECKING:
    from rich.console import Console

    from bench.hardware import Machine
    from preprocess.analyze import CacheStatistics, Statistics, Summary
    from preprocess.cache_soundness import CacheSoundness
    from preprocess.soundness import DatasetSoundness
    from preprocess.structure import Check

SHOWN_FINDINGS = 20
"""More than these are only counted; `--json` gives all."""

_SPLITS = {"train": "Training", "val": "Validation"}
_STYLES = {"===": "bold", "❌": "red", "✅": "green"}
_LITTLE_SPACE = 20_000_000_000  # bytes; the guide's advice for COCO


def show_structure(checks: Sequence[Check], console: Console | None = None) -> None:
    """Print what `quick` found, of a dataset or of a cache."""
    cached = checks[0].kind == "index"
    lines = [f"=== QUICK {'CACHE' if cached else 'COCO STRUCTURE'} CHECK ===", ""]
    lines += [_check_line(check) for check in checks]
    missing = sum(not check.ok for check in checks)
    lines.append("")
    if missing:
        lines.append(f"❌ {count(missing, 'thing')} to mend before {'training' if cached else 'preprocessing'}")
    elif cached:
        lines += ["✅ Cache verified!", "   ✅ All its shards are there", "   ✅ Ready to train the model"]
    else:
        lines += [
            "✅ COCO structure verified!",
            "   ✅ All the files needed are there",
            "   ✅ Ready to preprocess",
        ]
    _show(lines, console)


def _check_line(check: Check) -> str:
    if not check.ok:
        return f"❌ {check.problem}"
    split, value = _SPLITS.get(check.split, check.split), check.value or 0
    folder = check.path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    said = {
        "root": f"Main folder found: {check.path}",
        "annotations": f"Annotations folder found: {check.path}",
        "annotation_file": f"{split} annotations found: {check.path} ({size(value)})",
        "images": f"Folder {folder} found with {value:,} images",
        "index": f"Cache index found: {check.path} (format {value})",
        "spec": f"Side {value}, {check.note}",
        "samples": f"{split} samples: {value:,}",
        "shards": f"{split} shards: {check.note}, {size(value)}",
    }
    return f"✅ {said[check.kind]}"


def show_machine(machine: Machine, console: Console | None = None) -> None:
    """Print what `verify` says of the machine."""
    features = f" ({', '.join(machine.features)})" if machine.features else ""
    libraries = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines = [
        "🖥️ Environment:",
        f"   - Processor: {machine.processor}, {count(machine.cores, 'core')}{features}",
        f"   - Memory: {size(machine.memory_total)}, {size(machine.memory_free)} free",
        f"   - System: {machine.system}, Python {machine.python}",
        f"   - Libraries: {libraries}",
    ]
    for gpu in machine.gpus:
        driver = f", driver {machine.driver}" if machine.driver else ""
        lines.append(f"   - GPU: {gpu.name}, {size(gpu.memory)}, capability {gpu.capability}{driver}")
    if not machine.gpus:
        lines.append("   - GPU: none that torch can use; training runs on the CPU")
    if machine.dali_devices is None:
        lines.append("   - DALI: not installed")
    else:
        lines.append(f"   - DALI: {count(machine.dali_devices, 'GPU')}")
    lines.append(f"   - C++ compiler: {machine.compiler or 'none; the model runs without torch.compile on a CPU'}")
    if machine.disk:
        little = " ⚠️ little for the whole of COCO" if machine.disk.free < _LITTLE_SPACE else ""
        lines.append(f"   - Disk of {machine.disk.path}: {size(machine.disk.free)} free{little}")
    _show([*lines, ""], console)


def show_dataset(soundness: DatasetSoundness, console: Console | None = None) -> None:
    """Print what `verify` found in a dataset."""
    lines = [f"=== COMPLETE CHECK OF {soundness.coco} ===", ""]
    wrong: dict[str, dict[str, int]] = {}
    for finding in soundness.findings:
        counts = wrong.setdefault(finding.split, {})
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
    verb = "are there, decode and have the size that the JSON says" if soundness.decoded else "are there"
    for split in soundness.splits:
        bad = wrong.get(split.split, {})
        name = _SPLITS.get(split.split, split.split)
        if split.file:
            lines.append(f"✅ {name} annotations readable: {split.file}, {split.images:,} images")
            usable = split.annotations - bad.get("annotation", 0)
            mark = "❌" if bad.get("annotation") else "✅"
            lines.append(f"{mark} {name}: {usable:,} of {split.annotations:,} {soundness.category} annotations sound")
            mark = "✅" if split.checked == split.selected else "❌"
            lines.append(
                f"{mark} {name}: {split.checked:,} of {split.selected:,} images ({soundness.rule} rule) {verb}"
            )
        else:
            lines.append(f"❌ {name} annotations cannot be read")
        if split.absent:
            lines.append(f"   - {split.absent:,} more images are not there and not needed")
        if split.unlisted:
            lines.append(f"   - {count(split.unlisted, 'file')} that the JSON does not name")
    lines += ["", *_findings(_describe(soundness))]
    _show([*lines, "✅ Dataset is sound" if soundness.sound else "❌ Dataset is not sound"], console)


def _describe(soundness: DatasetSoundness) -> list[str]:
    described = []
    for finding in soundness.findings:
        annotation = f", annotation {finding.annotation_id}" if finding.annotation_id is not None else ""
        image = f", image {finding.image_id}" if finding.image_id is not None else ""
        described.append(f"{finding.split}/{finding.file}{image}{annotation}: {finding.reason}")
    return described


def show_cache(soundness: CacheSoundness, console: Console | None = None) -> None:
    """Print what `verify` found in a cache."""
    lines = [f"=== COMPLETE CHECK OF {soundness.cache} ===", ""]
    spec = soundness.spec
    if spec:
        lines.append(f"📦 Side {spec.side}, {spec.fit}, {spec.codec} in {spec.store}, images: {spec.images}")
    for split in soundness.splits:
        bad = sum(damage.where.startswith(split.split) for damage in soundness.damages)
        what = f"{split.samples:,} records in {count(split.shards, 'shard')} ({size(split.bytes)})"
        rejected = f", {split.rejected:,} images were rejected" if split.rejected else ""
        found = f"❌ {split.split}: {count(bad, 'damage')} among {what}" if bad else f"✅ {split.split}: {what} sound"
        lines.append(found + rejected)
    if soundness.stale:
        lines += [f"❌ It no longer agrees with the dataset: {reason}" for reason in soundness.stale]
        lines.append("   The same `preprocess` again brings it up to date")
    elif soundness.stale is not None:
        lines.append("✅ It agrees with the dataset")
    lines += ["", *_findings(f"{damage.where}: {damage.what}" for damage in soundness.damages)]
    _show([*lines, "✅ Cache is sound" if soundness.sound else "❌ Cache is not sound"], console)


def _findings(described: Iterable[str]) -> list[str]:
    """The first findings, and how many more there are."""
    found = list(described)
    lines = [f"❌ {text}" for text in found[:SHOWN_FINDINGS]]
    if len(found) > SHOWN_FINDINGS:
        lines.append(f"   and {len(found) - SHOWN_FINDINGS:,} more; --json names them all")
    return [*lines, ""] if lines else []


def show_statistics(statistics: Statistics, split: str, console: Console | None = None) -> None:
    """Print what `analyze` counted in a split of a dataset."""
    s = statistics
    lines = [
        f"=== ANALYSIS OF COCO ANNOTATIONS: {split} ===",
        "",
        "📈 General statistics:",
        f"   - Total images: {s.images:,}",
        f"   - Total annotations: {s.annotations:,}",
        f"   - Valid person annotations: {s.valid_persons:,}",
        f"   - Images with valid persons: {s.images_with_valid_persons:,}",
        f"   - Persons per image, mean: {s.persons_per_image_mean:.2f}",
        f"   - Persons in one image, maximum: {s.persons_per_image_max:,}",
        f"   - Crowd annotations: {s.crowds:,}",
    ]
    if s.unreadable:
        lines.append(f"   - Annotations that cannot be drawn: {s.unreadable:,} (`verify` names them)")
    rule = "not a crowd and with a labelled keypoint" if s.by_keypoints else "not a crowd; the file has no keypoints"
    lines.append(f"   - A person is valid when {rule}")
    if s.area:
        lines += [
            "",
            "📏 Sizes of valid persons (area):",
            f"   - Mean area: {s.area.mean:,.0f} pixels²",
            f"   - Smallest area: {s.area.minimum:,.0f} pixels²",
            f"   - Largest area: {s.area.maximum:,.0f} pixels²",
            f"   - Median: {s.area.median:,.0f} pixels²",
        ]
    lines += ["", "🗂️ Images by rule (--images):"]
    lines += [f"   - {name}: {count:,}" for name, count in s.rules.items()]
    if s.width and s.height:
        lines += ["", "🖼️ Image sizes:", *_size_lines(s.width, s.height)]
    ready = "✅ Analysis done. Dataset ready for preprocessing." if s.rules["person"] else "❌ No image has a person."
    _show([*lines, "", ready, ""], console)


def show_cache_statistics(statistics: CacheStatistics, console: Console | None = None) -> None:
    """Print what `analyze` counted in a split of a cache."""
    s, fraction = statistics, statistics.person_fraction
    stored = f"{s.spec.codec} in {s.spec.store}"
    quantiles = ", ".join(f"{100 * value:.1f}% ({percent}%)" for percent, value in s.person_fraction_quantiles.items())
    _show(
        [
            f"=== ANALYSIS OF THE CACHE: {s.split} ===",
            "",
            "📈 General statistics:",
            f"   - Samples: {s.samples:,} of side {s.spec.side}; {s.rejected:,} images rejected",
            f"   - Persons: {s.persons:,}",
            f"   - Persons per image, mean: {s.persons_per_image_mean:.2f}",
            f"   - Persons in one image, maximum: {s.persons_per_image_max:,}",
            f"   - Samples without a person: {s.without_person:,}",
            "",
            "📏 Person pixels, share of the image:",
            f"   - Mean: {100 * fraction.mean:.1f}%",
            f"   - Largest: {100 * fraction.maximum:.1f}%",
            f"   - Quantiles: {quantiles}",
            "",
            "🖼️ Sizes of the photos:",
            *_size_lines(s.width, s.height),
            "",
            "💾 On disk:",
            f"   - {size(s.bytes)} in all, {size(round(s.bytes_per_sample))} a sample ({stored})",
            "",
        ],
        console,
    )


def _size_lines(width: Summary, height: Summary) -> list[str]:
    return [
        f"   - {name}: {each.minimum:.0f} to {each.maximum:.0f} pixels, median {each.median:.0f}"
        for name, each in (("Width", width), ("Height", height))
    ]


def _show(lines: Iterable[str], console: Console | None) -> None:
    """Print lines as they are: coloured on a terminal, never wrapped, and no bracket in a path taken for markup."""
    from rich.console import Console

    out = console or Console()
    for line in lines:
        style = next((style for mark, style in _STYLES.items() if line.lstrip().startswith(mark)), None)
        out.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
