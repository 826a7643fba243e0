"""ONNX files as they come: recurrent layers, states, fixed batches, outputs, ops of other domains, hostile sizes."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.graph.call import Operand
from convsmith.graph.onnx import SIZES, TRANSLATIONS, Emit, Op, translates

IMAGE = (1, 3, 8, 8)
F = TensorProto.FLOAT


def file(
    path: Path, *nodes: onnx.NodeProto, inputs: Any = (("x", F, IMAGE),), outputs: tuple[str, ...] = ("y",),
    opset: int = 18, **own: Any,
) -> Path:  # fmt: skip
    """A file of nodes that reads `inputs` and its own tensors, and makes `outputs`."""
    values = [helper.make_tensor_value_info(*each) for each in inputs]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in own.items()]
    made = [helper.make_empty_tensor_value_info(name) for name in outputs]
    domains = [helper.make_opsetid(d, 1) for d in sorted({node.domain for node in nodes} - {""})]
    model = helper.make_model(
        helper.make_graph(nodes, "net", values, made, stored), opset_imports=[helper.make_opsetid("", opset), *domains]
    )
    model.ir_version = 9
    onnx.save(model, path)
    return path


N = helper.make_node


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_nodes_in_any_order_are_read_in_that_of_their_tensors(tmp_path: Path) -> None:
    """A converter to half precision puts its casts at the end of the file."""
    nodes = N("Conv", ["h", "w"], ["c"]), N("Cast", ["x"], ["h"], to=F), N("Relu", ["c"], ["y"])
    graphs = [
        cs.capture_file(file(tmp_path / "net.onnx", *order, w=weight(4, 3, 3, 3)))
        for order in (nodes, (nodes[1], nodes[0], nodes[2]))
    ]
    assert graphs[0].macs == graphs[1].macs == 36 * 4 * 27
    assert [node.call.op for node in graphs[0].nodes] == [node.call.op for node in graphs[1].nodes]


# --- recurrent layers


class Steps(nn.Module):
    """A recurrent layer with the states it is given, and what it ends with."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *state: Tensor) -> Any:
        return self.layer(x, state if len(state) > 1 else state[0]) if state else self.layer(x)[0]


LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(6, 5, batch_first=True),
    "lstm, two layers, both ways": lambda: nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
    "lstm without bias": lambda: nn.LSTM(6, 5, bias=False, batch_first=True),
    "gru": lambda: nn.GRU(6, 5, batch_first=True),
    "gru both ways": lambda: nn.GRU(6, 5, batch_first=True, bidirectional=True),
    "rnn": lambda: nn.RNN(6, 5, batch_first=True),
    "rnn of relu": lambda: nn.RNN(6, 5, 2, batch_first=True, nonlinearity="relu"),
}


@pytest.mark.parametrize("stated", [False, True], ids=["", "with states"])
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_count_as_torch_counts_them(tmp_path: Path, name: str, stated: bool) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    state = torch.zeros(layer.num_layers * (2 if layer.bidirectional else 1), 1, layer.hidden_size)
    states = [state] * (2 if isinstance(layer, nn.LSTM) else 1) * stated
    x = torch.randn(1, 7, 6)
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            Steps(layer).eval(), (x, *states), tmp_path / "net.onnx", dynamo=False, opset_version=14,
            input_names=["x", "h", "c"][: 1 + len(states)],
        )  # fmt: skip
    graph = cs.capture_file(tmp_path / "net.onnx")
    sizes = [p.shape for n, p in layer.named_parameters() if n.startswith("weight")]
    assert graph.macs == 7 * sum(a * b for a, b in sizes)
    assert graph.params == sum(p.numel() for p in layer.parameters())
    assert not graph.unknown_ops
    assert len(graph.inputs) == 1 + len(states)
    plain = cs.capture(Steps(layer), x)
    assert graph.macs == plain.macs
    extents = [g.reaches()[g.outputs[0]].extent() for g in (graph, plain)]
    assert extents[0] == extents[1]


@pytest.mark.parametrize("name", ["lstm", "gru both ways"])
@pytest.mark.parametrize("open_", [False, True])
def test_steps_may_come_first(tmp_path: Path, name: str, open_: bool) -> None:
    layer = LAYERS[name]().eval()
    layer.batch_first = False
    axes = {"x": {0: "steps"}} if open_ else None
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(Steps(layer), (torch.zeros(7, 1, 6),), tmp_path / "net.onnx", dynamo=False, opset_version=14,
                          input_names=["x"], dynamic_axes=axes)  # fmt: skip
    graph = cs.capture_file(tmp_path / "net.onnx", (7, 6))
    assert graph.macs == 7 * sum(p.numel() for n, p in layer.named_parameters() if n.startswith("weight"))
    assert graph.inputs[0].shape == (1, 7, 6)
    assert graph.reaches()[graph.outputs[0]].extent().window == (6,)


# --- fixed batches, several inputs


class Token(nn.Module):
    """A batch that stands in shapes: a flattening and a reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).reshape(x.shape[0], 2, 2, 16).transpose(1, 2)
        return self.head(y.reshape(x.shape[0], -1))


@pytest.mark.parametrize("batch", [2, 5, 8])
@pytest.mark.parametrize("opset", [11, 17])
def test_a_file_of_a_fixed_batch_is_read_for_one_image(tmp_path: Path, batch: int, opset: int) -> None:
    model, x = Token().eval(), torch.zeros(batch, 3, 8, 8)
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model, (x,), tmp_path / "net.onnx", dynamo=False, opset_version=opset)
    graph = cs.capture_file(tmp_path / "net.onnx")
    with FlopCounterMode(display=False) as counter:
        model(x[:1])
    assert graph.macs == counter.get_total_flops() // 2
    assert graph.inputs[0].shape == IMAGE


def test_several_inputs_are_given_by_name_and_share_symbols(tmp_path: Path) -> None:
    add = N("Add", ["x", "z"], ["y"])
    shared = file(tmp_path / "a.onnx", add, inputs=(("x", F, ("n", 3, "h", "w")), ("z", F, ("n", 3, "h", "w"))))
    assert [x.shape for x in cs.capture_file(shared, (3, 8, 9)).inputs] == [(1, 3, 8, 9)] * 2
    apart = file(tmp_path / "b.onnx", add, inputs=(("x", F, ("n", 3, "h", "w")), ("z", F, (None, 1, None, None))))
    shapes = [x.shape for x in cs.capture_file(apart, {"x": (3, 8, 9), "z": (1, 8, 9)}).inputs]
    assert shapes == [(1, 3, 8, 9), (1, 1, 8, 9)]
    with pytest.raises(ConvsmithError, match="input 'z' is open"):
        cs.capture_file(apart, (3, 8, 9))
    with pytest.raises(ConvsmithError, match="has no input 'q'; its inputs are x, z"):
        cs.capture_file(apart, {"q": (3, 8, 9)})


# --- outputs


def test_every_output_of_a_file_is_one_of_the_graph(tmp_path: Path) -> None:
    nodes = (
        N("Conv", ["x", "w"], ["a"]), N("Mystery", ["a"], ["b", "c"], domain="acme"), N("Relu", ["b"], ["d"]),
        N("TopK", ["a", "k"], ["v", "i"]), N("Identity", ["w"], ["own"]),
    )  # fmt: skip
    path = file(tmp_path / "net.onnx", *nodes, outputs=("d", "c", "v", "i", "own", "x", "a"), w=weight(4, 3, 3, 3),
                k=np.array([2]))  # fmt: skip
    model = onnx.load(path)
    shapes = [helper.make_tensor_value_info(name, F, (1, 4, 6, 6)) for name in "bc"]
    model.graph.value_info.extend(shapes)
    onnx.save(model, path)
    graph = cs.capture_file(path)
    assert len(graph.outputs) == len(set(graph.outputs)) == 7
    assert set(graph.outputs) <= graph.shapes.keys()
    assert graph.unknown_ops == {"onnx.acme.Mystery": 1, "onnx.TopK": 1}
    assert [graph.by_name[name].known for name in graph.outputs[:4]] == [False] * 4


def test_what_stands_behind_a_size_of_values_is_named(tmp_path: Path) -> None:
    """As a detector's suppression: the convolutions before it count, what is behind stands in the list."""
    nodes = (
        N("Conv", ["x", "w"], ["a"]), N("NonZero", ["a"], ["b"]), N("Cast", ["b"], ["c"], to=F),
        N("Transpose", ["c"], ["d"]), N("MatMul", ["d", "m"], ["y"]),
    )  # fmt: skip
    path = file(tmp_path / "net.onnx", *nodes, outputs=("a", "y"), w=weight(4, 3, 3, 3), m=weight(4, 2))
    graph = cs.capture_file(path)
    assert graph.macs == 4 * 27 * 36
    assert list(graph.unknown_ops) == [
        "onnx.NonZero", *(f"onnx.{op} of a size that depends on values" for op in ("Cast", "Transpose", "MatMul"))
    ]  # fmt: skip
    assert len(graph.outputs) == 2
    assert cs.score(graph).to_dict()["totals"]["lower_bound"] is True


def test_totals_say_where_they_are_lower_bounds(tmp_path: Path) -> None:
    from rich.console import Console

    from convsmith.report import scores_table

    conv = N("Conv", ["x", "w"], ["a"])
    path = file(tmp_path / "net.onnx", conv, N("LpPool", ["a"], ["y"], kernel_shape=[2, 2]), w=weight(4, 3, 3, 3))
    sound = file(tmp_path / "sound.onnx", conv, N("Relu", ["a"], ["y"]), w=weight(4, 3, 3, 3))
    for each, told in ((path, True), (sound, False)):
        scores = cs.score(cs.capture_file(each))
        console = Console(width=200)
        with console.capture() as shown:
            console.print(scores_table(scores))
        assert ("at least" in shown.get()) is told
        assert scores.to_dict()["totals"].get("lower_bound", False) is told


# --- ops of other domains


def test_a_translation_states_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRANSLATIONS, "_entries", dict(TRANSLATIONS._entries))
    monkeypatch.setattr(SIZES, "_entries", dict(SIZES._entries))

    @translates("acme.Halved", shape=lambda op: (*op[0].shape[:-1], op[0].shape[-1] // 2))
    def halved(op: Op, emit: Emit) -> Operand:
        return emit("aten.slice.Tensor", op.out, self=op[0], dim=3, start=0, end=op.out[-1], step=1)

    @translates("acme.Bare")
    def bare(op: Op, emit: Emit) -> Operand:
        return op[0]

    nodes = N("Halved", ["x"], ["a"], domain="acme"), N("Conv", ["a", "w"], ["y"])
    graph = cs.capture_file(file(tmp_path / "net.onnx", *nodes, w=weight(4, 3, 3, 3)))
    assert (graph.macs, graph.unknown_ops) == (4 * 27 * 6 * 2, {})
    for op, why in (("Bare", "has a translation that states no shape"), ("Other", "has no translation")):
        path = file(tmp_path / "net.onnx", N(op, ["x"], ["y"], domain="acme"))
        with pytest.raises(ConvsmithError, match=rf"acme\.{op} {why}, and the file does not say it"):
            cs.capture_file(path)


def test_infer_shapes_is_asked_where_a_node_alone_tells_nothing(tmp_path: Path) -> None:
    """An If on a value that the net computes: both branches make the same shape."""
    value = helper.make_empty_tensor_value_info
    arms = {f"{a}_branch": helper.make_graph([N("Relu", ["x"], [a])], a, [], [value(a)]) for a in ("then", "else")}
    nodes = (
        N("ReduceMax", ["x"], ["m"], keepdims=0), N("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        N("If", ["c"], ["b"], **arms), N("Conv", ["b", "w"], ["y"]),
    )  # fmt: skip
    graph = cs.capture_file(file(tmp_path / "net.onnx", *nodes, w=weight(4, 3, 3, 3)))
    assert graph.unknown_ops == {"onnx.If": 1}
    assert graph.macs == 4 * 27 * 36


# --- refusals

BIG = 10**9


def nested(path: Path) -> Path:
    """Functions that call the one before twice, thirty deep: a thousand million nodes in a small file."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    first = helper.make_function("own", "f0", ["a"], ["b"], [N("Relu", ["a"], ["b"])], opsets)
    rest = [
        helper.make_function(
            "own", f"f{i}", ["a"], ["b"],
            [N(f"f{i - 1}", ["a"], ["m"], domain="own"), N(f"f{i - 1}", ["m"], ["b"], domain="own")], opsets,
        )
        for i in range(1, 31)
    ]  # fmt: skip
    model = onnx.load(file(path, N("f30", ["x"], ["y"], domain="own")))
    model.functions.extend([first, *rest])
    onnx.save(model, path)
    return path


def conv(path: Path, *shape: int, image: tuple[int, ...] = IMAGE, op: str = "Conv", **how: Any) -> Path:
    return file(path, N(op, ["x", "w"], ["y"], **how), inputs=(("x", F, image),), w=weight(*shape))


def with_constant(path: Path, op: str, *inputs: str, **own: Any) -> Path:
    return file(path, N(op, list(inputs), ["c"]), N("Add", ["x", "c"], ["y"]), **own)


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "channels": (lambda p: conv(p, 4, 5, 3, 3), "3 channels into a weight of 4x5x3x3 in 1 group"),
    "groups": (lambda p: conv(p, 4, 3, 3, 3, group=7), "in 7 groups"),
    "groups of outputs": (lambda p: conv(p, 4, 1, 3, 3, group=3), "in 3 groups"),
    "kernel": (lambda p: conv(p, 4, 3, 3, 3, kernel_shape=[5, 5]), "a kernel of 5x5, but a weight of 4x3x3x3"),
    "dimensions": (lambda p: conv(p, 4, 3, 3), "does not fit what it is given"),
    "larger than the map": (lambda p: conv(p, 4, 3, 9, 9), "leaves nothing|does not fit"),
    "transposed": (lambda p: conv(p, 5, 4, 3, 3, op="ConvTranspose"), "3 channels into a weight of 5x4x3x3"),
    "integers": (lambda p: file(p, N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
                                N("ConvInteger", ["q", "w"], ["y"]), w=np.ones((4, 5, 3, 3), np.uint8)),
                 "3 channels into a weight of 4x5x3x3"),
    "quantized": (lambda p: file(p, N("QuantizeLinear", ["x", "s", "z"], ["q"]),
                                 N("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["y"]),
                                 w=np.ones((4, 5, 3, 3), np.uint8), s=np.float32(1), z=np.uint8(0)),
                  "3 channels into a weight of 4x5x3x3"),
    "recurrent": (lambda p: file(p, N("LSTM", ["x", "w", "r"], ["y"], hidden_size=5),
                                 inputs=(("x", F, (1, 7, 6)),), w=weight(1, 20, 9), r=weight(1, 20, 5)),
                  "6 features want a tensor of 1x20x6"),
    "statistics": (lambda p: file(p, N("BatchNormalization", ["x", "w", "w", "w", "w"], ["y"]), w=weight(5)),
                   "does not fit what it is given"),
    "made nowhere": (lambda p: file(p, N("Relu", ["x"], ["y"]), outputs=("y", "z")), "nothing makes its output 'z'"),
    "no channels": (lambda p: file(p, N("Relu", ["x"], ["y"]), inputs=(("x", F, (8,)),)), "has no channels"),
    "image": (lambda p: conv(p, 4, 3, 3, 3, image=(1, 3, BIG, BIG)), "is too large"),
    "overflow": (lambda p: conv(p, 4, 3, 3, 3, image=(1, 3, 2**62, 2**62)), "is too large"),
    "pads": (lambda p: conv(p, 4, 3, 3, 3, pads=[BIG] * 4), "it would make a tensor of"),
    "long pads": (lambda p: conv(p, 4, 3, 3, 3, pads=[10**7, 0, 10**7, 0]), "it would make a tensor of"),
    "pool": (lambda p: file(p, N("MaxPool", ["x"], ["y"], kernel_shape=[10**5] * 2, pads=[99999] * 4)),
             "it would|its kernel"),
    "constant": (lambda p: with_constant(p, "ConstantOfShape", "s", s=np.array([10**5, 10**5, 100])), "it would make"),
    "tile": (lambda p: with_constant(p, "Tile", "k", "r", k=weight(1), r=np.array([10**12])), "it would make"),
    "range": (lambda p: with_constant(p, "Range", "a", "b", "e", a=np.float32(0), b=np.float32(1e12), e=np.float32(1)),
              "it would make"),
    "expand": (lambda p: file(p, N("Expand", ["x", "s"], ["y"]), s=np.array([BIG, 3, 8, 8])), "it would make"),
    "resize": (lambda p: file(p, N("Resize", ["x", "", "s"], ["y"]), s=np.array([1, 1, 1e6, 1e6], np.float32)),
               "it would make"),
    "functions": (nested, "its functions make more than 1,000,000 nodes"),
    "circle": (lambda p: file(p, N("Relu", ["z"], ["y"]), N("Relu", ["y"], ["z"])), "read each other in a circle"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_files_that_do_not_fit_or_ask_for_too_much_are_refused(tmp_path: Path, case: str) -> None:
    make, told = WRONG[case]
    path, start = make(tmp_path / "net.onnx"), time.process_time()
    with pytest.raises(ConvsmithError, match=told) as error:
        cs.score(cs.capture_file(path))
    assert "\n" not in str(error.value)
    assert time.process_time() - start < 2
