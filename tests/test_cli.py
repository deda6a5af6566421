"""The command line as its user meets it: flags, help, errors, exit codes."""

import dataclasses
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.suites.start import FIRST_EPOCH
from cli import main

ROOT = Path(__file__).resolve().parents[1]

FILES = {"train-json", "train-images", "val-json", "val-images"}
"""Options that name a dataset's files, of every command that takes --coco."""

FLAGS = {
    "download": {"dir", "split", "keep-archives", "base-url", "json"},
    "synth": {"directory", "images", "seed"},
    "preprocess": {
        "coco", "out", "side", "fit", "image-codec", "store", "select", "crowd", "split", "category", "limit",
        "threads", "cluster", "force", "content", "strict", "val-share", "orientation", "outside",
    },
    "diff": {"cache", "coco", "content", "json"},
    "quick": {"coco", "cache", "json", "val-share"},
    "verify": {
        "coco", "cache", "json", "select", "category", "val-share", "orientation", "outside", "repair", "log",
    },
    "analyze": {
        "coco", "cache", "json", "category", "picture", "quality", "limit", "side", "min-coverage", "min-contrast",
        "min-edge", "min-resolution", "val-share", "orientation", "outside",
    },
    "batch": {
        "coco", "cache", "json", "split", "batch-size", "augment", "loader", "seed", "picture", "gallery",
        "category", "val-share", "orientation", "outside",
    },
    "train": {
        "cache", "out", "profile", "config", "set", "epochs", "batch-size", "accumulation", "side", "optimizer",
        "learning-rate", "weight-decay", "momentum", "scheduler", "network", "width", "encoder", "encoder-weights",
        "encoder-lr", "encoder-norm", "freeze-epochs", "init-from", "dropout", "loss", "average", "patience", "augment",
        "loader", "threads", "prefetch", "pin-memory", "precision", "compile", "seed", "deterministic",
        "on-bad-record", "wandb", "resume", "global-batch", "sync-batchnorm", "order", "window", "cache-dir",
        "cache-size", "in-place", "device-memory",
    },
    "eval": {
        "checkpoint", "cache", "coco", "split", "out", "batch-size", "device", "precision", "threads", "json",
        "val-share", "orientation", "outside", "baseline", "baseline-scale", "baseline-fit", "side", "threshold",
        "category",
    },
    "predict": {
        "inputs", "checkpoint", "out", "as", "background", "format", "hard", "threshold", "soft", "overwrite", "side",
        "batch-size", "device", "precision", "threads", "min-coverage", "min-contrast", "min-edge", "min-resolution",
        "json", "video-format",
        "smooth", "tiles",
    },
    "export": {"checkpoint", "out", "format", "opset", "side", "threads", "latency", "overwrite", "json"},
    "estimate": {
        "gpu", "peak", "bandwidth", "memory", "network", "width", "side", "batch-size", "precision", "compile",
        "images", "json",
    },
    "bench": {
        "coco", "category", "cache", "suite", "profile", "network", "width", "side", "batch-size", "precision",
        "compile",
        "threads", "images", "seconds", "quick", "json", "markdown", "html", "peers", "peers-folder",
        "compare", "max-regression",
    },
}  # fmt: skip

ALIASES = {
    "--checkpoint": ["--model"],
    "--network": ["--model"],
    "--threads": ["--workers"],
    "--batch-size": ["--batch"],
    "--select": ["--images"],
    "--split": ["--splits"],
    "--side": ["--image-size"],
    "--average": ["--ema"],
}
"""Older spellings, which are accepted and not shown."""


def test_the_flags_are_an_interface():
    found = {
        name: {parameter.opts[0].lstrip("-") for parameter in command.params} for name, command in main.commands.items()
    }
    assert found == {name: flags | {"lang"} | (FILES if "coco" in flags else set()) for name, flags in FLAGS.items()}


def test_older_spellings_are_hidden_aliases():
    aliases = {}
    for name, command in main.commands.items():
        said = run(name, "--help").stdout
        for parameter in command.params:
            for alias in getattr(parameter, "aliases", ()):
                aliases.setdefault(parameter.opts[0], []).append(alias)
                assert not re.search(rf"{alias}(?![\w-])", said)
    assert {option: sorted(set(given)) for option, given in aliases.items()} == ALIASES
    assert {"preprocess", "verify"} == {name for name, flags in FLAGS.items() if "select" in flags}


def test_the_help_of_train_shows_the_defaults_of_its_configuration():
    from train.config import TrainConfig

    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    defaults = {parameter.name: parameter.default for parameter in main.commands["train"].params}
    shown = {name: default for name, default in defaults.items() if isinstance(default, int | float | str)}
    shown = {name: default for name, default in shown.items() if name in fields and name != "profile"}
    assert {name: fields[name] for name in shown} == shown
    assert {"epochs", "optimizer", "loss", "momentum"} <= shown.keys()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments, start_child):
    code = (
        "import sys; sys.argv = ['cli.py', *sys.argv[1:]]\n"
        "import cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print('loaded', sorted({'torch', 'numba', 'nvidia', 'cv2', 'numpy', 'zarr'} & set(sys.modules)))"
    )
    child = start_child([sys.executable, "-c", code, *arguments])
    said, errors = child.communicate()
    assert child.returncode == 0, errors
    assert said.endswith("loaded []\n")


@pytest.mark.parametrize(
    "package",
    ["cache", "preprocess", "loader", "model", "train", "bench", "predict", "export", "console", "commands", "webpage"],
)
def test_packages_are_those_of_this_folder(package):
    module = __import__(package)
    assert Path(module.__file__).parents[1] == ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A synthetic dataset and its cache, made by the commands themselves."""
    root = tmp_path_factory.mktemp("cli")
    run("synth", root / "coco", "--images", 30)
    summary = run("preprocess", "--coco", root / "coco", "--out", root / "cache", "--side", 64)
    return root, summary


def run(*arguments, code=0):
    result = CliRunner(catch_exceptions=False).invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_says_what_is_kept(tmp_path, monkeypatch, number):
    def stopped(*_):
        signal.raise_signal(number)

    monkeypatch.setattr("preprocess.download.coco.download_coco", stopped)
    result = run("download", "--dir", tmp_path, code=130)
    assert result.stderr == "\nStopped. What is there is kept: the same command continues.\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("default_signals")
def test_a_sigterm_that_is_ignored_stays_ignored(tmp_path, monkeypatch):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def fail(*_):
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("not stopped")

    monkeypatch.setattr("preprocess.download.coco.download_coco", fail)
    assert run("download", "--dir", tmp_path, code=1).stderr == "error: not stopped\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_preprocess_tells_what_it_wrote_and_leaves_a_finished_cache_alone(made):
    root, summary = made
    assert "images/s" in summary.stdout
    assert "0 rejected" in summary.stdout
    assert "Preprocessing: " in summary.stderr
    again = run("preprocess", "--coco", root / "coco", "--out", root / "cache", "--side", 64)
    assert "nothing to do" in again.stdout


def test_looking_at_a_dataset_and_its_cache(made, tmp_path):
    root, _ = made
    both = ["--coco", root / "coco", "--cache", root / "cache"]
    assert "✅ COCO structure verified!" in run("quick", *both).stdout
    assert "✅ Cache is sound" in run("verify", *both).stdout
    analysis = run("analyze", *both, "--picture", tmp_path / "a" / "analysis.png")
    assert "📈 General statistics:" in analysis.stdout
    assert (tmp_path / "a" / "analysis.png").stat().st_size > 10_000


def test_json_of_the_commands_that_look(made, tmp_path):
    root, _ = made
    both = ["--coco", root / "coco", "--cache", root / "cache", "--json"]
    quick = json.loads(run("quick", *both).stdout)
    assert quick.keys() == {"ok", "coco", "cache"}
    assert quick["ok"] is True
    assert all(check["ok"] for name in ("coco", "cache") for check in quick[name])
    verify = json.loads(run("verify", *both).stdout)
    assert verify["ok"] is True
    assert verify["cache"]["damages"] == []
    assert verify["coco"]["findings"] == []
    assert verify["machine"]["cores"] >= 1
    analysis = json.loads(run("analyze", *both, "--picture", tmp_path / "a.png").stdout)
    images = json.loads((root / "coco/annotations/person_keypoints_train2017.json").read_text())["images"]
    assert analysis["coco"]["train"]["images"] == len(images)
    batch = json.loads(
        run("batch", "--cache", root / "cache", "--batch-size", 4, "--json", "--picture", tmp_path / "b.png").stdout
    )
    assert batch["shape"] == [4, 3, 64, 64]
    assert len(batch["image_ids"]) == 4


def test_batch_of_a_dataset_without_a_cache(made, tmp_path):
    import cv2

    root, _ = made
    arguments = ["--coco", root / "coco", "--split", "val", "--batch-size", 3, "--picture", tmp_path / "b.png"]
    assert "first batch after" in run("batch", *arguments).stdout
    sheet = cv2.imread(str(tmp_path / "b.png"))
    assert sheet.shape[1] > 3 * 200
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000


def test_diff_update_damage_and_repair(made, tmp_path):
    coco, cache = tmp_path / "coco", tmp_path / "cache"
    for name in ("coco", "cache"):
        shutil.copytree(made[0] / name, tmp_path / name)
    assert f"✅ {cache} is what {coco} gives" in run("diff", cache, "--coco", coco).stdout

    path = coco / "annotations" / "person_keypoints_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"].pop()
    path.write_text(json.dumps(document))
    stale = run("diff", cache, "--coco", coco, code=1).stdout
    assert "train: 1 image is" in stale
    assert "val: nothing has changed" in stale
    assert f"cli.py preprocess --coco {coco} --out {cache} --side 64\n" in stale
    train, val = json.loads(run("diff", cache, "--coco", coco, "--json", code=1).stdout)
    assert train["stale_shards"] == 1
    assert val["stale_shards"] == 0
    assert "It no longer agrees" in run("verify", "--cache", cache, "--coco", coco, code=1).stdout
    update = run("preprocess", "--coco", coco, "--out", cache, "--side", 64).stdout
    assert "train: 1 of 1 shard (" in update
    assert "; person of person_keypoints_train2017.json" in update
    run("diff", cache, "--coco", coco)

    shard = cache / "train" / "00000.lmdb"
    shard = shard if shard.exists() else next((cache / "train").glob("*.lmdb"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert f"❌ train/{shard.name}" in run("verify", "--cache", cache, code=1).stdout
    assert "--repair needs --cache" in run("verify", "--cache", cache, "--repair", code=2).stderr
    repaired = run("verify", "--cache", cache, "--coco", coco, "--repair").stdout
    assert "🔧 Repaired: 1 shard made again" in repaired
    assert repaired.rstrip().endswith("✅ Cache is sound")


def test_strict_fails_on_a_rejected_image(made, tmp_path):
    coco = shutil.copytree(made[0] / "coco", tmp_path / "coco")
    photo = next((coco / "train2017").glob("*.jpg"))
    photo.write_bytes(photo.read_bytes()[:500])
    arguments = ["preprocess", "--coco", coco, "--out", tmp_path / "cache", "--side", 64]
    assert "--strict: 1 rejected" in run(*arguments, "--strict", code=1).stderr
    assert f"rejected train/{photo.name}" in run(*arguments).stdout


def test_quick_and_verify_fail_on_what_is_missing(tmp_path):
    assert "❌" in run("quick", "--coco", tmp_path / "none", code=1).stdout
    assert "❌" in run("verify", "--coco", tmp_path / "none", code=1).stdout
    assert "❌" in run("quick", "--cache", tmp_path / "none", code=1).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preprocess", "--coco", "none", "--out", "x"], "none is empty or missing; point --coco at the folder"),
        (["preprocess", "--side", "250"], "side=250 is not a multiple of 32; use 224 or 256"),
        (["preprocess", "--store", "zarr", "--image-codec", "jpeg"], "use codec='raw' or store='lmdb'"),
        (["preprocess", "--splits", "train,test"], "use train and val"),
        (["train", "--cache", "none"], "none holds no finished cache (index.json is missing); make it with"),
        (["train", "--profile", "rtx5090"], "rtx5090"),
        (["train", "--profile", "cpu", "--width", "12"], "width=12"),
        (["train", "--profile", "cpu", "--epochs", "0"], "epochs=0"),
        (["train", "--set", "pin_memory=maybe"], "pin_memory='maybe' is neither true nor false; use one of the two"),
        (["train", "--set", "scheduler=coseno"], "scheduler='coseno' is not known; use one of cosine_annealing, "),
        (["train", "--set", "out=3"], "out=3 is not text; put it in quotes"),
        (["train", "--set", "profile=[1]"], "profile=[1] is not text; put it in quotes"),
        (["batch", "--cache", "none"], "holds no finished cache"),
        (["analyze", "--coco", "none"], "none is empty or missing"),
        (["diff", "none"], "none holds no finished cache (index.json is missing); make it with"),
    ],
)
def test_errors_are_one_clear_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, code=1)
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_usage_error_has_its_own_exit_code():
    assert "Invalid value for '--fit'" in run("preprocess", "--fit", "crop", code=2).stderr


def test_training_end_to_end(made, tmp_path, whole_runs):
    root, _ = made
    out = tmp_path / "run"
    train = ["train", "--cache", root / "cache", "--out", out, "--profile", "cpu", "--width", 8, "--no-compile"]
    with whole_runs():
        first = run(*train, "--epochs", 1, "--batch-size", 8)
    assert f"📈 {FIRST_EPOCH}1: Train - Loss: " in first.stdout
    assert "data wait" in first.stdout
    assert (out / "checkpoints" / "best_model.pth").exists()
    assert (out / "plots" / "training_curves.png").exists()
    assert (out / "plots" / "sample_predictions.png").exists()
    assert "holds a run" in run(*train, "--epochs", 1, "--batch-size", 8, code=1).stderr
    second = run(*train, "--epochs", 2, "--batch-size", 8, "--resume")
    assert "Epoch 2/2" in second.stdout
    assert "Epoch 1/2" not in second.stdout


def test_the_guides_names_reach_a_run(made, tmp_path):
    root, _ = made
    (tmp_path / "guide.toml").write_text(
        'num_epochs = 9\nmodel_variant = "attention_unet"\nloss_function = "focal_dice"\n'
    )
    out = tmp_path / "run"
    said = run(
        *("train", "--cache", root / "cache", "--out", out, "--profile", "cpu", "--no-compile", "--width", 8),
        *("--config", tmp_path / "guide.toml", "--set", "num_epochs=1", "--set", "gradient_accumulation=2"),
        *("--batch-size", 4, "--optimizer", "sgd", "--scheduler", "plateau", "--ema", "0.9", "--patience", 3),
    ).stdout
    assert "Network: attention_unet, width 8" in said
    assert "Batch size: 4 x 2 accumulated, epochs: 1" in said
    assert "Optimizer: sgd, learning rate 0.01 (plateau), weight decay 0.0001, average of weights 0.9" in said
    assert "Loss: focal_dice" in said
    written = json.loads((out / "config.json").read_text())
    assert (written["epochs"], written["patience"], written["network"]["name"]) == (1, 3, "attention_unet")
    assert "is no setting; is it epochs?" in run("train", "--set", "epoch=3", "--cache", root, code=1).stderr
    wrong = run("train", "--cache", root / "cache", "--profile", "cpu", "--image-size", 96, code=1).stderr
    assert "side=96" in wrong
    assert f"cli.py preprocess --side 96 --out {root / 'cache'}-96" in wrong


def test_evaluating_what_was_trained(made, tmp_path, monkeypatch):
    root, _ = made
    cache = root / "cache"
    monkeypatch.chdir(tmp_path)
    assert "sample.pth (the sample network; " in run("eval", "--cache", cache).stderr
    assert json.loads(Path("eval-val/metrics.json").read_text())
    older = Path("runs/older/checkpoints/best_model.pth")
    older.parent.mkdir(parents=True)
    older.write_bytes(b"")
    os.utime(older, (0, 0))
    out = Path("runs/newest")
    flags = ["--cache", cache, "--profile", "cpu", "--width", 8, "--epochs", 1, "--no-compile"]
    run("train", "--out", out, *flags)
    newest = run("eval", "--cache", cache, "--coco", root / "coco")
    assert f"Checkpoint: {out / 'checkpoints' / 'best_model.pth'} (the newest run)\n" in newest.stderr
    assert "IoU" in newest.stdout
    assert (out / "eval-val" / "metrics.json").is_file()
    named = [
        "eval",
        "--checkpoint",
        out / "checkpoints" / "best_model.pth",
        "--cache",
        cache,
        "--threshold",
        0.5,
        "--json",
    ]
    found = json.loads(run(*named).stdout)
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert json.dumps(last["val"]["iou"]) in json.dumps(found)
    both = json.loads(run(*named, "--split", "train", "--split", "val", "--out", "scores").stdout)
    assert both.keys() == {"train", "val"}
    assert both["val"]["sizes"]["cache"]["iou"] == found["sizes"]["cache"]["iou"]
    assert {path.parent.name for path in Path("scores").rglob("metrics.json")} == {"train", "val"}


def run_alone(folder, monkeypatch, *arguments, code=0, answer=None):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("train.profiles.PROFILES", {"auto": small})
    monkeypatch.setattr("train.forecast.measure_rate", lambda config, side: 10.0)
    result = CliRunner(catch_exceptions=False).invoke(main, arguments, input=answer)
    assert result.exit_code == code, result.output
    return result


def small():
    from model.network import NetworkConfig
    from train.profiles import cpu

    chosen = dataclasses.replace(cpu(), side=64, network=NetworkConfig(width=8), compile=False, precision="fp32")
    return dataclasses.replace(chosen, batch_size=8)


def test_without_a_command_it_goes_the_whole_road(made, tmp_path, monkeypatch):
    from console.text import duration
    from train.loop import fit

    def short(config, listener, *, resume):
        return fit(dataclasses.replace(config, epochs=2 if resume else 1), listener, resume=resume)

    monkeypatch.setattr("train.loop.fit", short)
    shutil.copytree(made[0] / "coco", tmp_path / "COCO")
    question = "Preprocess COCO at side 64 into data/cache and train runs/latest (profile cpu)? [Y/n]"
    no = run_alone(tmp_path, monkeypatch, answer="n\n").stdout
    assert "✅ COCO structure verified!" in no
    assert question in no
    path = next((tmp_path / "runs/latest/logs").glob("verification_*.log"))
    images = [split["checked"] for split in json.loads(path.read_text())["coco"]["splits"]]
    time = duration(100 * (images[0] + 0.3 * images[1]) / 10)
    assert f"Estimated training time: {time} for 100 epochs (10.0 images/s in a few steps just now, " in no
    assert no.index("Estimated training time") < no.index(question)
    (estimate,) = re.findall(r"Estimated disk space: (\S+) kB in data/cache and \S+ MB in runs/latest; .* free", no)
    assert not (tmp_path / "data").exists()
    first = run_alone(tmp_path, monkeypatch, answer="\n").stdout
    assert question in first
    assert "Epoch 1/1" in first
    bytes_there = sum(path.stat().st_size for path in (tmp_path / "data/cache").rglob("*") if path.is_file())
    assert 0.6 < float(estimate) * 1e3 / bytes_there < 1.1, "LMDB's pages count in so small a cache"
    assert (tmp_path / "runs" / "latest" / "checkpoints" / "best_model.pth").is_file()
    second = run_alone(tmp_path, monkeypatch, "--yes").stdout
    assert "✅ Cache is sound" in second
    assert "[Y/n]" not in second
    assert re.search(r"Estimated training time: .* for 99 epochs \(\S+ images/s in epoch 1\)", second)
    assert re.search(r"Estimated disk space: \S+ MB in runs/latest; .* are free", second)
    assert "Epoch 2/2" in second
    logs = tmp_path / "runs" / "latest" / "logs"
    assert [len(list(logs.glob(f"{kind}_*.log"))) for kind in ("training", "system")] == [2, 2]
    assert [json.loads(log.read_text())["ok"] for log in logs.glob("verification_*.log")]


def test_without_a_command_and_without_coco_it_says_what_is_missing(tmp_path, monkeypatch):
    said = run_alone(tmp_path, monkeypatch, code=1).stdout
    assert "❌" in said
    assert "`cli.py --help` shows the single commands" in said
    assert "--yes is for" in run("--yes", "quick", code=2).stderr


def test_without_a_command_no_hint_names_an_option_that_is_not_there(made, tmp_path, monkeypatch):
    from train.loop import fit

    def interrupted(config, listener, *, resume):
        result = fit(dataclasses.replace(config, epochs=1), listener, resume=resume)
        return dataclasses.replace(result, interrupted=True)

    def stopped(*_arguments, **_values):
        raise KeyboardInterrupt

    shutil.copytree(made[0] / "coco", tmp_path / "COCO")
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.build.build.build_cache", stopped)
        said = run_alone(tmp_path, monkeypatch, "--yes", code=130).stderr
    assert said.endswith("Stopped. What is done is kept: the same command continues.\n")
    with monkeypatch.context() as patch:
        patch.setattr("train.loop.fit", interrupted)
        said = run_alone(tmp_path, monkeypatch, "--yes", code=130).stdout
    assert "Stopped. Go on with the same command: the very next batch comes first." in said
    assert "--resume" not in said
    monkeypatch.setattr("train.profiles.PROFILES", {"auto": small})
    (tmp_path / "runs/latest/checkpoints/last_model.pth").write_bytes(b"")
    said = run_alone(tmp_path, monkeypatch, "--yes", code=1).stderr.splitlines()
    assert "is no checkpoint of a training run: it is empty" in said[-1]
    (tmp_path / "runs/latest/checkpoints/last_model.pth").unlink()
    monkeypatch.setattr(
        "train.loop.fit", lambda *_, **__: (_ for _ in ()).throw(ValueError("no; choose another --out"))
    )
    said = run_alone(tmp_path, monkeypatch, "--yes", code=1).stderr.splitlines()
    assert said[-2:] == [
        "error: no; choose another --out",
        "The options that it names are those of `cli.py train`, which does this step alone.",
    ]
    with_command = run("train", "--cache", tmp_path / "data/cache", "--out", tmp_path / "o", code=1).stderr
    assert with_command.splitlines()[-1] == "error: no; choose another --out"


SPEAKERS = {
    "bench/estimate": "estimate",
    "bench/roofline": "estimate",
    "bench": "bench",
    "cache/reader": "train",
    "cache/remote/shards": "train",
    "export": "export",
    "loader": "train",
    "model": "train",
    "predict": "predict",
    "preprocess/download": "download",
    "preprocess": "preprocess",
    "train/evaluation": "eval",
    "train/predictor": "predict eval",
    "train": "train",
    "console/predict": "predict",
    "console/quality": "predict analyze",
    "console/bench": "bench",
    "console/train": "train",
    "console/batch": "batch",
}
"""Which commands say what a file says, by the beginning of its path; all others name commands with their options."""

OTHER_PROGRAMS = {"--index-url", "--nproc-per-node", "--disable-gil"}  # pip's, torchrun's, those of Python's build


def test_every_option_that_a_message_names_is_one_of_the_command_that_says_it():
    from console.catalogue import extract

    options = {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        | {"--help"}
        for name, command in {**main.commands, "automatic": main}.items()
    }
    options["check"] = options["diff"] | options["quick"] | options["verify"]  # commands/check.py holds these three
    options["dataset"] = options["download"] | options["synth"]
    checked, wrong = set(), []
    for entry in extract():
        for text in filter(None, (entry.id,) if isinstance(entry.id, str) else entry.id):
            quoted = re.findall(r"(?:cli\.py |`)(\w+)((?: +(?:--[a-z-]+|[\w./{}:-]+))*)", text)
            named = [(name, option) for name, rest in quoted for option in re.findall(r"--[a-z-]+", rest)]
            plain = re.sub(r"(?:cli\.py |`)\w+(?: +(?:--[a-z-]+|[\w./{}:-]+))*", "", text)
            for path, _line in entry.locations:
                speaker = next((SPEAKERS[start] for start in SPEAKERS if path.startswith(start)), "")
                speaker = Path(path).stem.replace("evaluate", "eval") if path.startswith("commands/") else speaker
                bare = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", plain)) - OTHER_PROGRAMS
                named += [(name, option) for name in speaker.split() for option in bare]
            checked |= set(named)
            wrong += [(name, option, text) for name, option in named if option not in options.get(name, [option])]
    assert not wrong
    assert {("train", "--resume"), ("preprocess", "--force"), ("predict", "--overwrite")} <= checked
    assert len(checked) > 60


def test_a_mapped_file_that_is_cut_is_told_from_any_thread(tmp_path, start_child):
    """The system ends a process that reads beyond the end of a file, unless that handles SIGBUS."""
    code = """
import mmap, os, sys, threading
import click
from commands.group import FriendlyGroup

group = FriendlyGroup()

@group.command()
@click.argument("how")
def read(how):
    with open(sys.argv[1], "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        os.truncate(file.fileno(), 0)
    thread = threading.Thread(target=lambda: mapped[5000])
    if how == "main":
        thread.run()
    thread.start()
    thread.join()

group(["read", sys.argv[2]])
"""
    for how in ("thread", "main"):
        (tmp_path / "file").write_bytes(bytes(10_000))
        child = start_child([sys.executable, "-c", code, tmp_path / "file", how])
        _, errors = child.communicate()
        assert child.returncode == 1
        assert errors.strip().startswith("error: a file was cut or overwritten while it was being read, or its disk")
        assert "run `verify --cache`" in errors
