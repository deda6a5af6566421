"""`cli.py` without a command: verify, preprocess and train with the defaults of these commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cache.messages import listed
from commands.check import quick, verify
from commands.options import DEFAULT_CACHE, DEFAULT_COCO, DEFAULT_RUN
from commands.preprocess import preprocess
from commands.train import train
from console.language import _, translated
from console.progress import confirmed

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint
    from train.profiles import Profile


def automatic(context: click.Context, *, yes: bool) -> None:
    """Verify, say how long it will take, ask unless `yes`, preprocess unless there is a cache, train or resume."""
    from train.checkpoint import load_checkpoint
    from train.folder import RunFolder
    from train.profiles import profile

    def step(command: click.Command, **values: Any) -> None:
        context.obj = command.name  # an error names the options of this one
        context.invoke(command, **values)

    click.echo(
        _("Automatic mode, COCO/ to data/cache to runs/latest: `cli.py --help` shows the single commands.") + "\n"
    )
    cached, sound = (DEFAULT_CACHE / "index.json").exists(), True
    resume = RunFolder(DEFAULT_RUN).last_model.exists()
    if not cached:
        step(quick, coco=DEFAULT_COCO)
    try:
        what = {"cache": DEFAULT_CACHE} if cached else {"coco": DEFAULT_COCO}
        step(verify, log=DEFAULT_RUN / "logs", **what)
    except SystemExit:
        sound = False
    if cached and not sound:
        sys.exit(1)  # training would stop at the bad record; `verify` has said what to do
    context.obj = train.name
    chosen = profile("auto")
    saved = load_checkpoint(RunFolder(DEFAULT_RUN).last_model) if resume else None
    plan = [] if sound else [_("leave out what is damaged")]
    if not cached:
        values = {"coco": DEFAULT_COCO, "side": chosen.side, "cache": DEFAULT_CACHE}
        plan.append(_("preprocess {coco} at side {side} into {cache}", **values))
    values = {"run": DEFAULT_RUN, "profile": chosen.name}
    training = _("train {run} (profile {profile})", **values)
    plan.append(_("resume the run in {run} (profile {profile})", **values) if resume else training)
    click.echo("\n".join(_figures(context.meta["verified"], chosen, saved)))
    question = translated(listed(plan, "and"))
    question = _("{question}?", question=f"{question[0].upper()}{question[1:]}")
    if not yes and not confirmed(f"\n{question}", default=sound):
        return
    if not cached:
        step(preprocess, coco=DEFAULT_COCO, out=DEFAULT_CACHE, side=chosen.side)
    step(train, resume=resume)


def _figures(found: dict[str, Any], chosen: Profile, saved: Checkpoint | None) -> list[str]:
    """Time and disk space of what comes next, after `verify` has `found` this; nothing if there is nothing to train on.

    The time is from the last epoch of the run that is resumed, else from a few steps, which are done now.
    """
    from cache.files import free_bytes
    from cache.machine import memory
    from cache.spec import CacheSpec
    from console.train import plan_lines
    from model.network import build_network
    from preprocess.build.folder import needed_bytes, resolve_codec
    from train.forecast import epoch_seconds, measure_rate, run_bytes
    from train.settings import configure

    config, disk = configure(chosen, {}, cache=DEFAULT_CACHE, out=DEFAULT_RUN), {}
    if "cache" in found:
        spec, images = found["cache"].spec, {each.split: each.samples for each in found["cache"].splits}
    else:
        images = {each.split: each.checked for each in found["coco"].splits}
        spec = resolve_codec(CacheSpec(side=chosen.side), sum(images.values()), memory()[0])
        disk[DEFAULT_CACHE] = needed_bytes(spec, sum(images.values()))
    if not images.get("train"):
        return []
    disk[DEFAULT_RUN] = run_bytes(config, build_network(config.network))
    results = saved.results if saved else ()
    last = results[-1] if results else None
    rate = last.images_per_s if last else measure_rate(config, spec.side)
    seconds, left = epoch_seconds(rate, images["train"], images.get("val", 0), last), config.epochs - len(results)
    return plan_lines(left * seconds, left, rate, last, disk, free_bytes(next(iter(disk))))
