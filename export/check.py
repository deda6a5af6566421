"""Exported files in use: how far their answers are from the checkpoint's, how fast they are, and the report of both.

Suffixes: N images, 3 RGB, 1 the person probability, H and W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch

from cache.arrays import F32, U8
from cache.choices import ExportFormat
from cache.messages import install, listed
from export.config import FILES, ExportConfig, ExportError
from export.network import INPUT, LEAST_STRIDES, OUTPUT
from export.record import THRESHOLD
from preprocess.synth.dataset import SynthConfig, render

Answer = Callable[[U8], F32]
"""Gives `probability_N1HW` of `image_N3HW`."""

CHECKPOINT = "checkpoint"
"""The name in `ExportReport.latency` of the network that was exported."""

TOLERANCE = 1e-4
"""Largest difference of a probability: a fortieth of a grey level of an 8-bit mask. Sums in another order give 1e-6."""

WARM_UP, LEAST_ROUNDS, MOST_ROUNDS, SECONDS = 2, 5, 100, 10.0
"""Rounds go on until so many seconds have passed, or there are `MOST_ROUNDS`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A file's answers beside those of the checkpoint's network in fp32."""

    shapes: tuple[tuple[int, int, int, int], ...]  # of the batches that were compared, (N, 3, H, W)
    pixels: int  # in them
    largest: float  # absolute difference of the probability
    mean: float  # the same on average
    decisions: float  # share of pixels that only one of both takes for a person, at a probability of a half


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of one answer: the median, and the values that a tenth of the runs is below, and above."""

    median: float
    p10: float
    p90: float
    runs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file."""

    format: ExportFormat
    path: Path
    bytes: int
    difference: Difference  # from the checkpoint's answers, read back from the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport:
    """An export."""

    model: Path  # the checkpoint
    network: str  # its network, as `unet 32`
    parameters: int  # how many it has
    stride: int  # height and width are multiples of it, pixels
    normalisation: Mapping[str, tuple[float, ...]]  # what the network does first: `mean` and `std` per channel
    trained_side: int  # side of the square that it was trained on, pixels
    side: int  # side at which it was compared and timed, pixels
    opset: int | None  # of ONNX; None without that
    metadata: Mapping[str, str]  # what the files say of themselves
    files: tuple[ExportedFile, ...]  # those that were written, without the card
    card: Path
    latency: Mapping[str, Latency]  # of one image at `side`, by `CHECKPOINT` and format; empty if not measured
    threads: int  # of each while it was timed
    environment: Mapping[str, str]  # the processor, and the versions of what computes
    notes: tuple[str, ...]  # what is worth knowing, a sentence each

    @property
    def least(self) -> int:
        """The least height and width, pixels."""
        return LEAST_STRIDES * self.stride


def check_packages(config: ExportConfig) -> None:
    """Raise an `ExportError` if packages of a format are not installed."""
    needed = ("onnx", "onnxruntime", "onnxscript") if "onnx" in config.formats else ()
    if missing := [name for name in needed if find_spec(name) is None]:
        values = {"missing": listed(missing, "and"), "install": install("export")}
        raise ExportError(
            "format=onnx needs {missing}, not installed here: {install}, or use --format program", **values
        )


def load_file(path: Path, kind: ExportFormat, threads: int) -> Answer:
    """Load a file on the CPU. ONNX Runtime works with so many threads; a program takes as many as torch has."""
    if kind == "program":
        module = torch.export.load(path).module().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def answer(image_N3HW: U8) -> F32:
            with torch.no_grad():
                return np.asarray(module(torch.from_numpy(image_N3HW)).numpy())

        return answer
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # an error comes as an exception; that is enough
    # Otherwise its threads spin for a while after each answer, in the way of what is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image_N3HW: np.asarray(session.run([OUTPUT], {INPUT: image_N3HW})[0])


def batches(side: int, stride: int) -> Iterator[U8]:
    """The images to compare on, the same each time: drawn scenes with persons, and noise, by turns.

    The square ones have this side, a multiple of the network's stride.
    """
    least = LEAST_STRIDES * stride
    half = max(least, side // 2 // stride * stride)
    shapes = (1, side, side), (2, side, side), (1, side, half), (2, half, side + stride), (4, least, least + stride)
    rng = np.random.default_rng(0)
    drawn = 0
    for count, height, width in shapes:
        batch_NHW3 = np.empty((count, height, width, 3), np.uint8)
        for image_HW3 in batch_NHW3:
            if drawn % 2:
                image_HW3[:] = rng.integers(0, 256, image_HW3.shape, np.uint8)
            else:
                scene = render(drawn, SynthConfig(seed=0)).image
                image_HW3[:] = cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA)
            drawn += 1
        yield np.ascontiguousarray(batch_NHW3.transpose(0, 3, 1, 2))


def compare(answer: Answer, reference: Answer, side: int, stride: int) -> Difference:
    """Compare the answers of both on `batches`."""
    shapes, largest, total, pixels, decisions = [], 0.0, 0.0, 0, 0
    for image_N3HW in batches(side, stride):
        mine_N1HW, true_N1HW = answer(image_N3HW), reference(image_N3HW)
        apart_N1HW = np.abs(mine_N1HW.astype(np.float64) - true_N1HW)
        shapes.append(image_N3HW.shape)
        largest = float(np.maximum(largest, apart_N1HW.max()))  # unlike `max`, it keeps what is no number
        total += float(apart_N1HW.sum())
        pixels += apart_N1HW.size
        decisions += int(np.count_nonzero((mine_N1HW > THRESHOLD) != (true_N1HW > THRESHOLD)))
    return Difference(
        shapes=tuple(shapes), pixels=pixels, largest=largest, mean=total / pixels, decisions=decisions / pixels
    )


def check(difference: Difference, kind: ExportFormat) -> None:
    """Raise an `ExportError` if an answer is further from the checkpoint's than `TOLERANCE`, or is no number."""
    if not difference.largest <= TOLERANCE:  # true of what is no number, too
        raise ExportError(
            "{file} answers otherwise than the checkpoint: probabilities differ by up to {largest:.2g}, and "
            "{tolerance:g} is the limit; nothing was written: try another --format, or another --opset",
            file=FILES[kind],
            largest=difference.largest,
            tolerance=TOLERANCE,
        )


def measure(runs: Mapping[str, Callable[[], object]]) -> dict[str, Latency]:
    """Time each in every round, so that a slow moment of the machine affects them all.

    Each round begins with another one. Whatever is called must have finished when it returns.
    """
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    names = list(runs)
    found: dict[str, list[float]] = {name: [] for name in names}
    started = perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and perf_counter() - started > SECONDS:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            before = perf_counter()
            runs[name]()
            found[name].append(1000 * (perf_counter() - before))
    latency = {}
    for name, values in found.items():
        p10, median, p90 = np.quantile(values, (0.1, 0.5, 0.9)).tolist()
        latency[name] = Latency(median=median, p10=p10, p90=p90, runs=len(values))
    return latency
