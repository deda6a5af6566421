"""`cli.py estimate`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from cache.messages import message
from commands import options
from commands.options import option
from console.language import _


@click.command(
    short_help=message("Estimate the time of an epoch on a GPU that is not here."),
    help=message(
        "Estimate how long an epoch takes on a GPU and whether the batch fits, as a range; nothing is "
        "measured.\n\n"
        "The network's operations are counted one by one; each takes as long as its arithmetic or its memory "
        "traffic, whichever is longer. How near to the peak convolutions come is taken from published "
        "measurements."
    ),
)
@option(
    "--gpu",
    'Estimate for this card, such as "RTX 4090". For one that is not listed, give the next three, too.',
    metavar=message("NAME"),
)
@option("--peak", "Give the card this peak in TFLOP/s, in 16 bits with fp32 sums, or in fp32.", type=float)
@option("--bandwidth", "Give the card's memory this bandwidth, in GB/s.", type=float)
@option("--memory", "Give the card this much memory, in GB.", type=float)
@options.network
@option("--side", "Use square images of this side, in pixels.  [default: the profile's]", type=int)
@options.batch_size
@options.precision
@options.compiled
@option("--images", "Count this many images in an epoch.", default=45174)
@option("--check", "Predict each measured row from the others, too, and print the errors.", is_flag=True)
@options.as_json
def estimate(gpu: str | None, images: int, check: bool, as_json: bool, **given: Any) -> None:
    from bench.calibration import calibrations
    from bench.estimate import card_of, estimate_profile, leave_one_out, profile_of
    from console.estimate import check_lines, estimate_dict, estimate_lines

    known = calibrations()
    checks = leave_one_out(known) if check else []
    if not (gpu or given["peak"]):
        if not check:
            raise click.UsageError(_('Give --gpu "RTX 4090" or another card, or its --peak, --bandwidth and --memory'))
        click.echo("\n".join(check_lines(checks)))
        return
    card = card_of(gpu, given.pop("peak"), given.pop("bandwidth"), given.pop("memory"), given["precision"])
    changes = {name: value for name, value in options.taken(given, "network_").items() if value is not None}
    profile = profile_of(card, **{name: value for name, value in given.items() if value is not None})
    network = dataclasses.replace(profile.network, **changes)
    found = estimate_profile(profile, network, card, known)
    if as_json:
        errors = [{"name": one.row.name, "measured": one.row.images_per_s, "error": one.error} for one in checks]
        values = estimate_dict(card, network, found, images) | ({"checks": errors} if check else {})
        click.echo(options.as_json_text(values))
        return
    mode = _("compiled") if profile.compile else _("eager")
    shape = _("side {side}, batch {batch_size}, {precision} {mode}", **vars(profile), mode=mode)
    click.echo("\n".join(estimate_lines(card, shape, network, found, images)))
    if check:
        click.echo("\n".join(["", *check_lines(checks)]))
