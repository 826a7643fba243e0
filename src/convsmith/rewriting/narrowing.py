"""Channels cut out of a model: its weights sliced, its modules' sizes set, and proof that it is the same net."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from convsmith.errors import CaptureError, PlanError
from convsmith.graph import Graph, Node
from convsmith.graph.capture import capture
from convsmith.graph.plain import copied
from convsmith.plan import Narrow
from convsmith.structure.channel_groups import ChannelGroup, Part, fill, nearest
from convsmith.structure.widths import NOTHING, Gone, Widths, stay


def narrow(model: nn.Module, graph: Graph, group: ChannelGroup, kept: Sequence[int]) -> Graph:
    """Cut a group of a model down to the channels kept, in place, and prove the result by another capture.

    Where the weights that read the channels gone are zero, the model's outputs stay as they were.

    Args:
        model: A module of one's own, which is changed; it must be the one that `graph` was captured from, or a copy.
        graph: The model as captured before.
        group: One of `find_groups(graph)`.
        kept: The channels that stay, of 0 to `group.width` - 1.

    Returns:
        The narrowed model as captured.

    Raises:
        PlanError: When channels are kept that are none, an atom is cut through, or forward counts on the old width.

    >>> from convsmith.structure.channel_groups import find_groups
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> graph = capture(net, torch.zeros(1, 3, 8, 8))
    >>> narrow(net, graph, find_groups(graph)[0][0], [0, 2, 5]).params, net[2].in_channels
    (196, 3)
    """
    return narrow_all(model, Widths.of(graph), {group.name: kept})


def narrow_all(model: nn.Module, widths: Widths, kept: Mapping[tuple[str, ...], Sequence[int]]) -> Graph:
    """The same for several groups at once: by their names, the channels kept."""
    gone = NOTHING
    for name, channels in kept.items():
        group = widths.group(name)
        gone = widths.without(group, checked(group, channels), gone)
    _slice(model, widths, gone)
    first = _attempt(model, widths, gone)
    if isinstance(first, Graph):
        return first
    second = _attempt(model, widths, gone) if _set_sizes(model, widths, gone) else first
    if isinstance(second, Graph):
        return second
    shown = ", ".join(" + ".join(each) for each in [*kept][:3]) + (f" and {len(kept) - 3} more" * (len(kept) > 3))
    raise PlanError(f"{shown} cannot be narrowed: {first}; take that edit out.")


def checked(group: ChannelGroup, kept: Sequence[int]) -> list[int]:
    """The channels kept, in order; raises PlanError where they cannot be kept alone."""
    name, chosen = " + ".join(group.name), sorted(set(kept))
    if not chosen or chosen[0] < 0 or chosen[-1] >= group.width:
        raise PlanError(f"{name} has channels 0 to {group.width - 1}, and {chosen} are to be kept; keep some of those.")
    free = {channel for atom in group.atoms for channel in atom}
    lacking = [channel for channel in range(group.width) if channel not in free and channel not in chosen]
    if lacking:
        raise PlanError(f"{name}: channel {lacking[0]} has to stay: {group.fixed}; keep it.")
    for atom in group.atoms:
        if 0 < len(set(atom) & set(chosen)) < len(atom):
            raise PlanError(f"{name}: channels {', '.join(map(str, atom))} can only go together; keep all or none.")
    return chosen


def choose(model: nn.Module, group: ChannelGroup, width: int) -> list[int]:
    """The channels of a group to keep without data: those with the largest product of norms, in and out.

    A channel's score is the norm of all rows that make it times the norm of all columns that read it. Raises PlanError
    where the width cannot be made.
    """
    made, read = (
        _norms(model, group, parts) for parts in ([p for p in group.producers if not p.gate] or group.producers,
                                                  group.consumers)
    )  # fmt: skip
    kept = fill(group, width, (made * read).tolist())
    if kept is None:
        near = nearest(group, width)
        raise PlanError(
            f"{' + '.join(group.name)} cannot be narrowed to {width} of {group.width} channels: some stay, or go only "
            f"together; the nearest width is {near}."
        )
    return kept


def _norms(model: nn.Module, group: ChannelGroup, parts: Sequence[Part]) -> Tensor:
    squares = torch.zeros(group.width + 1, dtype=torch.float64)  # the last is for what is no channel of the group
    for part in parts:
        weight = model.get_parameter(part.tensor).detach()
        each = weight.double().square().movedim(part.dim, 0).flatten(1).sum(1).cpu()
        squares.index_add_(0, torch.tensor(part.channels) % (group.width + 1), each)
    return squares[:-1].sqrt() if parts else torch.ones(group.width, dtype=torch.float64)


def carry_out(model: nn.Module, base: Graph, edits: Sequence[Narrow]) -> tuple[Graph, list[Narrow]]:
    """Narrow a model as a plan says, and tell what that costs edit by edit, each behind those before it.

    Args:
        model: A copy that is changed in place.
        base: The model as captured before.
        edits: Groups and their widths.

    Returns:
        The narrowed model as captured, and the edits with the channels kept and their costs.

    Raises:
        PlanError: On the first edit that cannot be, by its name.
    """
    widths, gone = Widths.of(base), NOTHING
    done: list[Narrow] = []
    for edit in edits:
        group = widths.group(edit.group)
        if any(group.name == other.group for other in done):
            raise PlanError(f"{edit.name} is narrowed twice by the plan; take one of its edits out.")
        kept = tuple(choose(model, group, edit.width) if edit.kept is None else checked(group, edit.kept))
        if len(kept) != edit.width:
            raise PlanError(f"{edit.name}: the plan keeps {len(kept)} channels for a width of {edit.width}; mend one.")
        before, gone = gone, widths.without(group, kept, gone)
        costs = zip(widths.cost(group, before), widths.cost(group, gone), strict=True)
        params, macs = costs
        done.append(replace(edit, kept=kept, params=params, macs=macs))
    whole = copied(model) if len(done) > 1 else model
    try:
        return narrow_all(model, widths, {edit.group: edit.kept or () for edit in done}), done
    except PlanError:
        for edit in done if len(done) > 1 else ():
            narrow_all(copied(whole), widths, {edit.group: edit.kept or ()})  # the one to blame is told by its name
        raise


def _slice(model: nn.Module, widths: Widths, gone: Gone) -> None:
    """Every tensor without what is gone, and the modules' own numbers with it."""
    acting: dict[str, float] = {}  # by module, what is left of the channels that its weight acts on one by one
    for path, cuts in widths.by_tensor.items():
        holder, _, name = path.rpartition(".")
        module = model.get_submodule(holder)
        tensor = getattr(module, name)
        whole = tensor
        for cut in cuts:
            left = stay(cut.labels.tolist(), gone)
            if len(left) < len(cut.labels):
                tensor = tensor.detach().index_select(cut.dim, torch.tensor(left, device=tensor.device))
                if cut.role == "channels" and name == "weight":
                    acting[holder] = len(left) / len(cut.labels)
        if tensor is not whole:
            made = tensor.clone()
            setattr(module, name, nn.Parameter(made, whole.requires_grad) if isinstance(whole, nn.Parameter) else made)
    for holder in dict.fromkeys(path.rpartition(".")[0] for path in widths.by_tensor):
        resize(model.get_submodule(holder), acting.get(holder, 1.0))


@singledispatch
def resize(module: nn.Module, left: float) -> None:
    """Set a module's own numbers by its weights; of other modules there are none.

    left: what is left of the channels that the weight acts on one by one.
    """


@resize.register
def _(module: _ConvNd, left: float) -> None:
    module.groups = round(module.groups * left)
    first, second = module.weight.shape[:2]
    outputs, inputs = (second, first) if isinstance(module, _ConvTransposeNd) else (first, second)
    module.out_channels = outputs * (module.groups if isinstance(module, _ConvTransposeNd) else 1)
    module.in_channels = inputs * (1 if isinstance(module, _ConvTransposeNd) else module.groups)


@resize.register
def _(module: nn.Linear, left: float) -> None:
    module.out_features, module.in_features = module.weight.shape


@resize.register
def _(module: _NormBase, left: float) -> None:
    sized = next((x for x in (module.weight, module.running_mean) if x is not None), None)
    module.num_features = module.num_features if sized is None else len(sized)


@resize.register
def _(module: nn.GroupNorm, left: float) -> None:
    module.num_groups = round(module.num_groups * left)
    module.num_channels = module.num_channels if module.weight is None else len(module.weight)


@resize.register
def _(module: nn.PReLU, left: float) -> None:
    module.num_parameters = len(module.weight)


def _attempt(model: nn.Module, widths: Widths, gone: Gone) -> Graph | str:
    """The model as captured, where it is the net that was asked for; else a sentence on where it is not."""
    args, kwargs = widths.graph.signature.call(widths.graph.signature.tensors(device="meta"))
    try:
        graph = capture(model, *args, name=widths.graph.model, **kwargs)
    except CaptureError as error:
        return f"its forward counts on the width ({error})"
    node = disagreement(widths, gone, graph)
    if node is None:
        return graph
    where = f"{node.module}'s forward" if node.module else "the model's forward"
    return f"{where} counts on the width: {node.call.op} takes other channels than before"


def disagreement(widths: Widths, gone: Gone, graph: Graph) -> Node | None:
    """The first call of a narrowed net that does not answer with what is left of the same channels."""
    new = Widths.of(graph, widths.decided)
    known = _names(widths, new, gone)
    for before, after in zip(widths.graph.nodes, graph.nodes, strict=False):
        same = (before.name, before.call.op) == (after.name, after.call.op)
        if not same or widths.shape(before.name, gone) != after.call.out:
            return after
        old, now = widths.channels.get(before.name), new.channels.get(after.name)
        if old is not None and now is not None:
            left = [label for label in old.labels.tolist() if label not in gone]
            if old.dim != now.dim or left != [known.get(label, label) for label in now.labels.tolist()]:
                return after
        elif old is not None and len(set(old.labels.tolist()) - gone) > 1:
            return after
    longer = len(graph.nodes) != len(widths.graph.nodes)
    return graph.nodes[-1] if longer else None


def _names(widths: Widths, new: Widths, gone: Gone) -> dict[int, int]:
    """By the labels of the narrowed net's channels, those that the same ones had before."""
    made = {(cut.tensor.name, cut.dim): cut for cut in new.cuts if cut.role == "filters"}
    known: dict[int, int] = {}
    for cut in widths.cuts:
        if cut.role == "filters" and (cut.tensor.name, cut.dim) in made:
            left = [label for label in cut.labels.tolist() if label not in gone]
            known |= dict(zip(made[cut.tensor.name, cut.dim].labels.tolist(), left, strict=False))
    return known


def _set_sizes(model: nn.Module, widths: Widths, gone: Gone) -> bool:
    """Numbers that modules keep of a width and give to their own calls; the proof behind says whether that was right.

    Answers whether there were any.
    """
    sizes: dict[tuple[str, str], set[int]] = {}
    for node in widths.graph.nodes:
        module = model.get_submodule(node.module)
        kept = {name: value for name, value in vars(module).items() if type(value) is int and name[0] != "_"}
        for before, after in _sizes(node, widths, gone) if kept and not node.leaf else ():
            for name in (name for name, value in kept.items() if value == before):
                sizes.setdefault((node.module, name), set()).add(after)
    certain = {key: values.pop() for key, values in sizes.items() if len(values) == 1}
    for (path, name), value in certain.items():
        setattr(model.get_submodule(path), name, value)
    return bool(certain)


def _sizes(node: Node, widths: Widths, gone: Gone) -> Iterator[tuple[int, int]]:
    """What a call takes and makes of channels, before and after, where it is given numbers that are such sizes."""
    given, out = set(_whole(node.call.args.values())), node.name
    pairs = [
        pair
        for name in (out, *widths.graph.sources(node))
        for pair in zip(widths.graph.shapes[name], widths.shape(name, gone), strict=True)
        if pair[0] != pair[1]
    ]
    if any(before in given for before, _ in pairs):
        yield from pairs


def _whole(values: Collection[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _whole(value)
        elif type(value) is int:
            yield value
