"""Units of a model copied behind themselves or taken out, by their paths in the model before any move."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from torch import nn

from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.plain import copied
from convsmith.plan import Remove, Repeat
from convsmith.rewriting.starts import Start, check_start
from convsmith.rewriting.weight_transfer import find
from convsmith.rewriting.widening import widen
from convsmith.structure.units import movable
from convsmith.structure.widening import Widening, widening


def check_moves(model: nn.Module, graph: Graph, edits: Sequence[Repeat | Remove]) -> None:
    """Raises ConvsmithError on the first edit that cannot be, by its name."""
    taken: dict[str, str] = {}
    for edit in edits:
        for path in edit.unit:
            find(model, path)
        _parent(model, edit)
        reason = _reason(graph, edit)
        if reason is not None:
            raise PlanError(f"{edit.name} cannot be {_done(edit)}: {reason}; take that edit out.")
        if isinstance(edit, Repeat):
            check_start(graph, edit)
        for path in edit.unit:
            other = next((name for of, name in taken.items() if _overlap(of, path)), None)
            if other is not None:
                raise PlanError(f"{edit.name} is moved together with {other}; take one of the two edits out.")
        taken |= dict.fromkeys(edit.unit, edit.name)


def _reason(graph: Graph, edit: Repeat | Remove) -> str | None:
    """Why an edit cannot be; a unit that makes more channels than it reads has copies that read as many."""
    unit = movable(graph, edit.unit)
    if isinstance(unit, str) or unit.uniform:
        return unit if isinstance(unit, str) else None
    reason = widening(graph, edit.unit) if isinstance(edit, Repeat) else "so it cannot be left out"
    return f"{unit.shapes}, {reason}" if isinstance(reason, str) else None


def _done(edit: Repeat | Remove) -> str:
    return "repeated" if isinstance(edit, Repeat) else "removed"


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def move_units(model: nn.Module, graph: Graph, edits: Iterable[Repeat | Remove], starts: Mapping[str, Start]) -> None:
    """All moves of one parent at once, and all parents found first: paths are those of the model before any move.

    graph: of the model as it is; starts: by name of a Repeat, what its copies set.
    """
    by_parent: dict[nn.Module, list[Repeat | Remove]] = defaultdict(list)
    for edit in edits:
        for path in edit.unit:
            find(model, path)
        by_parent[_parent(model, edit)].append(edit)
    for parent, moves in by_parent.items():
        copies = {m.name: [*_copies(parent, graph, m, starts[m.name])] for m in moves if isinstance(m, Repeat)}
        if isinstance(parent, nn.Sequential):
            _rebuild(parent, moves, copies)
        else:
            _wrap(parent, moves, copies)


def _copies(parent: nn.Module, graph: Graph, move: Repeat, start: Start) -> Iterator[list[nn.Module]]:
    """The modules of each copy, in order; they read what the unit makes."""
    widened = None if _is_uniform(graph, move) else widening(graph, move.unit)
    for _ in range(move.copies):
        modules = {path: copied(parent.get_submodule(path.rpartition(".")[2])) for path in move.unit}
        if isinstance(widened, Widening):
            modules = widen(modules, widened)
        start.set(modules)
        yield [*modules.values()]


def _parent(model: nn.Module, move: Repeat | Remove) -> nn.Module:
    """The one module that holds the unit; neighbours are a unit in a sequence only, as its order is that of calls."""
    paths = {path.rpartition(".")[0] for path in move.unit}
    parent = model.get_submodule(paths.pop())
    if paths or (len(move.unit) > 1 and not isinstance(parent, nn.Sequential)):
        raise PlanError(f"{' + '.join(move.unit)} are no neighbours in one nn.Sequential; take that edit out.")
    return parent


def _is_uniform(graph: Graph, edit: Repeat) -> bool:
    unit = movable(graph, edit.unit)
    return isinstance(unit, str) or unit.uniform


Copies = Mapping[str, Sequence[Sequence[nn.Module]]]  # by name of an edit


def _rebuild(parent: nn.Sequential, moves: Sequence[Repeat | Remove], copies: Copies) -> None:
    """The children of a sequence with units copied or left out, numbered afresh where they were numbers."""
    children = dict(parent.named_children())
    names: list[tuple[str, nn.Module]] = []
    for name, child in children.items():
        removed = any(isinstance(m, Remove) and name in _names(m) for m in moves)
        names += [] if removed else [(name, child)]
        for move in moves:
            if isinstance(move, Repeat) and name == _names(move)[-1]:
                for i, unit in enumerate(copies[move.name], 1):
                    names += [(_free(f"{n}_{i}", children), m) for n, m in zip(_names(move), unit, strict=True)]
    numbered = all(name.isdigit() for name in children)
    parent._modules.clear()
    for i, (name, child) in enumerate(names):
        parent.add_module(str(i) if numbered else name, child)


def _free(name: str, taken: Container[str]) -> str:
    """A name for a copy that no child has already."""
    while name in taken:
        name += "_copy"
    return name


def _wrap(parent: nn.Module, moves: Sequence[Repeat | Remove], copies: Copies) -> None:
    """Modules that their parent calls by name keep it: gone is an identity, repeated is a sequence."""
    for move in moves:
        (name,) = _names(move)
        more = [module for (module,) in copies.get(move.name, ())]
        setattr(parent, name, nn.Sequential(parent.get_submodule(name), *more) if more else nn.Identity())


def _names(move: Repeat | Remove) -> list[str]:
    return [path.rpartition(".")[2] for path in move.unit]
