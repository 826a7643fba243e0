"""Translations of recurrent layers: LSTM, GRU and the plain one."""

from convsmith.graph.call import Operand
from convsmith.graph.onnx.op import Declined, Emit, Misfit, Op, translates

_LAYERS = {"LSTM": ("lstm.input", 4), "GRU": ("gru.input", 3), "RNN": ("rnn_tanh.input", 1)}  # and how many gates


@translates(*_LAYERS)
def recurrent(op: Op, emit: Emit) -> list[Operand]:
    """One layer, in one direction or both; each direction has a weight for the input, one for the state, a bias."""
    aten, gates = _LAYERS[op.type]
    weights = [op[1], op[2]] + [bias for bias in (op.get(3),) if bias is not None]
    if not all(weight.own for weight in weights):
        raise Declined
    last = op.attributes.get("layout", 0)
    x = _turned(op[0], emit) if last else op[0]
    steps, batch, features = x.shape
    directions, width = op[2].shape[0], op[2].shape[-1]
    _require_fit(op, features, directions, gates * width, width)
    states = [state for state in (op.get(5), op.get(6)) if state is not None]
    args = {"hx": states, "params": [_one(w) for w in weights for _ in range(directions)], "batch_first": False}
    state = (directions, batch, width)
    made = emit(
        f"aten.{aten}", (steps, batch, directions * width), *(state for _ in op.outs[1:]),
        input=x, num_layers=1, bidirectional=directions == 2, **args,
    )  # fmt: skip
    whole = emit("getitem", (steps, batch, directions * width), self=made, index=0)
    ends = [emit("getitem", state, self=made, index=place) for place in range(1, len(op.outs))]
    return [_apart(whole, directions, bool(last), emit), *(_turned(end, emit) if last else end for end in ends)]


def _require_fit(op: Op, features: int, directions: int, rows: int, width: int) -> None:
    want = [(directions, rows, features), (directions, rows, width), (directions, 2 * rows)]
    for place, shape in enumerate(want, 1):
        given = op.get(place)
        if given is not None and given.shape != shape:
            got, wanted = ("x".join(map(str, each)) for each in (given.shape, shape))
            raise Misfit(f"{features} features want a tensor of {wanted}, and {given.name!r} is {got}")


def _one(weight: Operand) -> Operand:
    """One direction's part of a weight."""
    return Operand(weight.name, weight.shape[1:], own=True)


def _turned(x: Operand, emit: Emit) -> Operand:
    """The first two dimensions swapped."""
    shape = (x.shape[1], x.shape[0], *x.shape[2:])
    return emit("aten.permute.default", shape, self=x, dims=[1, 0, *range(2, len(shape))])


def _apart(x: Operand, directions: int, batch_first: bool, emit: Emit) -> Operand:
    """What all directions make, (steps, directions, batch, width), or (batch, steps, directions, width)."""
    steps, batch, width = x.shape
    shape = (steps, batch, directions, width // directions)
    x = emit("aten.reshape.default", shape, self=x, shape=list(shape))
    dims = [1, 0, 2, 3] if batch_first else [0, 2, 1, 3]
    return emit("aten.permute.default", tuple(shape[dim] for dim in dims), self=x, dims=dims)
