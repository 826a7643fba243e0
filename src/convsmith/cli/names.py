"""The command that says which names the others take: list."""

from typing import Annotated, Literal

import typer

from convsmith.cli.groups import command
from convsmith.cli.terminal import Terminal

Kind = Literal["nets", "blocks", "methods", "targets"]


@command("convsmith list blocks", "docs/cli.md")
def list(terminal: Terminal, kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List the nets, blocks, methods or targets there are.

    nets are names for MODEL, blocks for --block, methods for --method, and targets for --runtimes.
    """
    from convsmith.cli.tables import LISTS
    from convsmith.report import names_table

    columns, rows = LISTS[kind]()
    terminal.record([dict(zip(columns, row, strict=True)) for row in rows])
    terminal.show(names_table(columns, rows))
