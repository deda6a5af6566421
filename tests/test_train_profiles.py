import dataclasses
import re
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from cache import machine
from model.network import build_network
from train.config import TrainConfig
from train.hardware import Gpu, Hardware, HardwareError, read_hardware
from train.profiles import PROFILES, adapt, auto, cpu, from_profile, profile

BARE = Hardware(processor="test", cores=2, cpu_bf16=False, gpu=None, torch="2.13.0+cpu")
MODERN = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


def with_gpu(name: str, capability: tuple[int, int], gib: float, architectures=MODERN, **more) -> Hardware:
    gpu = Gpu(name=name, capability=capability, memory=int(gib * 2**30), architectures=architectures)
    return dataclasses.replace(BARE, gpu=gpu, torch="2.13.0+cu130", **more)


def config_of(name: str, **changes) -> TrainConfig:
    return from_profile(profile(name), cache=Path("c"), out=Path("o"), **changes)


@pytest.mark.parametrize(
    ("name", "batch", "side", "threads"),
    [("rtx4090", 32, 512, 12), ("rtx3080", 24, 384, 8), ("gtx1080", 16, 384, 6), ("gtx1060", 8, 256, 4),
     ("cpu", 4, 256, 2)],
)  # fmt: skip
def test_the_guides_table(name, batch, side, threads):
    chosen = profile(name)
    assert (chosen.name, chosen.batch_size, chosen.side, chosen.threads) == (name, batch, side, threads)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_built_and_says_why(name):
    chosen = profile(name)
    assert chosen.side % build_network(dataclasses.replace(chosen.network, width=8)).stride == 0
    assert set(chosen.reasons) <= {field.name for field in dataclasses.fields(chosen)}
    assert {"network", "precision", "channels_last", "compile"} <= set(chosen.reasons)
    assert not any("\n" in reason for reason in chosen.reasons.values())


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(ValueError, match=r"'rtx9000' is not known; use one of rtx4090, .*auto"):
        profile("rtx9000")


@pytest.mark.parametrize("name", ["gtx1080", "gtx1060"])
def test_pascal_trains_plainly_and_names_the_remedy(name):
    chosen = profile(name)
    assert (chosen.precision, chosen.channels_last, chosen.compile) == ("fp32", False, False)
    assert "cu126" in chosen.reasons["device"]
    with pytest.raises(HardwareError, match="cu126"):
        adapt(config_of(name), with_gpu("GeForce GTX 1080", (6, 1), 8))
    assert adapt(config_of(name), with_gpu("GeForce GTX 1080", (6, 1), 8, CU126)) == (config_of(name), ())


@pytest.mark.parametrize(
    ("name", "features", "gains"),
    [
        ("AMD EPYC", ["avx512_bf16"], True),
        ("Intel Xeon", ["avx512_bf16"], False),
        ("Intel Xeon", ["avx512_bf16", "amx_bf16"], True),
        ("AMD EPYC", [], False),
    ],
)
def test_processors_that_gain_by_bf16(monkeypatch, name, features, gains):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name} | dict.fromkeys(features, True))
    assert read_hardware().cpu_bf16 is gains


def test_cpu_profile_follows_the_processor():
    assert cpu(BARE).precision == "fp32"
    narrow = cpu(dataclasses.replace(BARE, cpu_bf16=True))
    assert (narrow.precision, narrow.device, narrow.network.name) == ("bf16", "cpu", "resunet")


@pytest.mark.parametrize(
    ("hardware", "name", "precision", "batch"),
    [
        (with_gpu("H200", (9, 0), 139.8), "h200", "bf16", 64),
        (with_gpu("H100", (9, 0), 79.2), "h100", "bf16", 48),
        (with_gpu("A100 80GB", (8, 0), 79.2), "a100", "bf16", 48),
        (with_gpu("A100 40GB", (8, 0), 39.4), "a100", "bf16", 20),
        (with_gpu("L40S", (8, 9), 44.4), "rtx4090", "bf16", 32),
        (with_gpu("RTX 4090", (8, 9), 23.5), "rtx4090", "bf16", 32),
        (with_gpu("RTX 3080", (8, 6), 9.6), "rtx3080", "bf16", 24),
        (with_gpu("RTX 3070", (8, 6), 7.8), "rtx3080", "bf16", 16),
        (with_gpu("RTX 2080 Ti", (7, 5), 10.6), "rtx3080", "fp16", 24),
        (with_gpu("GTX 1080", (6, 1), 7.9), "gtx1080", "fp32", 16),
        (with_gpu("GTX 1060 3GB", (6, 1), 2.9), "gtx1060", "fp32", 4),
        (BARE, "cpu", "fp32", 4),
    ],
    ids=lambda value: value.gpu.name if isinstance(value, Hardware) and value.gpu else None,
)
def test_auto_picks_the_nearest(hardware, name, precision, batch):
    chosen = auto(hardware)
    assert (chosen.name, chosen.precision, chosen.batch_size) == (name, precision, batch)
    assert (hardware.gpu.name if hardware.gpu else "no CUDA device") in chosen.reasons["name"]


def test_auto_refuses_what_no_profile_is_made_for():
    with pytest.raises(HardwareError, match=r"sm_52.*--profile cpu"):
        auto(with_gpu("GTX 980", (5, 2), 4))


def test_a_gpu_profile_without_a_gpu_is_an_error_not_a_slow_run():
    with pytest.raises(HardwareError, match=r"profile rtx4090 wants a CUDA device.*CPU build.*--profile cpu"):
        adapt(config_of("rtx4090"), BARE)


@pytest.mark.parametrize(
    ("changes", "hardware", "said"),
    [
        ({}, with_gpu("RTX 2080", (7, 5), 8), r"precision=bf16 wants sm_80 .* sm_75; use --precision fp16"),
        ({"precision": "fp16", "compile": False}, with_gpu("P40", (6, 1), 22, CU126), "use --precision fp32"),
        ({"precision": "tf32"}, with_gpu("RTX 2080", (7, 5), 8), "=tf32 wants sm_80 .* sm_75; use --precision fp32"),
        ({"precision": "fp32"}, with_gpu("P40", (6, 1), 22, CU126), r"torch.compile wants sm_70.*--no-compile"),
        ({}, with_gpu("future", (13, 0), 99), "has no code for future"),
    ],
)
def test_what_a_card_cannot_do_is_named_with_the_remedy(changes, hardware, said):
    with pytest.raises(HardwareError, match=said):
        adapt(config_of("rtx4090", **changes), hardware)


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_some_precisions_are_not_for_a_cpu(precision):
    with pytest.raises(HardwareError, match=f"precision={precision} is for GPUs; .* bf16 or fp32"):
        adapt(config_of("cpu", precision=precision), BARE)


def test_tf32_is_for_cards_that_have_it():
    config = config_of("rtx4090", precision="tf32", compile=False)
    assert adapt(config, with_gpu("RTX 4090", (8, 9), 24)) == (config, ())


def test_without_a_compiler_it_runs_eagerly_and_says_so(monkeypatch):
    config = config_of("cpu", compile=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    changed, (note,) = adapt(config, BARE)
    assert changed == config.changed(compile=False)
    assert re.fullmatch(
        r"running without torch.compile: .*no-such-compiler.*install g\+\+ and python3-dev.*CXX\)", note
    )
    monkeypatch.setenv("CXX", "true")  # a compiler that is there
    assert adapt(config, BARE) == (config, ())


def test_a_gpu_needs_triton_and_a_c_compiler(monkeypatch):
    card, config = with_gpu("RTX 4090", (8, 9), 23.5), config_of("rtx4090")
    monkeypatch.setenv("CXX", "no-such-compiler")  # it needs none
    monkeypatch.setenv("CC", "true")
    monkeypatch.setattr(machine, "find_spec", lambda name: name == "triton" or None)
    assert adapt(config, card) == (config, ())
    monkeypatch.setenv("CC", "no-such-compiler")
    changed, (note,) = adapt(config, card)
    assert not changed.compile
    assert re.fullmatch(r".* no compiler .*no-such-compiler.*install gcc and python3-dev, or set CC\)", note)
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    assert adapt(config, card)[1] == ("running without torch.compile: there is no Triton (pip install triton)",)


@pytest.mark.parametrize(("device", "name"), [("cpu", "g++"), ("cuda", "gcc"), ("cuda", "clang")])
def test_the_compiler_is_the_one_of_the_path_and_must_find_pythons_headers(device, name, monkeypatch, tmp_path):
    """What it is called with is checked by a real compiler, where there is one."""
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(machine, "find_spec", lambda _: True)
    real = shutil.which("g++")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = machine.compile_obstacle(device)
    assert said
    assert "No such file or directory" in said
    if real is None:
        pytest.skip("there is no C++ compiler")
    (tmp_path / name).write_text(f'#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin exec {real} "$@"\n')
    (tmp_path / name).chmod(0o755)
    (tmp_path / "include").mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path / "include"))
    said = machine.compile_obstacle(device)
    assert said
    assert re.search(r"fatal error: Python.h: .*python3-dev", said)
    (tmp_path / "include" / "Python.h").write_text("int x;\n")
    assert machine.compile_obstacle(device) is None


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 9), ("sm_86",), True),
        ((8, 0), ("sm_86",), False),
        ((6, 1), ("sm_50",), False),
        ((10, 3), ("sm_90", "compute_90"), True),
        ((9, 0), ("sm_90a",), True),
        ((12, 1), ("sm_120",), True),
        ((9, 0), (), False),
    ],
)
def test_binaries_run_within_their_generation_and_ptx_on_later_ones(capability, architectures, runs):
    assert Gpu(name="x", capability=capability, memory=1, architectures=architectures).runs() is runs


def test_this_machine_can_be_read():
    assert read_hardware().cores >= 1
