"""The training and the validation step. Tensor suffixes: N images, 3 RGB, 1 logit or plane, H and W pixels."""

import copy
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.classification import BinaryJaccardIndex

from loader.batch import LoaderConfig
from model.loss import LOSSES, bce_dice
from model.metrics import Scores
from model.network import NetworkConfig
from train.config import TrainConfig
from train.optimizer import WeightAverage, build_optimizer
from train.step import EvalStep, TrainStep, prepare_network

SIDE, RATE = 64, 3e-3
CONFIG = TrainConfig(
    loader=LoaderConfig(cache=Path("cache")), out=Path("run"), learning_rate=RATE, weight_decay=0.1, clip=1.0
)
PLAIN_SGD = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}


def batches_of(count: int, size: int = 2) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)

    def plane(share: float) -> Tensor:
        return (torch.rand(size, 1, SIDE, SIDE, generator=generator) < share).byte()

    def image() -> Tensor:
        return torch.randint(0, 256, (size, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)

    return [(image(), plane(0.3), plane(0.1)) for _ in range(count)]


def network_of(*, channels_last: bool = True, seed: int = 0, **settings):
    torch.manual_seed(seed)
    return prepare_network(CONFIG.changed(network=NetworkConfig(width=8, **settings), channels_last=channels_last))


def step_of(network, *, compile=None, average=None, **settings) -> TrainStep:
    return TrainStep(CONFIG.changed(**settings), network, compile=compile, average=average)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_step_is_what_a_plain_loop_does(channels_last):
    """Each step starts from the same weights and in one memory format, so that both forward passes are the same bits.

    Otherwise a ReLU whose input is within rounding of zero may be open in one and shut in the other: its gradient
    jumps, and AdamW, for which every gradient is about as large as any other, makes much of that.
    """
    network, plain = network_of(channels_last=channels_last), network_of(channels_last=channels_last)
    kernels = [parameter for parameter in plain.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in plain.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=RATE,
        fused=False,
        foreach=False,
    )
    step = step_of(network)
    right = seen = 0
    for number, (image, person, ignore) in enumerate(batches_of(4)):
        plain.load_state_dict(network.state_dict())
        start = weights_of(plain)
        rate = RATE / (1 + number)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        logits = plain(image)
        valid = ignore == 0
        x, y = logits[valid], person[valid].float()
        p = x.sigmoid()
        dice = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        expected = nn.functional.binary_cross_entropy_with_logits(x, y) + 1 - dice
        expected.backward()
        norm = torch.stack([parameter.grad.norm() for parameter in plain.parameters()]).norm()
        for parameter in plain.parameters():
            parameter.grad *= min(1.0, 1.0 / float(norm))
        optimizer.step()
        right += int(((x > 0) == (y > 0)).sum())
        seen += int(valid.sum())

        loss = step(image, person, ignore, rate)
        assert loss.dtype == torch.float32
        assert not loss.requires_grad
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
        difference = (weights_of(network) - weights_of(plain)).norm() / (weights_of(plain) - start).norm()
        assert difference < 1e-3, f"step {number} goes elsewhere"
    counts = step.counts_4.tolist()
    assert sum(counts) == seen
    assert counts[0] + counts[3] == right


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_optimizers_are_torchs(name):
    """Against torch's plain (not fused) ones, with the decay of each."""
    network, plain = network_of(), network_of()
    mine = build_optimizer(network, learning_rate=0.01, decay=0.1, name=name, momentum=0.8)
    kinds = {
        "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, foreach=False, fused=False),
        "adam": lambda groups: torch.optim.Adam(groups, lr=0.01, foreach=False, fused=False),
        "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.8, nesterov=True, foreach=False, fused=False),
    }
    theirs = kinds[name](
        [
            {"params": [one for one in plain.parameters() if one.ndim > 1], "weight_decay": 0.1},
            {"params": [one for one in plain.parameters() if one.ndim <= 1], "weight_decay": 0.0},
        ]
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for one, other in zip(network.parameters(), plain.parameters(), strict=True):
            noise = torch.randn(one.shape, generator=generator)
            # In the weights' own memory format, as backward gives them: fused optimizers go by storage.
            one.grad, other.grad = torch.empty_like(one).copy_(noise), torch.empty_like(other).copy_(noise)
        mine.step()
        theirs.step()
    torch.testing.assert_close(weights_of(network), weights_of(plain), rtol=1e-5, atol=1e-6)


def test_accumulated_batches_give_the_gradient_of_their_mean():
    """The update of two batches is that of the mean of their gradients, clipped once."""
    network, plain = network_of(), network_of()
    step = step_of(network, **PLAIN_SGD, clip=1e9)
    first, second, third = batches_of(3)
    start = weights_of(network)
    step(*first, 1.0, batches=2, last=False)
    assert torch.equal(weights_of(network), start)
    with pytest.raises(AssertionError, match="gradients"):
        step.state_dict()
    step(*second, 1.0, batches=2)
    plain.train()
    losses = [bce_dice(plain(image), person, ignore) for image, person, ignore in (first, second)]
    (sum(losses) / 2).backward()
    gradient = torch.cat([parameter.grad.reshape(-1) for parameter in plain.parameters()])
    torch.testing.assert_close(start - weights_of(network), gradient, rtol=1e-3, atol=1e-5)
    before = weights_of(network)
    step(*third, 0.5)  # what came before is forgotten
    plain.load_state_dict(network.state_dict())
    assert not torch.equal(weights_of(network), before)
    assert int(step.counts_4.sum()) == sum(int((ignore == 0).sum()) for _, _, ignore in (first, second, third))


def test_the_average_follows_the_weights_as_its_formula_says():
    network = network_of()
    average = WeightAverage(network, 0.5)
    twin = average.network
    assert torch.equal(weights_of(twin), weights_of(network))
    step = step_of(network, average=average)
    expected = {name: value.double().clone() for name, value in network.state_dict().items()}
    for number, batch in enumerate(batches_of(12), 1):
        step(*batch, RATE)
        decay = min(0.5, (1 + number) / (10 + number))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in twin.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(value, network.state_dict()[name]), name
    other = WeightAverage(network, 0.5)
    other.load_state_dict(copy.deepcopy(average.state_dict()))
    average.update()
    other.update()
    assert torch.equal(weights_of(other.network), weights_of(twin))


def weights_of(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format_holds_from_the_input_to_the_moments(channels_last):
    network = network_of(channels_last=channels_last)
    step = step_of(network)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    seen = []

    def watch(module: nn.Module, _inputs: object, output: Tensor) -> None:
        assert output.is_contiguous(memory_format=layout), f"{module}: {output.shape} {output.stride()}"
        seen.append(module)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(watch)
    step(*batches_of(1)[0], RATE)
    assert seen
    for parameter in network.parameters():
        if parameter.ndim == 4:
            moment = step.optimizer.state[parameter]["exp_avg"]
            assert parameter.is_contiguous(memory_format=layout)
            assert moment.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrow_precisions_stay_near_fp32_and_keep_fp32_weights(precision):
    wide, narrow = step_of(network_of()), step_of(network_of(), precision=precision)
    for batch in batches_of(6):
        before = next(iter(narrow.network.parameters())).clone()
        losses = wide(*batch, RATE), narrow(*batch, RATE)
        torch.testing.assert_close(losses[0], losses[1], rtol=0.05, atol=0.05)
        assert losses[1].dtype == torch.float32
        assert not torch.equal(before, next(iter(narrow.network.parameters())))  # loss scaling skipped no step
    assert {parameter.dtype for parameter in narrow.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_limit_is_on_the_norm_of_the_true_gradient(precision):
    network = network_of()
    clip = 0.01
    step = step_of(network, **PLAIN_SGD, precision=precision, clip=clip)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    step(*batches_of(1)[0], 1.0)
    moved = torch.stack([(a - b).norm() for a, b in zip(before, network.parameters(), strict=True)]).norm()
    assert float(moved.detach()) == pytest.approx(clip, rel=1e-3)


def test_only_kernels_decay():
    network = network_of()
    optimizer = build_optimizer(network, learning_rate=0.1, decay=0.5)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old * (0.95 if parameter.ndim > 1 else 1.0))


class NoReading(TorchDispatchMode):
    """Raises when a tensor's value is read, which on a GPU would wait for it."""

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a value was read from the device"
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_never_wait_for_the_device(precision):
    network = network_of()
    step = step_of(network, precision=precision)
    evaluate = EvalStep(CONFIG.changed(precision=precision), network)
    batch = batches_of(1)[0]
    step(*batch, RATE)  # the optimizer makes its state
    with NoReading():
        step(*batch, RATE)
        evaluate(*batch, 2)
        with pytest.raises(AssertionError, match="was read"):
            step.counts_4.sum().item()


def test_one_graph_and_no_recompilation_after_the_first_step():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    network = network_of(name="unet")
    eager = step_of(network_of(name="unet"))
    step = step_of(network, compile="aot_eager")
    evaluate = EvalStep(CONFIG, network, compile="aot_eager")
    batches = batches_of(4)
    losses = [(eager(*batches[0], RATE), step(*batches[0], RATE))]
    evaluate(*batches[0], 2)
    warm = dict(torch._dynamo.utils.counters["stats"])
    assert warm["unique_graphs"] == 2, "one graph for training, one for validation"
    for number, batch in enumerate(batches[1:]):
        rate = RATE / (2 + number)
        losses.append((eager(*batch, rate), step(*batch, rate)))
        evaluate(*batch, 1 + number % 2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert not torch._dynamo.utils.counters["graph_break"]
    for one, other in losses:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    torch._dynamo.reset()


def test_a_step_is_compiled_more_often_than_torch_lets_by_itself():
    torch._dynamo.reset()
    network = network_of(name="unet")
    step, evaluate = step_of(network, compile="eager"), EvalStep(CONFIG, network, compile="eager")
    with torch._dynamo.config.patch(recompile_limit=1):  # eight by default, which takes longer
        for size in (2, 1):
            (batch,) = batches_of(1, size)
            assert step(*batch, RATE).isfinite()
            evaluate(*batch, size)
    assert evaluate.images == 3
    torch._dynamo.reset()


def test_evaluation_pools_over_pixels_and_leaves_out_what_fills_up():
    network = network_of()
    evaluate = EvalStep(CONFIG, network)
    batches = batches_of(3)
    batches[-1][2][1] = 1  # the second image of the last batch only fills it up
    sizes = [2, 2, 1]
    metric, losses = BinaryJaccardIndex(ignore_index=255), []
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for (image, person, ignore), valid in zip(batches, sizes, strict=True):
        evaluate(image, person, ignore, valid)
        with torch.no_grad():
            logits = network.eval()(image)
        losses.append(float(LOSSES["bce_dice"](logits, person, ignore)))
        metric.update(logits.sigmoid(), torch.where(ignore == 1, 255, person.long()))
    assert evaluate.images == 5
    assert float(evaluate.loss_sum) == pytest.approx(2 * losses[0] + 2 * losses[1] + losses[2], rel=1e-5)
    assert Scores.from_counts(*evaluate.counts_4.tolist()).iou == pytest.approx(float(metric.compute()), abs=1e-6)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), f"validation changed {name}"
    evaluate.reset()
    assert (evaluate.images, evaluate.counts_4.sum(), evaluate.loss_sum) == (0, 0, 0)


def test_state_goes_over_bit_for_bit():
    batches = batches_of(6)
    step = step_of(network_of(dropout=0.5))
    for batch in batches[:3]:
        step(*batch, RATE)
    state = copy.deepcopy(step.state_dict())
    generator = torch.get_rng_state()
    first = [step(*batch, RATE) for batch in batches[3:]]
    other = step_of(network_of(dropout=0.5, seed=9))
    other.load_state_dict(state)
    torch.set_rng_state(generator)
    second = [other(*batch, RATE) for batch in batches[3:]]
    assert first == second
    assert torch.equal(step.counts_4, other.counts_4)
    for one, two in zip(step.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(one, two)


def test_threads_are_left_alone():
    before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    step_of(network_of())(*batches_of(1)[0], RATE)
    assert before == (torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS"))
