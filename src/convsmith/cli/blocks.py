"""The command that shows what the search finds for one convolution: search."""

from typing import TYPE_CHECKING, Annotated

import typer

from convsmith.cli import options as opt
from convsmith.cli.groups import command
from convsmith.cli.terminal import Terminal

if TYPE_CHECKING:  # takes seconds to import
    from convsmith.planning.search.sequences import Found


@command("convsmith search 64 64 --map 56 --rank latency", "docs/blocks.md")
def search(
    terminal: Terminal,
    inputs: Annotated[int, typer.Argument(metavar="C", min=1, help="Input channels.")],
    outputs: Annotated[int, typer.Argument(metavar="N", min=1, help="Output channels.")],
    kernel: Annotated[int, typer.Option("--kernel", min=1, help="Height and width of the kernel; padded by half.")] = 3,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Its stride.")] = 1,
    map: Annotated[int, typer.Option("--map", min=1, help="Height and width of the map it reads.")] = 32,
    in_a_row: Annotated[int, typer.Option("--in-a-row", min=1, help="How many of them, in a row, are replaced.")] = 1,
    rank: Annotated[
        opt.Rank, typer.Option("--rank", help="What counts first; latency is measured for the first few.")
    ] = "macs",
    first: Annotated[int, typer.Option("--first", min=1, help="How many to show.")] = 20,
    every: Annotated[bool, typer.Option("--every", help="Every sequence, not just the cheapest of each form.")] = False,
) -> None:
    """Show cheaper blocks that see what a convolution sees.

    They have up to four kernels, and the cheapest of each form is shown.
    """
    terminal.progress("searching", 0, 1)
    from convsmith.kernels.spec import ConvSpec
    from convsmith.planning.search.search import search_blocks
    from convsmith.planning.search.sequences import cheapest_by_form
    from convsmith.report import search_table

    pad = kernel // 2
    conv = ConvSpec(inputs, outputs, (kernel, kernel), (stride, stride), (pad, pad))
    blocks = search_blocks(conv, in_a_row, size=(map, map), rank=rank)
    shown = (list(blocks) if every else cheapest_by_form(blocks))[:first]
    terminal.record({"found": len(blocks), "blocks": [told(block) for block in shown]})
    size = f"{kernel}x{kernel}" + (f", {in_a_row} in a row" if in_a_row > 1 else "")
    title = f"{inputs} to {outputs} channels, {size}: {len(blocks)} found, {len(shown)} shown"
    terminal.show(search_table(shown, title))


def told(found: "Found") -> dict[str, str | int | float | None]:
    """A block as JSON."""
    return {
        "block": str(found.block), "copies": found.copies, "form": found.form, "params": found.params,
        "macs": found.macs, "cost": found.cost, "latency": found.latency,
    }  # fmt: skip
