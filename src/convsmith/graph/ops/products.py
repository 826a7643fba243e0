"""Ops that multiply: linear layers, matrix products, sums over products, attention, recurrent layers."""

from collections.abc import Sequence
from math import prod

from convsmith.graph.call import Answer, Call, Operand, Seen, joining, unary
from convsmith.reach import Reach
from convsmith.reach.unions import union

MANY = 1 << 18  # pairs of elements that see different windows, above which a product's rows and columns are mixed


def _linear_macs(call: Call) -> int:
    """Nothing for a single output, which torch's counter leaves out."""
    weight = call["weight"].shape
    return prod(call.out) * int(weight[1]) if len(weight) == 2 else 0


def _linear_ptflops(call: Call) -> int:
    return _linear_macs(call) + (call.out[-1] if call["bias"] is not None else 0)


@joining("aten.linear.default", macs=_linear_macs, ptflops=_linear_ptflops, kind="linear")
def linear(call: Call, seen: Seen) -> Answer:
    """Every output feature sees all features of the last dimension, and what its weights see, if they do."""
    last = len(call.input.shape) - 1
    batch = _letters(last)
    if len(call["weight"].shape) == 1:
        return _contracted(call, seen, [batch + "y", "y"], batch)
    return _contracted(call, seen, [batch + "y", "zy", "z"], batch + "z")


def _letters(count: int) -> str:
    return "".join(chr(ord("a") + i) for i in range(count))


def _contracted(call: Call, seen: Seen, inputs: Sequence[str], out: str) -> Reach:
    """What elements of a sum over products see: per operand (named by its letters) all along what is summed over."""
    pairs = zip(seen, inputs, strict=False)
    parts = [_laid_out(x, letters[len(letters) - len(x.shape) :], out) for x, letters in pairs if x is not None]
    if _many(parts):
        alone = [d for d in range(len(out)) if min(part.shape[d] for part in parts) == 1]  # rows and columns
        parts = [part.reduce(*(d for d in alone if part.shape[d] > 1)).as_bound() for part in parts]
    return union(parts, call.out)


def _many(parts: Sequence[Reach]) -> bool:
    """Whether there are too many pairs of windows to tell apart."""
    units = [[1 if part.walks(d) else size for d, size in enumerate(part.window_of.shape)] for part in parts]
    return len(parts) > 1 and prod(map(max, zip(*units, strict=True))) > MANY


def _laid_out(x: Reach, letters: str, out: str) -> Reach:
    """An operand's reach with the product's dimensions: those summed over mixed and gone, those it lacks of size 1."""
    for letter in dict.fromkeys(letters):
        if letter not in out:
            x, letters = x.reduce(letters.index(letter)).drop(letters.index(letter)), letters.replace(letter, "")
    x = x.permute([letters.index(letter) for letter in out if letter in letters])
    for dim, letter in enumerate(out):
        x = x if letter in letters else x.insert(dim)
    return x


def _matmul_macs(call: Call) -> int:
    """Nothing for a vector on the right, which torch's counter leaves out."""
    left, right = call.operands
    return 0 if len(right.shape) == 1 else prod(call.out) * left.shape[-1]


@joining(
    "aten.matmul.default", "aten.bmm.default", "aten.mm.default", "aten.mv.default", "aten.dot.default",
    macs=_matmul_macs, kind="matmul",
)  # fmt: skip
def product(call: Call, seen: Seen) -> Answer:
    """Row i times column j sees all of both; of very many pairs, all rows and columns (a bound)."""
    left, right = (len(x.shape) for x in call.operands)
    rows, columns = "y" if left > 1 else "", "z" if right > 1 else ""
    batch = _letters(len(call.out) - len(rows + columns))
    operands = [_tail(batch, left - 2) + rows + "x", _tail(batch, right - 2) + "x" + columns]
    return _contracted(call, seen, operands, batch + rows + columns)


def _tail(letters: str, count: int) -> str:
    return letters[len(letters) - max(count, 0) :]


def _added_macs(call: Call) -> int:
    return prod(call.out) * call.operands[1].shape[-1]


@joining("aten.addmm.default", "aten.baddbmm.default", macs=_added_macs, kind="matmul")
def added_product(call: Call, seen: Seen) -> Answer:
    """A matrix product, and what is added to it."""
    batch = _letters(len(call.out) - 2)
    return _contracted(call, seen, [batch + "yz", batch + "yx", batch + "xz"], batch + "yz")


def _einsum_sides(call: Call) -> tuple[list[str], str]:
    """The letters of an equation's operands and of its output; `...` stands for capitals, by size from the right."""
    equation = call["equation"].replace(" ", "")
    left, arrow, out = equation.partition("->")
    inputs = left.split(",")
    if not arrow:
        out = "..." * ("..." in left) + "".join(sorted(c for c in set(left) - {",", "."} if left.count(c) == 1))
    ranks = [len(x.shape) - len(letters.replace("...", "")) for x, letters in zip(call.operands, inputs, strict=True)]
    dots = _letters(max(ranks)).upper()
    inputs = [x.replace("...", _tail(dots, rank)) for x, rank in zip(inputs, ranks, strict=True)]
    return inputs, out.replace("...", dots)


def _einsum_macs(call: Call) -> int:
    """From left to right, each operand times the product so far: a bmm, or a plain product with nothing summed."""
    inputs, out = _einsum_sides(call)
    total, letters, sizes = 0, "", dict[str, int]()
    for place, (operand, names) in enumerate(zip(call.operands, inputs, strict=True)):
        sizes |= {c: max(size, sizes.get(c, 1)) for c, size in zip(names, operand.shape, strict=True)}
        later = set(out).union(*inputs[place + 1 :])
        alone = {c for c in letters if c not in later | set(names)} | {
            c for c in names if c not in later | set(letters)
        }
        both = (set(letters) | set(names)) - alone  # what one operand has alone is summed up before
        if place and both - later:
            total += prod(sizes[c] for c in both)
        letters = "".join(c for c in dict.fromkeys(letters + names) if c in later)
    return total


@joining("aten.einsum.default", macs=_einsum_macs, kind="matmul")
def einsum(call: Call, seen: Seen) -> Answer:
    """A sum over products, as its equation says."""
    inputs, out = _einsum_sides(call)
    if any(len(set(letters)) < len(letters) for letters in inputs):
        return None  # a diagonal
    return _contracted(call, seen, inputs, out)


def _attention_macs(call: Call) -> int:
    *_, queries, width = call["query"].shape
    keys, values = call["key"].shape[-2], call["value"].shape[-1]
    return int(prod(call["query"].shape[:-2]) * queries * keys * (width + values))


@joining("aten.scaled_dot_product_attention.default", macs=_attention_macs, kind="attention")
def attention(call: Call, seen: Seen) -> Answer:
    """A query sees itself, every key, and every value's same feature; the causal form sees fewer (a bound)."""
    reduced = {"query": (-1,), "key": (-1, -2), "value": (-2,), "attn_mask": (-1,)}
    parts = []
    for (name, dims), x in zip(reduced.items(), _by_name(call, seen, list(reduced)), strict=True):
        if x is not None:
            part = x.reduce(*(d % len(x.shape) for d in dims))
            parts.append(_one_head(part, call.out) if name != "attn_mask" else part)
    answer = union(parts, call.out)
    return answer.as_bound() if call["is_causal"] else answer


def _one_head(x: Reach, out: Sequence[int]) -> Reach:
    """Heads that several queries share (enable_gqa) are repeated."""
    for dim in range(len(x.shape) - 2):
        wanted = out[dim - len(x.shape) + len(out)]
        x = x.repeat(dim, wanted // x.shape[dim]) if 1 < x.shape[dim] < wanted else x
    return x


def _by_name(call: Call, seen: Seen, names: Sequence[str]) -> list[Reach | None]:
    """The reaches of the arguments of these names, None for what sees nothing or is no tensor."""
    given = [call.args.get(name) for name in names]
    reaches = iter(seen)
    return [next(reaches) if isinstance(value, Operand) else None for value in given]


def _recurrent_macs(call: Call) -> int:
    """Every weight matrix once a step; the first two dimensions are the steps and the batch."""
    return int(prod(call.input.shape[:2]) * sum(prod(x.shape) for x in call["params"] if len(x.shape) == 2))


@unary(
    "aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input",
    macs=_recurrent_macs, kind="matmul",
)  # fmt: skip
def recurrent(call: Call, x: Reach) -> Answer:
    """Every step is taken to see all steps of its sequence (a bound in one direction)."""
    steps = 1 if call["batch_first"] else 0
    mixed = x.mix(steps, 2).as_bound()
    states = [mixed.reduce(0, 1, 2).expand(shape) for shape in call.outs[1:]]
    return mixed.reduce(2).expand(call.out), *states
