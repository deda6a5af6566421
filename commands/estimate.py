"""`cli.py estimate`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from cache.messages import message
from commands import options
from commands.options import option
from console.language import _, translated


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
@options.as_json
def estimate(gpu: str | None, images: int, as_json: bool, **given: Any) -> None:
    from bench.calibration import calibrations
    from bench.estimate import card_of, estimate_profile, profile_of
    from console.render import rendered

    if not (gpu or given["peak"]):
        raise click.UsageError(_('Give --gpu "RTX 4090" or another card, or its --peak, --bandwidth and --memory'))
    card = card_of(gpu, given.pop("peak"), given.pop("bandwidth"), given.pop("memory"), given["precision"])
    changes = {name: value for name, value in options.taken(given, "network_").items() if value is not None}
    profile = profile_of(card, **{name: value for name, value in given.items() if value is not None})
    network = dataclasses.replace(profile.network, **changes)
    found = estimate_profile(profile, network, card, calibrations())
    if as_json:
        middle, best, worst = found.minutes(images)
        document = {
            "kind": "estimated",
            "gpu": card.name,
            "network": str(network),
            "images": images,
            "minutes": {"estimate": middle, "best": best, "worst": worst},
            "images_per_s": {"estimate": found.images_per_s, "low": found.low, "high": found.high},
            "memory_gb": {"needed": found.memory, "card": card.memory, "fits": found.memory <= card.memory},
            "memory_bound": found.memory_bound,
            "utilisation": found.utilisation,
            "efficiency": {"low": found.efficiency.low, "high": found.efficiency.high},
            "calibration": list(found.efficiency.rows),
        }
        click.echo(options.as_json_text(document))
        return
    mode = _("compiled") if profile.compile else _("eager")
    shape = _("side {side}, batch {batch_size}, {precision} {mode}", **vars(profile), mode=mode)
    rows = "; ".join(map(translated, found.efficiency.rows))
    values = {"card": card, "shape": shape, "network": str(network), "images": images, "rows": rows}
    click.echo("\n".join(rendered("estimate", found=found, **values)))
