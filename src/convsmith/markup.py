"""A table in HTML that needs no style sheet, for notebooks."""

from collections.abc import Iterable, Sequence
from html import escape


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of escaped text; a leading `>` aligns a column right.

    >>> table(("a", ">b"), [("x<y", "1")])
    '<table><thead><tr><th style="text-align:left">a</th>...<td style="text-align:left">x&lt;y</td>...</table>'
    """
    styles = ["right" if column.startswith(">") else "left" for column in columns]
    head = _row("th", styles, [column.removeprefix(">") for column in columns])
    body = "".join(_row("td", styles, row) for row in rows)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, styles: Sequence[str], cells: Sequence[str]) -> str:
    told = (
        f'<{tag} style="text-align:{style}">{escape(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=True)
    )
    return f"<tr>{''.join(told)}</tr>"
