"""Tables for the terminal: as wide as it is, and never with part of a layer's name, which nobody could paste."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GAP = 2  # between columns
LEAST = 24  # characters that a column of words is left


@dataclass(frozen=True)
class Row:
    """Cells, and the style of them all."""

    cells: tuple[str | Text, ...]
    style: str = ""


@dataclass
class Grid:
    """A borderless table with a title; a leading `>` aligns a column right.

    Columns named in `wraps` break their text at blanks. Where a row is wider than the terminal, its first cell stands
    on a line of its own; no word is cut or broken.
    """

    title: str
    columns: tuple[str, ...]
    wraps: frozenset[str] = frozenset()
    heads: bool = True
    rows: list[Row | None] = field(default_factory=list)  # None: an empty line

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """Add cells, one for each column."""
        assert len(cells) == len(self.columns)
        self.rows.append(Row(cells, style))

    def add_section(self) -> None:
        """End a group of rows."""
        self.rows.append(None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines of the table, as rich asks for them."""
        room = options.max_width
        if self.title:
            yield Text(self.title, style="bold")
        widths = self._widths(room)
        heads = tuple(column.removeprefix(">") for column in self.columns)
        if self.heads and any(heads):
            yield from self._lines(Row(heads, "bold"), widths, room, console)
        for number, row in enumerate(self.rows):
            if row is not None:
                yield from self._lines(row, widths, room, console)
            elif number < len(self.rows) - 1:
                yield Text("")

    def _wraps(self, place: int) -> bool:
        return self.columns[place].removeprefix(">") in self.wraps

    def _widths(self, room: int) -> list[int]:
        """Of each column: what its longest cell takes, and where that is too much for all, less of those that wrap.

        The first column has what the others leave it, or nothing: then its cells stand on lines of their own.
        """
        longest, least = zip(*map(self._extent, range(len(self.columns))), strict=True)
        others = room - GAP * (len(self.columns) - 1) - sum(least[1:])
        first = min(longest[0], others) if others >= least[0] or not self._wraps(0) else 0
        widths = [max(first, 0), *least[1:]]
        left = room - GAP * (len(self.columns) - 1) - sum(widths)
        for place in sorted(range(1, len(widths)), key=lambda place: longest[place]):
            more = min(longest[place] - widths[place], max(left, 0))
            widths[place] += more
            left -= more
        if first and self._wraps(0):
            widths = self._fair(widths, longest, least)
        return widths

    def _fair(self, widths: list[int], longest: Sequence[int], least: Sequence[int]) -> list[int]:
        """The same with the room shared evenly between a first column that wraps and the widest other that does."""
        others = [place for place in range(1, len(widths)) if self._wraps(place) and widths[place] < longest[place]]
        if others:
            other = max(others, key=lambda place: longest[place])
            both = widths[0] + widths[other]
            widths[0] = min(longest[0], max(least[0], both // 2))
            widths[other] = both - widths[0]
        return widths

    def _extent(self, place: int) -> tuple[int, int]:
        """The longest cell of a column, and the least width that breaks no word of it."""
        head = len(self.columns[place].removeprefix(">")) if self.heads else 0
        cells = [str(row.cells[place]) for row in self.rows if row is not None]
        longest = max([head, *map(len, cells)])
        if not self._wraps(place):
            return longest, longest
        words = [len(word) for cell in cells for word in cell.split()]
        return longest, min(longest, max([head, LEAST if place else 0, *words]))

    def _lines(self, row: Row, widths: Sequence[int], room: int, console: Console) -> Iterator[Text]:
        cells = [cell.copy() if isinstance(cell, Text) else Text(cell) for cell in row.cells]
        if len(cells[0]) > widths[0] and (widths[0] == 0 or not self._wraps(0)):
            for line in cells[0].wrap(console, room) if self._wraps(0) else [cells[0]]:
                line.rstrip()
                yield Text(str(line), style=row.style, no_wrap=True, overflow="ignore")
            cells[0] = Text("")
        parts = [
            list(cell.wrap(console, width)) if self._wraps(place) and len(cell) > width else [cell]
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        for number in range(max(map(len, parts))):
            own = [part[number] if number < len(part) else Text("") for part in parts]
            if any(map(str, own)):
                yield self._line(own, widths, row.style)

    def _line(self, cells: Sequence[Text], widths: Sequence[int], style: str) -> Text:
        line = Text(style=style, no_wrap=True, overflow="ignore")
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            cell.rstrip()
            blank = " " * max(width - len(cell), 0)
            line.append(" " * GAP if place else "")
            line.append_text(Text(blank) + cell if self.columns[place].startswith(">") else cell + Text(blank))
        line.rstrip()
        return line
