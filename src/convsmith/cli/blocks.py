"""The command that shows what the search finds for one convolution: search."""

from typing import Annotated

import typer

from convsmith.cli import options as opt
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.kernels.spec import ConvSpec
from convsmith.planning.search.search import Rank, search_blocks
from convsmith.planning.search.sequences import Found, cheapest_by_form
from convsmith.report import search_table


@told_in_one_line
def search(
    inputs: Annotated[int, typer.Argument(metavar="C", min=1, help="Input channels.")],
    outputs: Annotated[int, typer.Argument(metavar="N", min=1, help="Output channels.")],
    kernel: Annotated[int, typer.Option("--kernel", min=1, help="Height and width of the kernel; padded by half.")] = 3,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Its stride.")] = 1,
    map: Annotated[int, typer.Option("--map", min=1, help="Height and width of the map it reads.")] = 32,
    window: Annotated[int, typer.Option("--window", min=1, help="How many of them in a row are replaced.")] = 1,
    rank: Annotated[
        Rank, typer.Option("--rank", help="What counts first; latency is measured for the first few.")
    ] = "macs",
    first: Annotated[int, typer.Option("--first", min=1, help="How many to show.")] = 20,
    every: Annotated[bool, typer.Option("--every", help="Every sequence, not just the cheapest of each form.")] = False,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Show blocks of up to four kernels that see what a convolution sees, the cheapest of each form."""
    out = Terminal(quiet=quiet, verbose=verbose, json=json)
    pad = kernel // 2
    conv = ConvSpec(inputs, outputs, (kernel, kernel), (stride, stride), (pad, pad))
    found = search_blocks(conv, window, size=(map, map), rank=rank)
    shown = (list(found) if every else cheapest_by_form(found))[:first]
    out.record({"found": len(found), "blocks": [told(each) for each in shown]})
    size = f"{kernel}x{kernel}" + (f", {window} in a row" if window > 1 else "")
    out.show(search_table(shown, f"{inputs} to {outputs} channels, {size}: {len(found)} found, {len(shown)} shown"))


def told(found: Found) -> dict[str, str | int | float | None]:
    """A block as JSON."""
    return {
        "block": str(found.block), "copies": found.copies, "form": found.form, "params": found.params,
        "macs": found.macs, "cost": found.cost, "latency": found.latency,
    }  # fmt: skip
