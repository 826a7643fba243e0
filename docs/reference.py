"""Writes docs/cli.md from the command line itself: `python docs/reference.py`; a test holds the page to it."""

from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from convsmith.cli import app
from convsmith.files import write_text

PAGE = Path(__file__).parent / "cli.md"


def page() -> str:
    """Every command: what it does, how it is called, its arguments and options."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    parts = ["# Command line\n", f"{group.help}\n"]
    for name, command in group.commands.items():
        assert isinstance(command, TyperCommand)
        context = typer.Context(command, info_name=f"convsmith {name}")
        usage = " ".join([context.info_name or "", *command.collect_usage_pieces(context)])
        parts += [f"## {name}\n", f"{command.help}\n", f"    {usage}\n", table(command, context)]
    return "\n".join(parts)


def table(command: TyperCommand, context: typer.Context) -> str:
    """Arguments and options with what each means."""
    rows = ["| option | means |", "|---|---|"]
    for parameter in command.get_params(context):
        told = parameter.get_help_record(context)
        if told is not None:
            name, means = (text.replace("|", r"\|") for text in told)
            rows.append(f"| `{name}` | {means} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    write_text(PAGE, page())
