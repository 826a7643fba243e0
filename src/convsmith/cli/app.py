"""The command line: one command a verb."""

import sys
from typing import Annotated

import typer

from convsmith.cli import blocks, models, names, plans, runs, training
from convsmith.cli.groups import Command

COMMANDS: tuple[Command, ...] = (
    plans.analyze, plans.organize, plans.decompose, blocks.search,
    models.apply, training.train, training.evaluate, models.export, models.bench,
    runs.optimize, runs.expand, runs.report, names.list,
)  # fmt: skip

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="convsmith",
    help="Make convolutional networks smaller, faster or more accurate without searching by training.\n\n"
    "\b\nExample:\n  convsmith optimize vgg16 --data digits --out runs/demo\nMore: README.md, docs/cli.md",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
)
for command in COMMANDS:
    app.command(command.name, help=command.help, short_help=command.summary, context_settings=HELP_NAMES)(command.run)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"convsmith {version('convsmith')}\n")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take what comes before the command."""


def main() -> None:
    """Run the command line; ends the process with status 0, 1 for a user's mistake, 2 for wrong usage."""
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun
        sys.exit("convsmith: interrupted.")
