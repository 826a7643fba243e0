"""One pass over a graph: every call's rule is asked what channels it answers with."""

from collections import Counter
from collections.abc import Mapping

from convsmith.graph import Graph, Node
from convsmith.graph.node import GETITEM
from convsmith.structure.channels import alone, joins, layers, moves
from convsmith.structure.channels.book import CHANNEL_RULES, Answer, Book, Channels, place, stay

__all__ = ["alone", "joins", "layers", "moves", "trace"]  # whose rules are registered by import


def trace(graph: Graph, decided: Mapping[str, str | int] | None = None) -> tuple[Book, dict[str, Channels]]:
    """What the pass writes down, and the channels of every tensor that has some (one of several outputs: as taken).

    Args:
        graph: A captured model.
        decided: How groups of convolutions are cut and channels lie in views, where that was decided before.

    Returns:
        The book, and by name of a call the channels of its output.
    """
    uses = Counter(x.name for node in graph.nodes for x in {x.name: x for x in node.call.operands}.values() if x.own)
    book = Book(graph, uses=dict(uses), decided=dict(decided or {}))
    answers: dict[str, Answer] = {}
    for node in graph.nodes:
        answers[node.name] = _answer(book, node, answers)
    known = {name: x[0] if isinstance(x, tuple) else x for name, x in answers.items()}
    for name in graph.ends:
        book.fix(known.get(name), "its channels are those of the model's output")
    return book, {name: x for name, x in known.items() if x is not None}


def _answer(book: Book, node: Node, answers: dict[str, Answer]) -> Answer:
    if node.call.op == GETITEM:
        whole = answers[node.call.input.name]
        return whole[node.call["index"]] if isinstance(whole, tuple) else whole
    inputs = [answers.get(x.name) for x in node.call.operands]
    seen = [x[0] if isinstance(x, tuple) else x for x in inputs]
    if node.call.op in CHANNEL_RULES and not node.loose:
        return CHANNEL_RULES[node.call.op](book, node, seen)
    stay(book, seen, f"{place(node)} may mix them or count on their number")
    return None
