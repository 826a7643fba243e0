"""Graphs of files: a net as module, .pt2 and ONNX is one net; ONNX's own forms against ONNX Runtime; refusals."""

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.inception import BasicConv2d, InceptionC
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.testing import check_onnx

SHAPE = (3, 32, 32)


def mobilenet() -> nn.Module:
    """Depthwise convolutions, gates, hard-swish."""
    rows = [(16, 3, 16, 16, True, "RE", 2, 1), (16, 3, 32, 24, False, "RE", 2, 1), (24, 5, 48, 24, True, "HS", 1, 1)]
    return MobileNetV3([InvertedResidualConfig(*row, 1.0) for row in rows], last_channel=32, num_classes=5)


def inception() -> nn.Module:
    """Branches of 1x7 and 7x1 kernels."""
    stem = BasicConv2d(3, 8, kernel_size=3, stride=2)
    return nn.Sequential(stem, InceptionC(8, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(768, 5))


SMALL: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: cs.build("resnet20", classes=5, blocks_per_stage=(1, 1, 1)),
    "gated": mobilenet,
    "asymmetric": inception,
    "dense": lambda: models.DenseNet(8, (2, 2), 8, num_classes=5),
    "shuffled": lambda: models.ShuffleNetV2([2, 1, 1], [8, 16, 24, 32, 32], num_classes=5),
    "fire": lambda: models.squeezenet1_1(num_classes=5),
    "layer norms": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5),
}
LARGE = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0", "inception_v3")


def trained(model: nn.Module) -> nn.Module:
    """No two parameters alike: exporters store equal tensors once."""
    torch.manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def opset_13(model: nn.Module, x: Tensor, path: Path) -> None:
    """By the older exporter, nothing folded."""
    kept = torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=13, do_constant_folding=False, training=kept)


def newest(model: nn.Module, x: Tensor, path: Path) -> None:
    """By the newer exporter, nothing folded."""
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model, (x,), path, dynamo=True, optimize=False, verbose=False, external_data=False)


def folded(model: nn.Module, x: Tensor, path: Path) -> None:
    """By the newer exporter as it comes, normalization folded into convolutions."""
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False, external_data=False)


def folded_13(model: nn.Module, x: Tensor, path: Path) -> None:
    """By the older exporter as it comes: weights lose their names."""
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=13)


def pt2(model: nn.Module, x: Tensor, path: Path) -> None:
    """By torch.export, for any batch."""
    program = torch.export.export(model, (torch.cat([x, x]),), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, path)


def told(graph: cs.Graph, *without: str) -> list[dict[str, Any]]:
    """All that a table shows of a graph's layers."""
    layers = (layer.to_dict() for layer in cs.score(graph, convention="exact").layers)
    return [{key: value for key, value in layer.items() if key not in without} for layer in layers]


@cache
def net(name: str) -> tuple[nn.Module, cs.Graph]:
    """A small net and its graph."""
    model = trained(SMALL[name]())
    return model, cs.capture(model, torch.zeros(1, *SHAPE))


def files() -> Iterator[Any]:
    """Every net in every format; the newer exporter takes seconds."""
    for name in SMALL:
        for write in (opset_13, pt2, newest):
            slow = write is newest and name not in ("gated", "shuffled")
            yield pytest.param(name, write, marks=[pytest.mark.long] * slow)


@pytest.mark.parametrize(("name", "write"), list(files()))
def test_a_file_is_the_net_that_it_was_made_from(tmp_path: Path, name: str, write) -> None:
    model, graph = net(name)
    path = tmp_path / ("net.pt2" if write is pt2 else "net.onnx")
    write(model, torch.zeros(1, *SHAPE), path)
    read = cs.capture_file(path)
    assert told(read) == told(graph)
    assert (read.macs, read.params) == (graph.macs, graph.params)
    assert read.params == sum(node.params for node in read.nodes)
    assert read.unknown_ops == graph.unknown_ops == {}


@pytest.mark.parametrize(("name", "write"), [("residual", folded_13), ("shuffled", folded_13), ("gated", folded)])
def test_folding_normalization_into_convolutions_changes_their_parameters_alone(
    tmp_path: Path, name: str, write
) -> None:
    model, graph = net(name)
    write(model, torch.zeros(1, *SHAPE), tmp_path / "net.onnx")
    read = cs.capture_file(tmp_path / "net.onnx")
    assert told(read, "params") == told(graph, "params")
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert read.params == graph.params - sum(norm.num_features for norm in norms), "weight and bias become a bias"


@pytest.mark.long
@pytest.mark.parametrize("write", [opset_13, newest, pt2])
@pytest.mark.parametrize("name", LARGE)
def test_nets_of_torchvision_as_files(tmp_path: Path, name: str, write) -> None:
    options = {"init_weights": False} if name == "inception_v3" else {}  # it takes a while, and warns when not told
    model, x = trained(models.get_model(name, **options)), torch.zeros(1, 3, 96, 96)
    path = tmp_path / ("net.pt2" if write is pt2 else "net.onnx")
    write(model, x, path)
    read, graph = cs.capture_file(path), cs.capture(model, x)
    assert told(read) == told(graph)
    assert read.macs == graph.macs
    heads = sum(p.numel() for n, p in model.named_parameters() if n.startswith("AuxLogits"))  # not run, not exported
    assert read.params + heads * (write is not pt2) == graph.params


class Tied(nn.Module):
    """A convolution called twice, another that shares its weight, a learned scale, and a table that is not learned."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.b.weight = self.a.weight
        self.scale = nn.Parameter(torch.rand(3, 1, 1))
        self.register_buffer("table", torch.rand(3, 1, 1))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.silu(self.b(self.a(self.a(x)))) * self.scale + self.table)


def test_what_is_shared_counts_once_and_buffers_do_not_count_where_the_file_tells_them(tmp_path: Path) -> None:
    model, x = trained(Tied()), torch.zeros(1, *SHAPE)
    graph = cs.capture(model, x)
    newest(model, x, tmp_path / "new.onnx")
    opset_13(model, x, tmp_path / "old.onnx")
    new, old = cs.capture_file(tmp_path / "new.onnx"), cs.capture_file(tmp_path / "old.onnx")
    assert (new.params, old.params) == (graph.params, graph.params + 3)
    assert [layer["params"] for layer in told(graph)] == [84, 0, 3, 165]
    assert told(new) == told(old) == told(graph), "x * sigmoid(x) is no residual join, and the shared weight no name"
    assert old.layers[-1].call["bias"] is not None, "a product and a sum are one linear layer"


# --- forms of ONNX ops that torch does not write, against ONNX Runtime

IMAGE = (1, 2, 7, 6)
W = np.random.default_rng(0).uniform(0.5, 1.5, (3, 2, 4, 3)).astype(np.float32)


def written(
    path: Path, *nodes: tuple[str, str, dict[str, Any]], opset: int = 17, image: tuple[Any, ...] = IMAGE, **own: Any
) -> Path:
    """A file of `nodes`, each (op, "inputs", attributes), reading x and making t0, t1, ..; the last makes y."""
    names = [f"t{place}" for place in range(len(nodes) - 1)] + ["y"]
    made = [
        helper.make_node(op, ins.replace("_", "").split(" "), [name], **more)
        for (op, ins, more), name in zip(nodes, names, strict=True)
    ]
    graph = helper.make_graph(
        made, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in own.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


POOL = {"kernel_shape": [3, 2], "strides": [2, 2]}
CONV = {"kernel_shape": [4, 3]}
FORMS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "same upper": ((("Conv", "x w", CONV | {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),), {"w": W}),
    "same lower": ((("Conv", "x w", CONV | {"strides": [2, 3], "auto_pad": "SAME_LOWER"}),), {"w": W}),
    "same, stride 1": ((("Conv", "x w", CONV | {"auto_pad": "SAME_UPPER"}),), {"w": W}),
    "valid": ((("Conv", "x w", CONV | {"auto_pad": "VALID"}),), {"w": W}),
    "uneven": ((("Conv", "x w", CONV | {"pads": [0, 2, 3, 1], "dilations": [1, 2]}),), {"w": W}),
    "max pool": ((("MaxPool", "x", POOL | {"pads": [0, 0, 1, 1], "ceil_mode": 1}),), {}),
    "average pool": ((("AveragePool", "x", POOL | {"auto_pad": "SAME_UPPER"}),), {}),
    "reversed": ((("Slice", "x a b c d", {}),),
                 {"a": ints(-2, 5), "b": ints(-99, 1), "c": ints(2, 3), "d": ints(-2, -1)}),
    "sliced": ((("Slice", "x", {"starts": [1, -4], "ends": [99, -1], "axes": [2, 3]}),), {"opset": 9}),
    "gathered": ((("Gather", "x i", {"axis": 2}),), {"i": ints(0, 1, 2, -1, 4)}),
    "padded": ((("Pad", "x p", {}),), {"p": ints(0, 0, 1, 0, 0, 0, -1, 2)}),
    "padded, axes": ((("Pad", "x p _ a", {"mode": "reflect"}),), {"p": ints(2, 1), "a": ints(3), "opset": 18}),
    "padded, old": ((("Pad", "x", {"pads": [0, 0, 1, 0, 0, 0, 0, 2]}),), {"opset": 10}),
    "split": ((("Conv", "x v", {}), ("Split", "t0", {"axis": 1, "split": [3]}), ("Relu", "t1", {})),
              {"v": W[:, :, :1, :1], "opset": 11}),
    "weights transposed": ((("Transpose", "w", {"perm": [1, 0, 2, 3]}), ("Conv", "x t0", {"pads": [1, 1, 1, 1]})),
                           {"w": W.transpose(1, 0, 2, 3)}),
    "weights computed": ((("Sub", "w w", {}), ("Add", "t0 w", {}), ("Conv", "x t1", {"pads": [1, 1, 1, 1]})), {"w": W}),
    "grouped by shuffle": ((("Reshape", "x s", {}), ("Transpose", "t0", {"perm": [0, 2, 1, 3, 4]}),
                            ("Reshape", "t1 r", {}), ("Conv", "t2 g", {"group": 2})),
                           {"s": ints(1, 2, 1, 7, 6), "r": ints(0, -1, 7, 6), "g": W[:2, :1]}),
    "shape computed": ((("Shape", "x", {}), ("Gather", "t0 two", {}), ("Div", "t1 two", {}),
                        ("Slice", "x one t2 two", {})),
                       {"two": ints(2), "one": ints(1)}),
    "sums": ((("MaxPool", "x", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}), ("Sum", "x t0 b", {}),
              ("Max", "t1 x b", {})), {"b": floats(0.5)}),
    "scaled": ((("Clip", "x low", {}), ("Pow", "t0 two", {}), ("PRelu", "t1 slope", {}), ("Conv", "t2 w", {})),
               {"low": floats(0.0)[0], "two": floats(2.0)[0], "slope": np.full((2, 1, 1), 0.5, np.float32), "w": W}),
    "globally pooled": ((("GlobalAveragePool", "x", {}), ("Sigmoid", "t0", {}), ("Add", "t1 x", {})), {}),
    "normalized": ((("Conv", "x w", CONV), ("LRN", "t0", {"size": 3})), {"w": W}),
    "reduced": ((("ReduceMax", "x", {"axes": [2], "keepdims": 1}), ("Sub", "x t0", {})), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_onnx_see_what_onnx_runtime_sees(tmp_path: Path, name: str) -> None:
    nodes, more = FORMS[name]
    check_onnx(onnx.load(written(tmp_path / "net.onnx", *nodes, **more)))


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_have_the_sizes_that_onnx_runtime_makes(tmp_path: Path, op: str, auto_pad: str) -> None:
    """Of drawn sizes, kernels, strides and pads: ONNX's own inference makes a window more in ceil_mode."""
    random = Random(f"{op} {auto_pad}")
    for case in range(40):
        kernel, dilation = [random.randint(1, 4) for _ in "hw"], [random.choice((1, 1, 2)) for _ in "hw"]
        strides = [
            random.randint(1, side if "SAME" in auto_pad else 5) for side in kernel
        ]  # else it pads by less than 0
        how: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "ceil_mode": random.randint(0, 1)}
        how["auto_pad"] = auto_pad
        if auto_pad == "NOTSET":
            how["pads"] = [random.randint(0, side // 2) for side in 2 * kernel]
        if op == "MaxPool" and auto_pad == "NOTSET":
            how["dilations"] = dilation
        image = (1, 2, random.randint(7, 12), random.randint(7, 12))
        node = onnx.helper.make_node(op, ["x"], ["y"], **how)
        values = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, image)]
        made = [onnx.helper.make_empty_tensor_value_info("y")]
        graph = onnx.helper.make_graph([node], "net", values, made)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
        path = tmp_path / f"{case}.onnx"
        onnx.save(model, path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of the window more that it has itself inferred
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        wanted = session.run(None, {"x": np.zeros(image, np.float32)})[0].shape
        captured = cs.capture_file(path)
        assert captured.shapes[captured.outputs[0]] == wanted, (how, image)


def test_a_net_of_another_framework_and_an_old_opset() -> None:
    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    graph = cs.capture_file(data / "light_resnet50.onnx")
    assert graph.macs == 4_089_184_256
    last = [layer for layer in graph.layers if layer.kind == "conv"][-1]
    assert graph.reaches()[last.name].extent().window_free == (427, 427)


@pytest.mark.parametrize(
    ("nodes", "own", "macs", "params", "kinds"),
    [
        ([("Flatten", "x", {}), ("Gemm", "t0 m", {})], {"m": np.ones((84, 5))}, 420, 420, ["linear"]),
        ([("Flatten", "x", {}), ("Gemm", "t0 m b", {"transB": 1})], {"m": np.ones((5, 84)), "b": np.ones(5)}, 420, 425,
         ["linear"]),
        ([("MatMul", "x m", {}), ("Add", "b t0", {})], {"m": np.ones((6, 5)), "b": np.ones(5)}, 420, 35, ["linear"]),
        ([("MatMul", "x m", {}), ("Add", "b t0", {})], {"m": np.ones((6, 5)), "b": np.ones((7, 5))}, 420, 65,
         ["linear"]),
        ([("Transpose", "x", {"perm": [0, 1, 3, 2]}), ("MatMul", "x t0", {})], {}, 2 * 7 * 6 * 7, 0, ["matmul"]),
        ([("MatMul", "m x", {})], {"m": np.ones((5, 7))}, 2 * 5 * 7 * 6, 35, ["matmul"]),
    ],
)  # fmt: skip
def test_products_are_layers(tmp_path: Path, nodes, own, macs: int, params: int, kinds: list[str]) -> None:
    stored = {name: value.astype(np.float32) for name, value in own.items()}
    graph = cs.capture_file(written(tmp_path / "net.onnx", *nodes, **stored))
    assert (graph.macs, graph.params, [layer.kind for layer in graph.layers]) == (macs, params, kinds)


def test_an_op_without_a_translation_is_named_and_nothing_behind_it_is_guessed(tmp_path: Path) -> None:
    nodes = ("Conv", "x w", {}), ("LpPool", "t0", {"kernel_shape": [2, 2]}), ("Relu", "t1", {}), ("Conv", "t2 v", {})
    graph = cs.capture_file(written(tmp_path / "net.onnx", *nodes, w=W, v=np.ones((4, 3, 1, 1), np.float32)))
    assert graph.unknown_ops == {"onnx.LpPool": 1}
    assert [node.known for node in graph.nodes] == [True, False, False, False]
    first, last = cs.score(graph).layers
    assert first.reach is not None
    assert last.reach is None
    assert (first.name, last.name, last.macs) == ("t0", "y", 12 * 3 * 3)


def test_weights_beside_the_file_need_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", ("Conv", "x w", {}), w=np.ones((300, 2, 7, 6 * 1), np.float32).repeat(4, 0))
    whole = cs.capture_file(path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    assert cs.capture_file(path).params == whole.params == 1200 * 2 * 7 * 6


def test_open_sizes_are_filled(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", ("Conv", "x w", {}), image=("n", 2, "h", "w"), w=W)
    assert cs.capture_file(path, (2, 9, 8)).macs == W.size * 6 * 6


def test_channels_last_are_turned_round(tmp_path: Path) -> None:
    nodes = ("Transpose", "x", {"perm": [0, 3, 1, 2]}), ("Conv", "t0 w", {})
    graph = cs.capture_file(written(tmp_path / "net.onnx", *nodes, image=("n", "h", "w", 2), w=W), (2, 9, 8))
    assert [node.call.op for node in graph.nodes] == ["aten.conv2d.default"]
    assert graph.inputs[0].shape == (1, 2, 9, 8)


def test_a_branch_on_a_constant_is_taken(tmp_path: Path) -> None:
    value = helper.make_empty_tensor_value_info
    arms = {
        f"{arm}_branch": helper.make_graph([helper.make_node(op, ["x"], [arm])], arm, [], [value(arm)])
        for arm, op in (("then", "Relu"), ("else", "LpNormalization"))
    }
    path = written(tmp_path / "net.onnx", ("If", "yes", arms), ("Sigmoid", "t0", {}), yes=np.array(True))
    assert [node.call.op for node in cs.capture_file(path).nodes] == ["aten.relu.default", "aten.sigmoid.default"]


# --- refusals


def broken(path: Path) -> Path:
    path.write_bytes(b"\x93nonsense" * 20)
    return path


def two_inputs(path: Path) -> Path:
    written(path, ("Relu", "x", {}))
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 4)))
    onnx.save(model, path)
    return path


def tied_to_its_batch(path: Path) -> Path:
    """Images of one batch are mixed."""
    return written(path, ("Reshape", "x s", {}), ("Conv", "t0 w", {}), image=(4, 2, 7, 6), s=ints(1, 8, 7, 6),
                   w=np.ones((3, 8, 1, 1), np.float32))  # fmt: skip


def without_its_numbers(path: Path) -> Path:
    written(path, ("Reshape", "x s", {}), s=ints(1, -1))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="numbers", size_threshold=0)
    (path.parent / "numbers").unlink()
    return path


def head(path: Path) -> Path:
    nodes = ("Flatten", "x", {}), ("Gemm", "t0 m", {})
    return written(path, *nodes, image=(1, 2, "h", "w"), m=np.ones((84, 5), np.float32))


def open_pt2(path: Path) -> Path:
    sizes = ({2: Dim("h", min=4), 3: Dim("w", min=4)},)
    torch.export.save(torch.export.export(nn.Conv2d(2, 3, 3), (torch.zeros(IMAGE),), dynamic_shapes=sizes), path)
    return path


RELU = (("Relu", "x", {}),)
REFUSED: dict[str, tuple[str, Callable[[Path], Any], tuple[int, ...] | None, str]] = {
    "no file": ("a.onnx", lambda p: p, None, "no such file"),
    "another kind": ("a.txt", lambda p: p.write_text("x"), None, "Unknown kind of model file '.txt'"),
    "no ONNX": ("a.onnx", broken, None, "is not an ONNX file"),
    "empty": ("a.onnx", lambda p: p.touch(), None, "holds no ONNX graph"),
    "open": ("a.onnx", lambda p: written(p, *RELU, image=("n", 2, "h", None)), None, "'x' is open; give --input C,H,W"),
    "other size": ("a.onnx", lambda p: written(p, *RELU), (3, 7, 6), "is 2x7x6, but --input is 3x7x6; leave it out"),
    "other rank": ("a.onnx", lambda p: written(p, *RELU), (2, 7), "is 2x7x6, but --input is 2x7; leave it out"),
    "batch": ("a.onnx", tied_to_its_batch, None, "its batch is fixed at 4, and its ops fit no other"),
    "two inputs": ("a.onnx", two_inputs, (2, 7, 7), "its input 'x' is 2x7x6, but --input is 2x7x7"),
    "no fit": ("a.onnx", head, (2, 8, 6), "Gemm 'y' does not fit what it is given"),
    "damaged": ("a.onnx", lambda p: written(p, ("Add", "x z", {})), None, "Add 'y' reads 'z', which nothing makes"),
    "numbers": ("a.onnx", without_its_numbers, None, "the numbers of s cannot be read"),
    "no pt2": ("a.pt2", broken, None, "cannot be read"),
    "open pt2": ("a.pt2", open_pt2, None, "the size 2x?x? of its input 'input' is open; give --input C,H,W"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    name, make, given, why = REFUSED[case]
    make(tmp_path / name)
    with pytest.raises(ConvsmithError) as error:
        cs.capture_file(tmp_path / name, given)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_several_inputs_of_fixed_size_are_read(tmp_path: Path) -> None:
    assert [x.shape for x in cs.capture_file(two_inputs(tmp_path / "a.onnx")).inputs] == [IMAGE, (1, 4)]
