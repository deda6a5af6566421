"""`cli.py` without a command: verify, preprocess and train with the defaults of these commands."""

from __future__ import annotations

import sys
from typing import Any

import click

from cache.messages import listed
from commands.check import quick, verify
from commands.options import DEFAULT_CACHE, DEFAULT_COCO, DEFAULT_RUN
from commands.preprocess import preprocess
from commands.train import train
from console.language import _, translated
from console.progress import confirmed


def automatic(context: click.Context, *, yes: bool) -> None:
    """Verify, preprocess unless there is a cache, ask unless `yes`, train or go on."""
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
    plan = [] if sound else [_("leave out what is damaged")]
    if not cached:
        values = {"coco": DEFAULT_COCO, "side": chosen.side, "cache": DEFAULT_CACHE}
        plan.append(_("preprocess {coco} at side {side} into {cache}", **values))
    values = {"run": DEFAULT_RUN, "profile": chosen.name}
    plan.append(
        _("resume the run in {run} (profile {profile})", **values)
        if resume
        else _("train {run} (profile {profile})", **values)
    )
    question = translated(listed(plan, "and"))
    question = _("{question}?", question=f"{question[0].upper()}{question[1:]}")
    if not yes and not confirmed(f"\n{question}", default=sound):
        return
    if not cached:
        step(preprocess, coco=DEFAULT_COCO, out=DEFAULT_CACHE, side=chosen.side)
    step(train, resume=resume)
