"""Sentences of prose: of docstrings and of Markdown pages, without code, tables, formulas and citations."""

import re
from collections.abc import Iterator

LONGEST = 25  # words
ITEM = re.compile(r"^(?:[-*] |\d+\. |\*{0,2}\w+: (?=\S))")
SECTION = re.compile(r"^(?:Args|Attributes|Raises|Returns|Yields):$")
CODE = re.compile(r"^(?:```|>>>|\.\.\.|\||<|!\[|%|#)| (?:=|\+|\^) ")
CITATION = re.compile(r"\([^()]*\b(?:19|20)\d\d\b[^()]*\)")
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|et al|vs)\. ")
END = re.compile(r"(?<=[.!?])[)\"*]*\s+(?=[^a-z])|(?<=:)\s+")


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs and items of lists, each as one line."""
    lines: list[str] = []
    fenced = example = listed = False
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        fenced ^= stripped.startswith("```")
        example = bool(stripped) and (example or stripped.startswith(">>>"))
        indented = line.startswith("    ") and not (listed or lines)
        item, section = (None if indented else ITEM.match(stripped)), SECTION.match(stripped)
        listed = bool(item or section or (listed and (not stripped or line.startswith(" "))))
        code = fenced or example or CODE.search(stripped) or indented
        if lines and (not stripped or code or item or section):
            yield " ".join(lines)
            lines = []
        if stripped and not code and not section:
            lines.append(ITEM.sub("", stripped, count=1))


def sentences(text: str) -> Iterator[str]:
    """Every sentence of a text; what stands in backquotes counts as one word, a citation as none."""
    for paragraph in paragraphs(text):
        plain = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "Code", paragraph))
        yield from END.split(ABBREVIATION.sub(r"\1 ", CITATION.sub("", plain)))


def long_sentences(text: str) -> list[str]:
    """Those with more words than are read at ease."""
    return [sentence for sentence in sentences(text) if len(re.findall(r"\S*\w\S*", sentence)) > LONGEST]
