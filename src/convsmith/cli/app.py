"""The command line: one command a verb."""

import sys

import typer

from convsmith.cli import blocks, models, plans, runs, training

app = typer.Typer(
    name="convsmith",
    help="Make convolutional networks smaller, faster or more accurate without searching by training.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    plans.analyze, plans.organize, plans.decompose, blocks.search,
    models.apply, training.train, training.evaluate, models.export, models.bench,
    runs.optimize, runs.expand, runs.report,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    """Run the command line; ends the process with status 0, 1 for a user's mistake, 2 for wrong usage."""
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun
        sys.exit("convsmith: interrupted.")
