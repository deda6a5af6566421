"""What is counted of a network, and the times that are made of it."""

import dataclasses
import json
import math
import re
import statistics
from functools import partial

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from bench.calibration import (
    OTHER_NETWORK,
    OTHERWISE,
    RESULTS,
    Calibration,
    calibrations,
    count_published,
    efficiency_of,
    measured_roof,
)
from bench.census import Census, Operation, count_step, take_census
from bench.estimate import NETWORKS, card_rows, estimate_profile, estimate_step
from bench.hardware import Gpu, Machine
from bench.report import BenchError, BenchReport, Row, write_json
from bench.roofline import (
    CARDS,
    COPIED,
    OVERHEAD,
    Card,
    Roof,
    find_card,
    implied_efficiency,
    memory_bound_share,
    step_seconds,
)
from bench.suites.model import count_flops
from cli import main
from model.loss import LOSSES
from model.network import NetworkConfig, build_network
from train.profiles import PROFILES

SMALL = NetworkConfig(name="resunet", width=8)
MACHINE = Machine(
    **{"processor": "some", "cores": 2, "features": (), "memory_total": 8 << 30, "memory_free": 4 << 30},
    **{"system": "Linux", "python": "3.12", "versions": {}, "gpus": (), "driver": None, "dali_devices": None},
    **{"compiler": None, "disk": None},
)


def operation(flops=0, read=0, written=0, pointwise=False, name="x"):
    return Operation(name=name, flops=flops, read=read, written=written, pointwise=pointwise)


def roof_of(peak, bandwidth, compiled=False, overhead=0.0, kind="tensor cores", machine="a"):
    return Roof(machine=machine, kind=kind, peak=peak, bandwidth=bandwidth, compiled=compiled, overhead=overhead)


def measured_rate(row):
    """Images per second."""
    return row.count().images / row.seconds


def leave_one_out(rows):
    """By how much each row's rate is missed when it is predicted from those of other series, as predicted / measured -
    1; None where no other is of its kind."""
    for row in rows:
        others = [other for other in rows if other is not row and not (row.series and other.series == row.series)]
        try:
            yield estimate_step(row.count(), row.roof, row.family, others).images_per_s / measured_rate(row) - 1
        except BenchError:
            yield None


def census_of(*operations, images=4):
    return Census(images=images, operations=operations, parameters=0, saved=0, largest=0)


# ------------------------------------------------------------------------------------------------------- census


@pytest.mark.parametrize(
    "network", [SMALL, NetworkConfig(name="unet", width=8), NetworkConfig(name="attention_unet", width=8)]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_flops_are_those_of_torchs_own_counter(network, precision):
    census = take_census(network, side=64, batch_size=3, precision=precision)
    assert census.flops == 3 * count_flops(network, 64, backward=True)
    assert census.parameters == sum(parameter.numel() for parameter in build_network(network).parameters())


@pytest.mark.parametrize(
    ("network", "forward", "parameters"),
    [
        ("UNet_Medical", 301, 31.03),  # NVIDIA: 301 GFLOP forward for an image of 572 pixels
        ("ResNet-50", 2 * 4.09, 25.557032),  # torchvision's documentation
        ("nnU-Net", 13.38, 20.613092),  # by hand, from NVIDIA's description
    ],
)
def test_published_networks_have_the_arithmetic_that_their_makers_say(network, forward, parameters):
    census = count_published(network, 8, "fp16")
    counted = sum(one.flops for one in census.operations if one.name == "convolution")
    assert counted / 8 / 1e9 == pytest.approx(forward, rel=0.002)
    assert census.parameters / 1e6 == pytest.approx(parameters, rel=0.0001)


def test_traffic_of_a_layer_is_what_one_counts_by_hand():
    """A convolution of 8 by 8 channels on 2 images of 16 pixels, BatchNorm, ReLU; then the way back."""
    features, weights, channel = 4 * 2 * 8 * 16 * 16, 4 * 8 * 8 * 9, 4 * 8

    def step(network):
        image = torch.empty(2, 8, 16, 16, requires_grad=True)
        return network(image).sum()

    def build():
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))

    census = count_step(build, step, 2)
    found = {one.name: one for one in census.operations}
    flops = 2 * 2 * 16 * 16 * 8 * 8 * 9
    for name, read, written in (
        ("convolution", features + weights, features),
        ("convolution, data gradient", features + weights, features),
        ("convolution, weight gradient", 2 * features, weights),
    ):
        assert (found[name].flops, found[name].read, found[name].written) == (flops, read, written), name
    # Statistics and normalising go over the features once each; so do the two sums of the way back and its result.
    assert found["native_batch_norm"].read == pytest.approx(2 * features, abs=12 * channel)
    assert found["native_batch_norm_backward"].read == pytest.approx(4 * features, abs=12 * channel)
    assert (found["relu_"].read, found["relu_"].written) == (features, features)
    assert (found["threshold_backward"].read, found["threshold_backward"].written) == (2 * features, features)
    parameters = 4 * (8 * 8 * 9 + 2 * 8)
    assert (found["adamw"].read, found["adamw"].written) == (4 * parameters, 3 * parameters)
    # The image, what BatchNorm is given, what ReLU made, and a few numbers a channel.
    assert census.saved == pytest.approx(3 * features, abs=4 * channel)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_saved_is_what_a_real_step_saves(precision):
    """The oracle is autograd at work on real tensors."""
    network = build_network(SMALL)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    saved, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    image = torch.zeros(2, 64, 64, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    plane = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = network(image)
        LOSSES["bce_dice"](logits, plane, plane)
    census = take_census(SMALL, side=64, batch_size=2, precision=precision)
    assert census.saved == pytest.approx(sum(saved.values()), rel=0.02)


def test_traffic_grows_with_the_batch_and_halves_in_16_bits():
    one, two = (take_census(SMALL, side=64, batch_size=size, precision="fp32") for size in (2, 4))
    narrow = take_census(SMALL, side=64, batch_size=4, precision="bf16")

    def convolutions(census):
        return sum(one.bytes for one in census.operations if one.name.startswith("convolution"))

    weights = 3 * 4 * sum(p.numel() for p in build_network(SMALL).parameters() if p.ndim == 4)
    assert convolutions(two) - weights == pytest.approx(2 * (convolutions(one) - weights), rel=0.01)
    assert convolutions(narrow) == pytest.approx(convolutions(two) / 2, rel=0.01)


# ------------------------------------------------------------------------------------------------------- roofline


def test_each_operation_takes_the_longer_of_arithmetic_and_traffic():
    roof = roof_of(100.0, 10.0)
    arithmetic, traffic = operation(flops=100, read=1), operation(flops=1, read=50, written=35)
    assert step_seconds(census_of(arithmetic, traffic), roof, 0.5) == pytest.approx(100 / 50 + 85 / (COPIED * 10))
    assert memory_bound_share(census_of(arithmetic, traffic), roof, 0.5) == pytest.approx(10 / 12)
    overhead = dataclasses.replace(roof, overhead=0.25)
    assert step_seconds(census_of(arithmetic, traffic), overhead, 0.5) == pytest.approx(12.5)


def test_compiled_pointwise_operations_cost_nothing_but_a_relus_mask():
    relu = operation(read=85, written=85, pointwise=True, name="relu_")
    mask = operation(read=170, written=85, pointwise=True, name="threshold_backward")
    roof = roof_of(1.0, 10.0, compiled=True)
    assert step_seconds(census_of(relu), roof, 1) == 0
    assert step_seconds(census_of(mask), roof, 1) == pytest.approx(10)
    assert step_seconds(census_of(relu, mask), dataclasses.replace(roof, compiled=False), 1) == pytest.approx(50)


@pytest.mark.parametrize("efficiency", [0.05, 0.4, 1.2])
def test_the_efficiency_of_a_time_gives_that_time(efficiency):
    census = take_census(SMALL, side=64, batch_size=2, precision="fp32")
    roof = roof_of(1e9, 1e10, overhead=1e-6)
    seconds = step_seconds(census, roof, efficiency)
    found = implied_efficiency(census, roof, seconds)
    assert found == pytest.approx(efficiency, rel=1e-6)
    assert implied_efficiency(census, roof, seconds / 1e4) is None


# ------------------------------------------------------------------------------------------------------- cards


@pytest.mark.parametrize("name", ["RTX 4090", "rtx4090", "NVIDIA GeForce RTX 4090", "geforce-rtx-4090"])
def test_cards_are_found_however_they_are_spelled(name):
    assert find_card(name) is CARDS[0]


def test_every_profile_of_a_card_has_one():
    assert {card.profile for card in CARDS} - {""} == set(PROFILES) - {"cpu", "auto"}


@pytest.mark.parametrize(("name", "tflops"), [("A100", 156), ("RTX 4090", 82.6), ("H100", 494.7), ("L4", 60)])
def test_tf32_is_an_own_kind_with_the_peak_of_the_data_sheets(name, tflops):
    roof = find_card(name).roof("tf32", compiled=True)
    assert (roof.kind, roof.peak / 1e12) == ("tf32", pytest.approx(tflops, rel=0.01))


@pytest.mark.parametrize("name", ["V100", "T4", "GTX 1080"])
def test_cards_before_ampere_have_no_tf32(name):
    with pytest.raises(BenchError, match=f"precision=tf32, but {name} has no tensor cores"):
        find_card(name).roof("tf32", compiled=True)


def test_an_unknown_card_and_a_card_that_cannot_are_refused():
    with pytest.raises(BenchError, match=r"gpu='RTX 4099' is not listed \(near it: RTX 4090.*--peak TFLOP/s"):
        find_card("RTX 4099")
    with pytest.raises(BenchError, match="precision=bf16, but GTX 1080 has no tensor cores for it; use fp32"):
        find_card("GTX 1080").peak("bf16")
    with pytest.raises(BenchError, match="bandwidth=0 is not a positive number of GB/s"):
        Card(name="x", memory=1, bandwidth=0, fp32=1, narrow=None)


# ------------------------------------------------------------------------------------------------------- calibration


def calibration(name, seconds, *, kind="tensor cores", family="unet", machine="a", flops=100):
    roof = roof_of(100.0, 1e9, compiled=True, kind=kind, machine=machine)
    return Calibration(name=name, family=family, seconds=seconds, roof=roof,
                       count=lambda: census_of(operation(flops=flops, read=1)))  # fmt: skip


def test_rows_of_the_same_machine_then_of_the_same_network_count_alone():
    rows = [
        calibration("a unet", 2.0),  # efficiency 0.5
        calibration("a resunet", 5.0, family="resunet"),  # 0.2
        calibration("b resunet", 1.25, family="resunet", machine="b"),  # 0.8
        calibration("fp32", 1.0, kind="fp32 on a GPU"),
    ]
    assert efficiency_of(rows, roof_of(100, 1e9), "resunet").rows == ("a resunet",)
    assert efficiency_of(rows, roof_of(100, 1e9), "attention_unet").rows == ("a unet", "a resunet")
    found = efficiency_of(rows, roof_of(100, 1e9, machine="c"), "resunet")
    assert found.rows == ("a resunet", "b resunet")
    assert (found.low, found.middle, found.high) == pytest.approx((0.2, 0.4, 0.8))
    alone = efficiency_of(rows, roof_of(100, 1e9), "unet")
    assert (alone.low, alone.high) == pytest.approx((0.5 / (1 + OTHERWISE), 0.5 * (1 + OTHERWISE)))
    other = efficiency_of(rows[:1], roof_of(100, 1e9), "resunet")
    assert (other.low, other.high) == pytest.approx((0.5 / (1 + OTHER_NETWORK), 0.5 * (1 + OTHER_NETWORK)))
    assert efficiency_of(rows, roof_of(100, 1e9, kind="bf16 on a CPU"), "unet") is None


def test_a_network_that_others_measured_elsewhere_is_scaled_by_how_the_machines_compare():
    rows = [
        calibration("a unet", 2.0),  # efficiency 0.5
        calibration("a resunet", 5.0, family="resunet"),  # 0.2
        calibration("b unet", 4.0, machine="b"),  # 0.25
    ]
    found = efficiency_of(rows, roof_of(100, 1e9, machine="b"), "resunet")
    assert found.rows == ("a resunet",)
    assert found.middle == pytest.approx(0.1)
    fast = [*rows[:2], calibration("b unet", 1 / 2.4, machine="b")]  # resunet: 0.96 of the peak
    assert efficiency_of(fast, roof_of(100, 1e9, machine="b"), "resunet").middle == pytest.approx(0.96)
    faster = [*rows[:2], calibration("b unet", 1 / 2.6, machine="b")]  # at most at the peak
    assert efficiency_of(faster, roof_of(100, 1e9, machine="b"), "resunet").middle == 1.0


def test_each_row_is_predicted_from_the_others_alone():
    rows = [calibration("one", 2.0, machine="x"), calibration("two", 4.0, machine="y"),
            calibration("alone", 1.0, kind="bf16 on a CPU")]  # fmt: skip
    one, two, alone = leave_one_out(rows)
    assert one == pytest.approx(-0.5)
    assert two == pytest.approx(1.0)
    assert alone is None


def test_rows_of_one_series_do_not_predict_each_other():
    rows = [dataclasses.replace(calibration(name, 2.0), series="one") for name in "ab"]
    assert list(leave_one_out(rows)) == [None, None]


@pytest.fixture(scope="module")
def published():
    return [row for row in calibrations() if row.name.startswith(("UNet_Medical", "nnU-Net", "ResNet-50"))]


def test_only_steps_in_images_a_second_are_rows_of_a_processor():
    """A report also has their GFLOP/s, under the same name and more words."""
    report = BenchReport.read(RESULTS / "cpu-2-cores.json")
    rates = [report.find("model", f"training step ({name})").value for name in ("profile", "plain torch")]
    batch_size = report.config["batch_size"]
    rows = [row for row in calibrations() if row.name.startswith("cpu-2-cores,")]
    assert [batch_size / row.seconds for row in rows] == pytest.approx(rates)


def test_every_kind_of_arithmetic_of_a_gpu_rests_on_two_networks(published):
    kinds = {kind: {row.family for row in published if row.roof.kind == kind} for kind in
             ("tensor cores", "tf32", "fp32 on a GPU")}  # fmt: skip
    assert all(len(families) >= 2 for families in kinds.values()), kinds


def test_published_rows_are_predicted_by_those_of_other_networks_and_cards(published):
    errors = sorted(abs(math.log1p(error)) for error in leave_one_out(published))
    assert math.exp(statistics.median(errors)) < 1.2
    assert math.exp(errors[-1]) < 2.2


def test_the_cost_of_a_launch_is_what_makes_small_batches_as_near_to_the_peak_as_large_ones(published):
    small, large = ([row for row in published if row.family == "nnU-Net" and row.count().images == images]
                    for images in (32, 128))  # fmt: skip
    assert [row.series for row in small] == [row.series for row in large]
    ratios = [one.efficiency / other.efficiency for one, other in zip(small, large, strict=True)]
    assert statistics.geometric_mean(ratios) == pytest.approx(1, abs=0.05)
    free = [dataclasses.replace(row, roof=dataclasses.replace(row.roof, overhead=0.0)) for row in (*small, *large)]
    shares = [row.efficiency for row in free]
    assert all(one < 0.95 * other for one, other in zip(shares[: len(small)], shares[len(small) :], strict=True))
    assert {row.roof.overhead for row in published} == {OVERHEAD}


def test_a_processors_roof_is_what_was_measured_of_it():
    rows = [
        Row(suite="machine", name="matrix product, bf16", setup="cpu", value=700, unit="GFLOP/s"),
        Row(suite="machine", name="memory copy, 1 thread", setup="", value=12, unit="GB/s"),
        Row(suite="machine", name="memory copy, 2 threads", setup="", value=14, unit="GB/s"),
    ]
    roof = measured_roof(rows, "cpu", "bf16", compiled=False)
    assert roof == roof_of(7e11, 28e9, overhead=OVERHEAD, kind="bf16 on a CPU", machine="cpu")
    assert measured_roof(rows, "cpu", "fp32", compiled=False) is None


def test_peaks_in_tf32_are_those_of_the_data_sheets():
    """In TFLOP/s, dense."""
    sheets = {"A100": 156, "H100": 494.5, "H200": 494.5, "RTX 3080": 29.8, "RTX 4090": 82.6, "L4": 60.5}
    for name, peak in sheets.items():
        assert find_card(name).peak("tf32") / 1e12 == pytest.approx(peak, rel=0.01)
    for name in ("V100", "T4", "GTX 1080"):
        with pytest.raises(BenchError, match=f"precision=tf32, but {name} has no tensor cores for it; use fp32"):
            find_card(name).peak("tf32")


def test_steps_in_tf32_do_not_mix_with_those_in_fp32(tmp_path):
    """A report of an H200, whose plain step is in TF32: estimates of a GTX 1080 know of its strict fp32 alone."""
    machine = dataclasses.replace(MACHINE, gpus=(Gpu(name="NVIDIA H200", memory=141 << 30, capability="9.0"),))
    config = {
        "network": dataclasses.asdict(SMALL),
        **{"side": 64, "batch_size": 4, "precision": "bf16", "compile": False},
    }
    row = partial(Row.measured, suite="model", setup="", unit="images/s")
    steps = [
        row(50.0, name="training step (profile)", precision="bf16", batch_size=4),
        row(40.0, name="training step (plain torch)", precision="tf32", batch_size=4),
        row(20.0, name="training step (plain torch, fp32)", precision="fp32", batch_size=2),
    ]
    rows = (*steps, row(2.0, name="profile: times plain torch", unit="times"), Row.failed("model", BenchError("x")))
    write_json(tmp_path / "h200.json", BenchReport(environment=machine, config=config, rows=rows))
    found = [row for row in calibrations(tmp_path) if row.name.startswith("h200")]
    kinds = {"tensor cores": 989e12, "tf32": 494.5e12, "fp32 on a GPU": 67e12}
    assert {row.roof.kind: row.roof.peak for row in found} == kinds
    assert [row.count().images for row in found] == [4, 4, 2]
    assert [measured_rate(row) for row in found] == [50, 40, 20]
    for name, precision, used in (("GTX 1080", "fp32", found[2]), ("RTX 3080", "tf32", found[1])):
        known = efficiency_of(found, find_card(name).roof(precision, compiled=False), "resunet plain")
        assert known.rows == (used.name,)


# ------------------------------------------------------------------------------------------------------- estimates


def test_an_estimate_is_a_range_around_what_the_rows_say():
    census = census_of(operation(flops=1000, read=1))
    roof = roof_of(100.0, 1e9, compiled=True, machine="z")
    rows = [calibration("slow", 5.0, machine="x"), calibration("fast", 1.25, machine="y")]
    found = estimate_step(census, roof, "unet", rows)
    assert (found.low, found.images_per_s, found.high) == pytest.approx((4 * 0.02, 4 * 0.04, 4 * 0.08))
    assert found.utilisation == pytest.approx(0.4)
    middle, best, worst = found.minutes(60)
    assert best < middle < worst
    assert middle == pytest.approx(1 / (4 * 0.04))
    with pytest.raises(BenchError, match="no measured row is of bf16 on a CPU"):
        estimate_step(census, dataclasses.replace(roof, kind="bf16 on a CPU"), "unet", rows)


def test_every_tier_has_every_network_and_no_estimate_looks_measured(monkeypatch):
    assert {str(network) for network in NETWORKS} >= {"unet 64", "unet 32", "attention_unet 64", "resunet 64"}
    monkeypatch.setattr("bench.estimate.NETWORKS", NETWORKS[:1])  # each takes seconds
    rows = list(card_rows(calibrations()))
    assert len(rows) == 7
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.kind == "estimated"
        assert row.runs == 0
        assert row.p10 < row.value < row.p90
        assert math.isfinite(row.value)
    by_name = {row.name: row for row in rows}
    assert by_name["rtx4090, unet 64"].note == "33 of 24 GB"
    assert by_name["rtx4090, unet 64"].setup == "unet 64, side 512, batch 32, bf16, too large"
    assert by_name["h100, unet 64"].note == "48 of 80 GB"
    assert not by_name["h100, unet 64"].setup.endswith("too large")
    assert by_name["h100, unet 64"].value < by_name["a100, unet 64"].value


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"cpu", "auto"}))
def test_what_profiles_say_of_memory_is_what_is_counted(name):
    """`about 9 GB`, and of unet 64 `33 of 24 GB`."""
    profile, card = PROFILES[name](), next(card for card in CARDS if card.profile == name)
    reason = profile.reasons["network"]
    said = [int(text) for text in re.findall(r"(?:about|would take) (\d+)", reason)]
    if not said:
        assert "minutes" in reason
        return
    networks = [profile.network, NetworkConfig(name="unet", width=64)][: len(said)]
    needed = [estimate_profile(profile, network, card, calibrations()).memory for network in networks]
    assert said == [round(value) for value in needed]
    assert needed[0] < card.memory


def test_the_command_answers_and_says_that_it_is_an_estimate():
    run = CliRunner().invoke
    arguments = ["--gpu", "RTX 4090", "--model", "unet", "--width", "32", "--side", "512", "--batch", "32"]
    said = run(main, ["estimate", *arguments], catch_exceptions=False).output
    assert "ESTIMATE (nobody has measured this): unet 32 on RTX 4090, side 512, batch 32, bf16 compiled" in said
    assert len(re.findall(r"est\. [\d.,]+", said)) == 3
    assert "UNet_Medical, A100-40, fp16, batch 8" in said
    found = json.loads(run(main, ["estimate", *arguments, "--images", "1000", "--json"]).output)
    assert found["kind"] == "estimated"
    assert found["minutes"]["best"] < found["minutes"]["estimate"] < found["minutes"]["worst"]
    assert found["minutes"]["estimate"] == pytest.approx(1000 / found["images_per_s"]["estimate"] / 60)
    assert found["memory_gb"]["fits"] is True
    assert set(found["calibration"]) <= {row.name for row in calibrations()}


def test_the_command_takes_a_card_by_its_figures():
    run = CliRunner().invoke
    figures = ["--peak", "65", "--bandwidth", "320", "--memory", "16"]
    shape = ["--model", "unet", "--width", "8", "--side", "64", "--batch", "4", "--json"]
    listed = json.loads(run(main, ["estimate", "--gpu", "T4", *shape]).output)
    given = json.loads(run(main, ["estimate", "--gpu", "mine", *figures, *shape]).output)
    assert given["minutes"] == listed["minutes"]
    for arguments, words in (
        (["--gpu", "mine", *figures[:4]], "needs all of --peak TFLOP/s, --bandwidth GB/s and --memory GB"),
        (["--gpu", "GTX 1080", "--precision", "bf16"], "has no tensor cores for it; use fp32"),
        (["--gpu", "T4", "--side", "250"], "error: side=250 is not a multiple of 32; use 224 or 256"),
        (["--gpu", "T4", "--batch", "0"], "batch_size=0 is below 1"),
        ([], "Give --gpu"),
    ):
        failed = run(main, ["estimate", *arguments])
        assert failed.exit_code != 0
        assert words in failed.output + failed.stderr, arguments
