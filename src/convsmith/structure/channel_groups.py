"""Groups of channels that are cut together: what makes them, what acts on each, what reads them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from convsmith.graph import Graph
from convsmith.plan import Refusal
from convsmith.structure.channels import Book, Cut, trace
from convsmith.structure.channels.book import NONE, Union


@dataclass(frozen=True)
class Part:
    """A dimension of one of the model's tensors that holds channels of a group.

    Attributes:
        call: The name of the call that reads the tensor.
        module: The path of the module that makes the call.
        tensor: The tensor's path: `layer1.0.conv1.weight`.
        dim: Its dimension.
        channels: By index along it the channel of the group, -1 where it is another's.
        gate: Whether what it makes multiplies whole maps, as in squeeze-and-excitation.
    """

    call: str
    module: str
    tensor: str
    dim: int
    channels: tuple[int, ...]
    gate: bool = False


@dataclass(frozen=True)
class ChannelGroup:
    """Channels 0 to `width` - 1 that are cut together wherever they are made, changed and read.

    Attributes:
        name: Paths of the layers that make them, in order of execution, without gates.
        width: How many there are.
        atoms: Channels that can go, in sets that can only go together.
        producers: Weights whose rows make them; the filters of gates are among them.
        between: Biases, norms, depthwise kernels: what acts on each channel by itself.
        consumers: Weights whose columns read them. Behind a flattened map, a channel has one column for each place.
        hidden: Whether one layer makes them (gates aside) and no addition joins them.
        fixed: Why channels outside of all atoms stay; empty where there are none.
        labels: What the pass over the graph calls each channel.
    """

    name: tuple[str, ...]
    width: int
    atoms: tuple[tuple[int, ...], ...]
    producers: tuple[Part, ...]
    between: tuple[Part, ...]
    consumers: tuple[Part, ...]
    hidden: bool
    fixed: str = ""
    labels: tuple[int, ...] = field(default=(), repr=False)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything that is cut."""
        return (*self.producers, *self.between, *self.consumers)

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the modules that hold what is cut."""
        return tuple(dict.fromkeys(part.tensor.rpartition(".")[0] for part in self.parts))

    @property
    def stays(self) -> int:
        """How many channels are in no atom."""
        return self.width - sum(map(len, self.atoms))


def fill(group: ChannelGroup, width: int, scores: Sequence[float]) -> list[int] | None:
    """The channels to keep for a width: what has to stay, then atoms with the largest mean score that fill it exactly.

    Args:
        group: A group of channels.
        width: How many channels are to be left.
        scores: What each channel counts.

    Returns:
        The channels in order, or None where no atoms sum up to the width.

    >>> group = ChannelGroup(("a",), 6, ((0, 1), (2, 3), (4,), (5,)), (), (), (), hidden=True)
    >>> fill(group, 3, [0, 0, 5, 5, 1, 2]), fill(group, 7, [0] * 6)
    ([2, 3, 5], None)
    """
    ranked = sorted(group.atoms, key=lambda atom: -sum(scores[channel] for channel in atom) / len(atom))
    sums = [1]  # bit n: whether the atoms from a place on can fill n channels
    for atom in reversed(ranked):
        sums.append(sums[-1] | sums[-1] << len(atom))
    kept = sorted(set(range(group.width)) - {channel for atom in ranked for channel in atom})
    left = width - len(kept)
    if left < 0 or not sums[-1] >> left & 1:
        return None
    for place, atom in enumerate(ranked):
        if len(atom) <= left and sums[len(ranked) - place - 1] >> (left - len(atom)) & 1:
            kept += atom
            left -= len(atom)
    return sorted(kept)


def nearest(group: ChannelGroup, width: float) -> int:
    """The width that atoms can make nearest to one that is wished for, the larger of two.

    >>> nearest(ChannelGroup(("a",), 6, ((0, 1, 2), (3, 4, 5)), (), (), (), hidden=True), 2)
    3
    """
    sums = 1
    for atom in group.atoms:
        sums |= sums << len(atom)
    widths = [group.stays + n for n in range(group.width + 1) if sums >> n & 1 and group.stays + n]
    return min(widths, key=lambda each: (abs(each - width), -each))


def find_groups(graph: Graph) -> tuple[list[ChannelGroup], list[Refusal]]:
    """The groups of channels that can be cut, and the layers whose channels all stay, with the reason.

    Channels are followed from the weights that make them, by a rule for each ATen op, to the weights that read them.
    What an addition joins is one channel. What a split, a shuffle or a grouped convolution ties goes together. Channels
    that reach the output, or an op that mixes them, stay.

    Args:
        graph: A captured model.

    Returns:
        Groups in order of execution, and refusals by the layer that makes the channels.

    >>> import torch, convsmith as cs
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
    >>> groups, refusals = find_groups(cs.capture(net, torch.zeros(1, 3, 8, 8)))
    >>> [(group.name, group.width, group.hidden) for group in groups]
    [(('0',), 8, True)]
    >>> refusals[0].layer, refusals[0].reason
    ('2', "its channels are those of the model's output")
    """
    return groups_of(graph, trace(graph)[0])


def groups_of(graph: Graph, book: Book) -> tuple[list[ChannelGroup], list[Refusal]]:
    """The same of a pass over the graph that was done before."""
    groups, refusals = [], [Refusal(module or graph.model, reason) for module, reason in book.refused.items()]
    for cuts in _by_group(book):
        group = _group(book, cuts)
        if len(group.atoms) > (not group.stays):
            groups.append(group)
        else:
            reason = group.fixed or "its channels can only go all together"
            refusals += [Refusal(path, reason) for path in group.name]
    return groups, refusals


def _by_group(book: Book) -> list[list[Cut]]:
    """The cuts of each group in order; channels that one weight makes, or that are tied, are of one group."""
    together = Union()
    for cut in book.cuts:
        for label in cut.labels.tolist() if cut.role == "filters" else ():
            together.join(int(cut.labels[0]), label)
            together.join(book.tied.root(label), label)
    cuts_by_group: dict[int, list[Cut]] = defaultdict(list)
    for cut in book.cuts:
        for root in dict.fromkeys(together.root(book.tied.root(label)) for label in cut.labels.tolist() if label):
            cuts_by_group[root].append(cut)
    made = {together.root(int(cut.labels[0])): None for cut in book.cuts if cut.role == "filters"}
    return [cuts_by_group[root] for root in made]


def _group(book: Book, cuts: Sequence[Cut]) -> ChannelGroup:
    makers = [cut for cut in cuts if cut.role == "filters"]
    roots = dict.fromkeys(book.same.root(label) for cut in makers for label in cut.labels.tolist())
    number = {root: i for i, root in enumerate(roots)}
    parts = {role: tuple(_part(book, cut, number) for cut in cuts if cut.role == role)
             for role in ("filters", "channels", "columns")}  # fmt: skip
    maps = [part.module for part in parts["filters"] if not part.gate] or [part.module for part in parts["filters"]]
    sets, reasons = _atoms(book, makers, number)
    summed = any(label in book.summed for cut in makers for label in cut.labels.tolist())
    return ChannelGroup(
        tuple(maps), len(number), sets, parts["filters"], parts["channels"], parts["columns"],
        len(maps) == 1 and not summed, next(iter(reasons), ""), tuple(number),
    )  # fmt: skip


def _part(book: Book, cut: Cut, number: Mapping[int, int]) -> Part:
    channels = tuple(number.get(book.same.root(label), -1) if label != NONE else -1 for label in cut.labels.tolist())
    gate = cut.role == "filters" and all(label in book.gates for label in cut.labels.tolist())
    return Part(cut.call, cut.module, cut.tensor.name, cut.dim, channels, gate)


def _atoms(
    book: Book, makers: Sequence[Cut], number: Mapping[int, int]
) -> tuple[tuple[tuple[int, ...], ...], list[str]]:
    """Sets of channels that go together, without those of which one stays; and why these stay."""
    labels = [label for cut in makers for label in cut.labels.tolist()]
    sets: dict[int, set[int]] = defaultdict(set)
    stays: dict[int, str] = {}
    for label in labels:
        root = book.tied.root(label)
        sets[root].add(number[book.same.root(label)])
        if label in book.fixed:
            stays.setdefault(root, book.fixed[label])
    return tuple(tuple(sorted(atom)) for root, atom in sets.items() if root not in stays), [*stays.values()]
