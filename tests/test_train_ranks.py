"""Runs of two processes, as torchrun starts them, against the run of one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import pytest
import torch

from cache.spec import CacheSpec
from loader import LoaderConfig, open_loader
from model.metrics import Scores, count_pixels
from model.network import NetworkConfig, build_network
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.checkpoint import load_checkpoint, load_network
from train.config import TrainConfig, TrainConfigError
from train.hardware import HardwareError
from train.listeners import Listener
from train.loop import fit
from train.ranks import RankError, RankLostError, Ranks, ReportedElsewhereError
from train.step import _common_statistics

ROOT = Path(__file__).resolve().parents[1]

SERVER = """
import json, os, runpy, sys
import torch._dynamo, train.inference, train.loop

train.loop._draw, train.inference.SCALES = lambda *_: (), (1,)  # both take longer than the runs
while order := sys.stdin.readline():
    arguments, variables = json.loads(order)
    ranks = []
    for rank in "01":
        ranks.append(os.fork())
        if not ranks[-1]:
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank, **variables}
            os.dup2(os.open(f"{arguments[0]}-{rank}", os.O_WRONLY | os.O_CREAT), 2)
            sys.argv = arguments
            runpy.run_path(arguments[0])
            sys.exit()
    print([os.waitpid(rank, 0)[1] for rank in ranks], flush=True)
"""
"""Runs programs on two ranks, in forked processes: to start Python and load torch takes longer than each of them."""

PROGRAM = """
import hashlib, json, os, signal, sys
from pathlib import Path
import torch
import train.loop
from train.config import TrainConfig
from train.listeners import Listener
from train.ranks import Ranks

class Stopper(Listener):
    def __init__(self, at):
        self.at = at
    def on_step(self, done, total, loss, images_per_s):
        if self.at and done == self.at:
            os.kill(os.getpid(), signal.SIGTERM)  # only the first rank's listener is told of steps

validate, networks = train.loop.validate, []

def validated(run):
    values = [value.numpy().tobytes() for value in run.evaluate.network.state_dict().values()]
    networks.append(hashlib.sha256(b"".join(values)).hexdigest())
    return validate(run)

torch.set_num_threads(1)
train.loop.validate = validated
if sys.argv[3] == "die":
    train.loop.validate = lambda *_: os._exit(0)  # as if killed: the first epoch is trained, and not yet validated
config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))
result = train.loop.fit(config, Stopper(int(sys.argv[2])), resume=sys.argv[3] == "resume")
said = [Ranks.from_env().rank, result.interrupted, len(result.epochs)]
Path(sys.argv[1]).with_name(f"said-{said[0]}").write_text(json.dumps([said, networks]))
"""

LACKING = """
import json, sys
from contextlib import closing
from pathlib import Path
import torch
from torch import nn
from train.config import TrainConfig
from train.ranks import Ranks, ReportedElsewhereError
from train.step import TrainStep, prepare_network

ranks = Ranks.from_env()
config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))
network = prepare_network(config)
network.extra, features = nn.Parameter(torch.ones(())), network.features
network.features = lambda image: features(image) * (network.extra if ranks.first else 1.0)
try:
    with ranks.joined("cpu"), closing(TrainStep(config, network, ranks=ranks)) as step:
        image, plane = (torch.ones(2, channels, 32, 32, dtype=torch.uint8) for channels in (3, 1))
        step(image, plane, 0 * plane, 0.1)
except ValueError as error:
    said = [str(error), isinstance(error, ReportedElsewhereError)]
Path(sys.argv[1]).with_name(f"said-{ranks.rank}").write_text(json.dumps(said))
"""

COMPILED = """
import json, sys
from contextlib import closing
from pathlib import Path
import torch
from train.config import TrainConfig
from train.ranks import Ranks
from train.step import TrainStep, prepare_network

ranks, weights, graphs = Ranks.from_env(), [], []
config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))

def counting(module, inputs):
    graphs.append(module)
    return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

with ranks.joined("cpu"):
    for backend in (None, counting):
        torch.manual_seed(0)
        network = prepare_network(config)
        torch.manual_seed(ranks.rank)
        with closing(TrainStep(config, network, compile=backend, ranks=ranks)) as step:
            for last in (False, True):
                image, plane = (torch.randint(high, (2, count, 32, 32)).byte() for high, count in ((256, 3), (2, 1)))
                step(image, plane, 0 * plane, 0.1, batches=2, last=last)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
said = [len(graphs), float((weights[0] - weights[1]).abs().max()), float(weights[1].double().sum())]
Path(sys.argv[1]).with_name(f"said-{ranks.rank}").write_text(json.dumps(said))
"""


class OneEpoch(Listener):
    def on_epoch(self, result):
        raise StopIteration


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root / "coco", SynthConfig(images=21, val_fraction=5 / 21, long_side=(64, 80)))
    build_cache(BuildConfig(coco=root / "coco", out=root / "cache", spec=CacheSpec(side=64, images="all")))
    # With a single pixel in the deepest layer, or at a larger rate, BatchNorm amplifies rounding errors.
    return TrainConfig(
        loader=LoaderConfig(cache=root / "cache", batch_size=2, threads=1, backend="native"),
        out=root / "one",
        network=NetworkConfig(width=8),
        epochs=2,
        average=0.9,
        checkpoint_minutes=0,
        optimizer="sgd",
        learning_rate=1e-3,
        warmup=0.25,
    )


def environment(folder, **more):
    variables = {"PYTHONPATH": ROOT, "PATH": "/usr/bin:/bin", "HOME": folder, "OMP_NUM_THREADS": 1, "LANG": "C.UTF-8"}
    return {name: str(value) for name, value in {**variables, "GLOO_SOCKET_IFNAME": "lo", **more}.items()}


@pytest.fixture(scope="module")
def server(start_module_child, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-c", SERVER]
    return start_module_child(command, env=environment(folder), stdin=subprocess.PIPE, seconds=3000)


def run_ranks(server, config, folder, *, stop_at=0, how="new", program=PROGRAM):
    """Two ranks with the variables that torchrun sets; what each says."""
    (folder / "program.py").write_text(program)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    arguments = [str(folder / "program.py"), str(folder / "config.json"), str(stop_at), how]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    print(json.dumps([arguments, meeting]), file=server.stdin, flush=True)
    ended = server.stdout.readline() or server.communicate()
    assert ended == "[0, 0]\n", "\n".join(path.read_text()[-5000:] for path in folder.glob("program.py-*"))
    if how == "die":
        return []
    said = [json.loads((folder / f"said-{rank}").read_text()) for rank in range(2)]
    if program == PROGRAM:
        assert said[0][1] == said[1][1] != [], "ranks validate different networks"
        return [each for each, _ in said]
    return said


@pytest.fixture(scope="module")
def two(config, tmp_path_factory, server):
    """A run of two ranks that were stopped in the first epoch, by a signal to one of them, and went on."""
    folder = tmp_path_factory.mktemp("two")
    config = config.changed(out=folder / "run", accumulation=2)
    assert run_ranks(server, config, folder, stop_at=1) == [[0, True, 0], [1, True, 0]], "one stops all"
    reached = load_checkpoint(config.out / "checkpoints" / "last_model.pth").continuation.progress.step
    assert reached == 2, "not between two updates"
    assert run_ranks(server, config, folder, how="resume") == [[0, False, 2], [1, False, 2]]
    return config


def test_two_ranks_learn_what_one_process_learns_from_both_batches(config, two):
    """One process that makes an update of four batches sees the same images in the same groups."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = fit(config.changed(accumulation=4), Listener())
    still = fit(config.changed(accumulation=4, learning_rate=1e-12, out=config.out.parent / "still"), Listener())
    torch.set_num_threads(before)
    one, start = load_checkpoint(alone.last_model), load_checkpoint(still.last_model)
    other = load_checkpoint(two.out / "checkpoints" / "last_model.pth")
    assert (one.continuation.progress.step, other.continuation.progress.step) == (16, 8)
    # Sums in another order change up to 2 % of what was learned. Of two batches, one process gives the later one a
    # little more weight in BatchNorm's statistics.
    names = [name for name in one.network if "running" not in name and "tracked" not in name]
    first, mine, theirs = (torch.cat([run.network[name].flatten() for name in names]) for run in (start, one, other))
    assert (mine - theirs).norm() < 0.05 * (mine - first).norm()
    for name, value in one.network.items():
        if "running" in name:
            torch.testing.assert_close(value, other.network[name], rtol=5e-2, atol=2e-2, msg=name)
    for mine, theirs in zip(one.results, other.results, strict=True):
        assert mine.learning_rate == theirs.learning_rate  # the schedule counts updates
        assert mine.val.iou == pytest.approx(theirs.val.iou, abs=1e-2)
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert mine.train_accuracy == pytest.approx(theirs.train_accuracy, abs=2e-3)
        assert sum(mine.val_counts) == sum(theirs.val_counts)


@pytest.mark.usefixtures("timm")
def test_two_ranks_with_an_encoder_that_is_frozen_at_first_learn_what_one_process_learns(config, tmp_path, server):
    """The second epoch's gradients are those of all parameters, the first one's of the decoder; its norms are fixed."""
    network = NetworkConfig(name="unet", width=8, encoder="timm:test_resnet")
    settings = {"freeze_epochs": 1, "encoder_lr": 0.5, "encoder_norm": "frozen", "encoder_weights": "none"}
    config = config.changed(network=network, **settings)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = fit(config.changed(out=tmp_path / "one", accumulation=4), Listener())
    torch.set_num_threads(before)
    two = config.changed(out=tmp_path / "two", accumulation=2)
    assert run_ranks(server, two, tmp_path) == [[0, False, 2], [1, False, 2]]
    one, other = load_checkpoint(alone.last_model), load_checkpoint(tmp_path / "two" / "checkpoints" / "last_model.pth")
    torch.manual_seed(config.loader.seed)
    begun = build_network(network).state_dict()
    moved = set()
    for name, value in one.network.items():
        if "tracked" not in name:
            running = "running" in name
            rtol, atol = (5e-2, 2e-2) if running else (2e-2, 2e-4)
            torch.testing.assert_close(value, other.network[name], rtol=rtol, atol=atol, msg=name)
            if name.startswith("encoder."):
                fixed = torch.equal(value, begun[name]) and torch.equal(other.network[name], begun[name])
                assert fixed or not running, name
                moved |= {name} if not fixed else set()
    assert {"encoder.conv1.0.weight", "encoder.layer4.0.conv1.weight"} <= moved


def test_ranks_end_where_one_lacks_a_gradient(server, config, tmp_path):
    said = run_ranks(server, config, tmp_path, program=LACKING)
    reason = "rank 1 of 2: extra has no gradient, which ranks cannot average; train on one GPU"
    assert [text for text, _ in said] == 2 * [reason]
    assert sorted(elsewhere for _, elsewhere in said) == [False, True]


@pytest.mark.slow
def test_a_compiled_step_is_split_so_that_gradients_travel_early_and_gives_the_same_weights(server, config, tmp_path):
    """Torch's first bucket holds 1 MB, the next ones 25 MB; this network has 8 MB of gradients."""
    config = config.changed(precision="bf16", **{"network.name": "unet", "network.width": 16})  # autocast is split, too
    one, other = run_ranks(server, config, tmp_path, program=COMPILED)
    assert one == other
    assert one[0] == 2
    assert one[1] == pytest.approx(0, abs=1e-6)


def test_batchnorm_over_all_ranks_is_refused_on_a_cpu(config):
    with pytest.raises(HardwareError, match="--sync-batchnorm is for GPUs: torch cannot do it on a CPU; leave it out"):
        fit(config.changed(sync_batchnorm=True), Listener())


def test_the_mean_of_the_ranks_statistics_is_that_of_one_process_with_as_many_batches():
    """That one gives later batches a little more weight, so it takes them in both orders."""

    def statistics(batches, world):
        norm = torch.nn.BatchNorm2d(3)
        found = _common_statistics(torch.nn.Sequential(norm), world)
        for batch in batches:
            norm(batch)
        assert found[0] is norm.running_mean
        return torch.stack(found)

    torch.manual_seed(0)
    for world in (1, 2, 3):
        batches = [torch.randn(2, 3, 4, 4) * (1 + number) + number for number in range(world)]
        alone = torch.stack([statistics(each, 1) for each in permutations(batches)]).mean(0)
        ranks = torch.stack([statistics([batch], world) for batch in batches]).mean(0)
        torch.testing.assert_close(ranks, alone)


@pytest.mark.slow
def test_ranks_that_end_with_the_last_batch_of_an_epoch_validate_it_once(server, config, two, tmp_path):
    """Killed after the first rank's checkpoint of that batch."""
    config = two.changed(out=tmp_path / "run", world=1, rank=0)
    last = config.out / "checkpoints" / "last_model.pth"
    assert run_ranks(server, config, tmp_path, how="die") == []
    saved = load_checkpoint(last)
    assert (saved.results, saved.continuation.progress.step) == ((), 4)
    assert saved.continuation.loader == {"epoch": 1, "consumed": 0}
    assert run_ranks(server, config, tmp_path, how="resume") == [[0, False, 2], [1, False, 2]]
    ended, other = load_checkpoint(last), load_checkpoint(two.out / "checkpoints" / "last_model.pth")
    assert ended.continuation.progress.step == 8
    assert ended.continuation.loader == {"epoch": 2, "consumed": 0}
    assert [result.val_counts for result in ended.results] == [result.val_counts for result in other.results]
    assert all(torch.equal(value, other.network[name]) for name, value in ended.network.items())


def test_scores_are_those_of_all_validation_images(two):
    saved = load_checkpoint(two.out / "checkpoints" / "best_model.pth")
    network, _ = load_network(two.out / "checkpoints" / "best_model.pth")
    counts = torch.zeros(4, dtype=torch.int64)
    with open_loader(
        LoaderConfig(cache=two.loader.cache, split="val", batch_size=5, shuffle=False, drop_last=False, threads=1)
    ) as loader:
        for batch in loader:
            with torch.no_grad():
                counts += count_pixels(network(batch.image), batch.person, batch.ignore)
    best = saved.results[-1]
    assert sum(best.val_counts) == int(counts.sum())
    assert best.val.iou == pytest.approx(Scores.from_counts(*counts.tolist()).iou, abs=2e-3)


def test_only_the_first_rank_writes(two):
    assert sorted(path.name.partition("_")[0] for path in (two.out / "logs").iterdir()) == [
        *2 * ["system"],
        *2 * ["training"],
    ]
    assert len((two.out / "metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads((two.out / "config.json").read_text())["loader"]["world"] == 2
    assert not list(two.out.rglob("*.tmp"))


def rank_processes(out):
    """The processes of a run by their rank."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_text().split("\0")
            variables = dict(line.partition("=")[::2] for line in (folder / "environ").read_text().split("\0"))
        except OSError:
            continue
        if str(out) in command and "cli.py" in command and "torch.distributed.run" not in command:
            found[int(variables["RANK"])] = int(folder.name)
    return found


@pytest.fixture
def launched(config, tmp_path, start_child):
    """The torchrun of a long run of two ranks that has saved a checkpoint, the run's folder, and the checkpoint."""
    out, last = tmp_path / "run", tmp_path / "run" / "checkpoints" / "last_model.pth"
    flags = {
        "--cache": config.loader.cache,
        "--out": out,
        "--global-batch": 4,
        "--epochs": 200,
        "--workers": 1,
        "--width": 8,
    }
    flags |= {"--profile": "cpu", "--precision": "fp32", "--loader": "native", "--set": "checkpoint_minutes=0"}
    # By address, not by name: a machine without a network may look for its own name for a long time.
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", 2]
    command = [sys.executable, *launch, "cli.py", "train", *(part for flag in flags.items() for part in flag)]
    run = start_child(command, env=environment(tmp_path))
    while not last.exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    return run, out, last


def test_a_rank_that_is_killed_ends_all_with_one_message_and_one_process_goes_on(launched):
    run, out, last = launched
    os.kill(rank_processes(out)[1], signal.SIGKILL)
    said, errors = run.communicate()  # within less time than ranks wait for each other
    assert run.returncode != 0
    assert rank_processes(out) == {}
    assert "Signal 9 (SIGKILL)" in errors
    messages = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(messages) < 2
    for message in messages:  # none where torchrun is the first to notice, and ends rank 0
        assert message.startswith("error: rank 0 of 2: another rank has ended without a word, or its machine has (")
        assert message.endswith("; see what torchrun says below, then go on with the same command and --resume")
    assert said.count("TRAINING U-NET") == 1
    assert not list(out.rglob("*.tmp"))

    saved = load_checkpoint(last)
    assert (saved.config.loader.world, saved.config.loader.batch_size, saved.config.global_batch) == (2, 2, 4)
    step, epoch = saved.continuation.progress.step, len(saved.results)
    assert saved.continuation.loader == {"epoch": step // 4, "consumed": 4 * (step % 4)}
    with pytest.raises(StopIteration):
        fit(saved.config.changed(batch_size=7), OneEpoch(), resume=True)  # --global-batch overrules it
    saved = load_checkpoint(last)
    assert (saved.config.loader.world, saved.config.loader.batch_size, len(saved.results)) == (1, 4, epoch + 1)
    assert saved.continuation.progress.step == 4 * (epoch + 1)


def test_ranks_whose_torchrun_is_killed_save_and_end(launched):
    run, out, last = launched
    run.kill()
    _, errors = run.communicate()  # to the end of all that write to its pipes
    assert rank_processes(out) == {}
    assert "error" not in errors
    (log,) = (out / "logs").glob("training_*")
    assert log.read_text().splitlines()[-1].endswith(f"after step {load_checkpoint(last).continuation.progress.step}")


def test_a_torchrun_that_is_killed_before_its_rank_has_loaded_anything_is_missed(start_child):
    """Not only from when the run is open on: by then it would look as if it had always been without."""
    rank = """
import os, time
import cli
before = os.getppid()
print("there", flush=True)
while os.getppid() == before:
    time.sleep(0.01)
from threading import Event
from train.process import StopRequest
print(StopRequest(Event()).agree())
"""
    launcher = "import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHELASTIC_RUN_ID": "one"}
    torchrun = start_child([sys.executable, "-c", launcher, rank], env=variables)
    assert torchrun.stdout.readline() == "there\n"
    torchrun.kill()
    said, errors = torchrun.communicate()  # to the end of the rank, which writes to its pipes
    assert said == "True\n", errors


class FakeStore:
    """What `_told` asks torchrun's store for, by its documentation."""

    def __init__(self):
        self.values = {}

    def compare_set(self, key, expected, desired):
        if key not in self.values and expected == "":
            self.values[key] = desired
        return self.values[key].encode()


class LostStore:
    def compare_set(self, *_):
        raise RuntimeError("Connection reset by peer")


def test_of_each_machine_one_rank_tells_what_was_said_first():
    store = FakeStore()
    lost, full = RankLostError("another rank has ended"), OSError(28, "No space left on device")
    ranks = [Ranks(rank=rank, world=4, local=rank % 2, machine=rank // 2) for rank in range(4)]
    first = ranks[3]._report(store, full)
    assert type(first) is RankError
    assert str(first) == "rank 3 of 4: [Errno 28] No space left on device; free some space and run it again"
    assert type(ranks[2]._report(store, lost)) is ReportedElsewhereError
    there = [ranks[number]._report(store, lost) for number in (1, 0)]
    assert [type(error) for error in there] == [RankError, ReportedElsewhereError]
    assert {str(error) for error in there} == {str(first)}
    alone = ranks[1]._report(LostStore(), lost)
    assert type(alone) is RankError
    assert str(alone) == "rank 1 of 4: another rank has ended"


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_a_global_batch_is_shared_out_evenly_or_not_at_all(config, world):
    shared = config.changed(global_batch=16).shared_out(0, world)
    assert (shared.loader.batch_size * world, shared.loader.world, shared.images_per_update) == (16, world, 16)
    one = config.changed(global_batch=16).shared_out(0, 1)
    assert shared.differences(one) == []
    assert config.shared_out(0, world).loader.batch_size == config.loader.batch_size
    if world > 1:
        with pytest.raises(TrainConfigError, match=rf"global_batch=17 cannot be shared out evenly among {world} ranks"):
            config.changed(global_batch=17).shared_out(0, world)


def test_ranks_are_what_torchrun_says():
    assert Ranks.from_env({}) == Ranks(rank=0, world=1, local=0)
    found = Ranks.from_env({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "GROUP_RANK": "1"})
    assert found == Ranks(rank=3, world=8, local=1, machine=1)
    assert [Ranks.from_env({"RANK": rank, "WORLD_SIZE": "2"}).first for rank in "01"] == [True, False]
