"""A run of two processes, started by torchrun, against the run of one."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cache.spec import CacheSpec
from loader import LoaderConfig, open_loader
from model import NetworkConfig
from model.metrics import Scores, count_pixels
from preprocess.build import BuildConfig, build_cache
from preprocess.synth import SynthConfig, make_dataset
from train.checkpoint import load_checkpoint, load_network
from train.config import TrainConfig
from train.loop import fit
from train.ranks import Ranks

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import json, sys
from pathlib import Path
import torch
import train.loop
from train.config import TrainConfig
from train.ranks import Ranks

class Stopper:
    def __init__(self, at):
        self.at = at
    def on_start(self, info): pass
    def on_step(self, done, total, loss, images_per_s):
        if self.at and done == self.at:
            import os, signal
            os.kill(os.getpid(), signal.SIGTERM)  # only the first rank's listener is told of steps
    def on_epoch(self, result): pass
    def on_bad_records(self, found, total): pass

torch.set_num_threads(1)
config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))
result = train.loop.fit(config, Stopper(int(sys.argv[2])), resume=sys.argv[3] == "resume")
said = [Ranks.found().rank, result.interrupted, len(result.epochs)]
Path(sys.argv[1]).with_name(f"said-{said[0]}").write_text(json.dumps(said))
"""


class Silent:
    def on_start(self, info):
        pass

    def on_step(self, done, total, loss, images_per_s):
        pass

    def on_epoch(self, result):
        pass


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root / "coco", SynthConfig(images=21, val_fraction=5 / 21, long_side=(96, 128)))
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=CacheSpec(side=64, images="all")))
    return TrainConfig(
        cache=root / "cache", out=root / "one", network=NetworkConfig(width=8), epochs=2, batch_size=2, threads=1,
        loader="native", average=0.9, checkpoint_minutes=0,
        # Rounding moves these by rounding; AdamW would make much of gradients that are all but zero.
        optimizer="sgd", scheduler="none", warmup=0.0,
    )  # fmt: skip


def run_ranks(config, folder, *, stop_at=0, resume=False):
    """Two ranks; what each of them says, by its number."""
    (folder / "program.py").write_text(PROGRAM)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    arguments = [folder / "program.py", folder / "config.json", stop_at, "resume" if resume else "new"]
    # By address, not by name: a machine without a network may look for its own name for a long time.
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", 2]
    variables = {"PYTHONPATH": ROOT, "PATH": "/usr/bin:/bin", "HOME": folder, "OMP_NUM_THREADS": 1, "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, *map(str, [*launch, *arguments])],
        cwd=ROOT,
        env={name: str(value) for name, value in {**variables, "GLOO_SOCKET_IFNAME": "lo"}.items()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"said-{rank}").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def two(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    config = dataclasses.replace(config, out=folder / "run")
    said = run_ranks(config, folder)
    return config, said


def test_two_ranks_learn_what_one_process_learns_from_both_batches(config, two):
    """One process that makes an update of two batches sees the same images in the same groups."""
    shared, said = two
    assert said == [[0, False, 2], [1, False, 2]]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = fit(dataclasses.replace(config, accumulation=2), Silent())
    torch.set_num_threads(before)
    one, other = load_checkpoint(alone.last_model), load_checkpoint(shared.out / "checkpoints" / "last_model.pth")
    assert (one.continuation.progress.step, other.continuation.progress.step) == (16, 8)
    for name, value in one.network.items():
        if "running" not in name and "tracked" not in name:  # a rank has seen half of the batches
            torch.testing.assert_close(value, other.network[name], rtol=2e-2, atol=2e-4, msg=name)
    for mine, theirs in zip(one.results, other.results, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert mine.train_accuracy == pytest.approx(theirs.train_accuracy, abs=2e-3)
        assert sum(mine.val_counts) == sum(theirs.val_counts)


def test_scores_are_those_of_all_validation_images(two):
    config, _ = two
    saved = load_checkpoint(config.out / "checkpoints" / "best_model.pth")
    network, _ = load_network(config.out / "checkpoints" / "best_model.pth")
    counts = torch.zeros(4, dtype=torch.int64)
    with open_loader(
        LoaderConfig(cache=config.cache, split="val", batch_size=5, shuffle=False, drop_last=False, threads=1)
    ) as loader:
        for batch in loader:
            with torch.no_grad():
                counts += count_pixels(network(batch.image), batch.person, batch.ignore)
    best = saved.results[-1]
    assert sum(best.val_counts) == int(counts.sum())
    assert best.val.iou == pytest.approx(Scores.from_counts(*counts.tolist()).iou, abs=2e-3)


def test_only_the_first_rank_writes(two):
    config, _ = two
    assert sorted(path.name.partition("_")[0] for path in (config.out / "logs").iterdir()) == ["system", "training"]
    assert len((config.out / "metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads((config.out / "config.json").read_text())["world"] == 2
    assert not list(config.out.rglob("*.tmp"))


def test_one_rank_that_is_asked_stops_all_and_they_go_on(config, two, tmp_path):
    whole, _ = two
    parted = dataclasses.replace(config, out=tmp_path / "run")
    assert run_ranks(parted, tmp_path, stop_at=2) == [[0, True, 0], [1, True, 0]]
    reached = load_checkpoint(parted.out / "checkpoints" / "last_model.pth").continuation.progress.step
    assert 2 <= reached < 4
    assert run_ranks(parted, tmp_path, resume=True) == [[0, False, 2], [1, False, 2]]
    ends = [load_checkpoint(run.out / "checkpoints" / "last_model.pth").network for run in (whole, parted)]
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=2e-2, atol=2e-4, msg=name)


def test_ranks_are_what_torchrun_says():
    assert Ranks.found({}) == Ranks(rank=0, world=1, local=0)
    assert Ranks.found({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Ranks(rank=3, world=8, local=1)
    assert [Ranks.found({"RANK": rank, "WORLD_SIZE": "2"}).first for rank in "01"] == [True, False]
