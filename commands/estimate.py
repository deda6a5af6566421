"""`cli.py estimate`."""

from __future__ import annotations

from typing import Any

import click

from commands.options import NETWORKS, PRECISIONS, network_of
from commands.output import show_json
from console.language import _


@click.command(short_help="How long would an epoch take on that card? Nothing is measured.")
@click.option("--gpu", metavar="NAME", help='As "RTX 4090"; of one that is not listed, just a name for the next three.')
@click.option("--peak", type=float, help="TFLOP/s of its tensor cores in 16 bits, added up in fp32 (or of fp32).")
@click.option("--bandwidth", type=float, help="Of its memory, GB/s.")
@click.option("--memory", type=float, help="GB.")
@click.option("--network", "--model", "network_name", type=NETWORKS, help="Which network.  [default: the profile's]")
@click.option("--width", type=int, help="Channels of its first level, a multiple of 8.  [default: the profile's]")
@click.option("--side", type=int, help="Side of the images, pixels.  [default: the profile's]")
@click.option("--batch-size", "--batch", "batch_size", type=int, help="Images in a step.  [default: the profile's]")
@click.option("--precision", type=PRECISIONS, help="Of the convolutions.  [default: 16 bits with tensor cores]")
@click.option(
    "--compile/--no-compile", "compile", default=None, help="Whether by torch.compile.  [default: with tensor cores]"
)
@click.option("--images", default=45174, show_default=True, help="Images of an epoch.")
@click.option("--check", is_flag=True, help="Also predict each measured row from the others, and tell the errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def estimate(
    gpu: str | None, network_name: str | None, width: int | None, check: bool, as_json: bool, **given: Any
) -> None:
    """How long would an epoch take on that card, and does the batch fit? A range; nothing is measured.

    The network's operations are counted one by one; each takes as long as its arithmetic or its memory traffic,
    whichever is longer. How near to the peak convolutions come is taken from rows that somebody measured.
    """
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
    images = given.pop("images")
    profile = profile_of(card, **{name: value for name, value in given.items() if value is not None})
    network = network_of(profile.network, network_name, width)
    found = estimate_profile(profile, network, card, known)
    if as_json:
        errors = [{"name": one.row.name, "measured": one.row.images_per_s, "error": one.error} for one in checks]
        show_json({**estimate_dict(card, network, found, images), **({"checks": errors} if check else {})})
        return
    shape = _("side {side}, batch {batch_size}, {precision} {mode}").format(
        side=profile.side,
        batch_size=profile.batch_size,
        precision=profile.precision,
        mode=_("compiled") if profile.compile else _("eager"),
    )
    click.echo("\n".join(estimate_lines(card, shape, network, found, images)))
    if check:
        click.echo("\n".join(["", *check_lines(checks)]))
