"""A console that prints what files hold, and never has the terminal obey it."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from convsmith.text import printable


class PlainConsole(Console):
    r"""A console on which names and reasons of a hostile file cannot move the cursor or change colours.

    >>> PlainConsole(width=40).print("net\x1b[2J")
    net [2J
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Pieces of text; the console's own controls stay what they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
