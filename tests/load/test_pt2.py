"""A .pt2 file read as plain data is the net that torch reads; nothing in it runs, and what would have to is told."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import convsmith as cs
from convsmith.bench import bench
from convsmith.blocks import parse_block
from convsmith.errors import ConvsmithError
from convsmith.export import load_pt2
from convsmith.kernels.spec import ConvSpec
from convsmith.pt2 import read_program


class Split(nn.Module):
    """Calls of several outputs, lists of tensors, sizes worked out in forward, and several outputs of its own."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        left, right = x.chunk(2, dim=1)
        top, index = x.flatten(1).topk(3)
        return {"a": torch.cat([right, left], 1).view(x.shape[0], -1), "b": (top, index), "c": x.sum(dim=(2, 3))}


class Tied(nn.Module):
    """Weights that two layers share, a buffer that is not saved, a constant, and a module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.b.weight = self.a.weight
        self.register_buffer("shift", torch.rand(4, 1, 1), persistent=False)
        self.table = torch.arange(4.0).view(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.a(x))) * self.table + self.shift


class Lower(nn.Module):
    """A part in lower precision."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = self.a(x)
        return x.float()


class Frozen(nn.Module):
    """A part without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)


class Einsum(nn.Module):
    """An operator one of whose arguments has the name of a file's."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,bdhw->bcd", x, x)


class Odd(nn.Module):
    """Names that the reader's own module has."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("inputs", "_steps", "_held", "_scopes"):
            setattr(self, name, nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._held(self._steps(self.inputs(self._scopes(x))))


def separable() -> nn.Module:
    block = parse_block("dw-rpw:g=2,o=0.5").build(ConvSpec(4, 12, stride=(2, 2), bias=True))
    return nn.Sequential(block, nn.BatchNorm2d(12), nn.ReLU6(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


NETS: dict[str, Callable[[], nn.Module]] = {
    "several outputs": Split,
    "shared": Tied,
    "a part of the graph": Frozen,
    "lower precision": Lower,
    "odd names": Odd,
    "sums over axes": Einsum,
    "the project's operator": separable,
    "recurrent": lambda: nn.Sequential(nn.Flatten(2), nn.LSTM(144, 8, batch_first=True)),
    "attention": lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(144, 4, 32, batch_first=True)),
    "resized": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelUnshuffle(2)),
    "half": lambda: nn.Sequential(nn.Conv2d(4, 8, 3)).half(),
}


def written(model: nn.Module, path: Path, **options: Any) -> Path:
    """By torch.export, for any batch."""
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    options.setdefault("dynamic_shapes", ({0: Dim("batch")},))
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(2, 4, 12, 12, dtype=dtype),), **options), path)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NETS)
def test_a_file_read_as_data_computes_what_torch_reads(tmp_path: Path, name: str) -> None:
    path = written(NETS[name](), tmp_path / "net.pt2")
    mine, torchs = read_program(path), load_pt2(path).module()
    for batch in (1, 3):
        x = torch.randn(batch, 4, 12, 12).to(next(iter(mine.inputs.values())).dtype)
        got, want = (torch.utils._pytree.tree_leaves(each(x)) for each in (mine, torchs))
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


# Meta tensors have no half convolution and no autocast; torch's reader calls modules of a part of the graph submod_1.
LEFT = ("half", "lower precision", "a part of the graph")


def test_calls_in_a_part_of_the_graph_are_in_their_modules(tmp_path: Path) -> None:
    graph = cs.capture_file(written(Frozen(), tmp_path / "net.pt2"))
    assert [node.module for node in graph.layers] == ["a", "b"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in NETS if name not in LEFT])
def test_its_graph_is_that_of_torchs_own_reader(tmp_path: Path, name: str) -> None:
    path = written(NETS[name](), tmp_path / "net.pt2")
    mine, torchs = cs.capture_file(path), cs.capture_file(path, trust=True)
    assert mine.inputs[0].shape == torchs.inputs[0].shape == (1, 4, 12, 12)
    assert (mine.macs, mine.params, mine.unknown_ops) == (torchs.macs, torchs.params, torchs.unknown_ops)
    assert [(node.module, node.call.op, node.call.outs) for node in mine.layers] == [
        (node.module, node.call.op, node.call.outs) for node in torchs.layers
    ]


def test_a_file_of_fixed_size_is_not_run_on_another(tmp_path: Path) -> None:
    path = written(nn.Conv2d(4, 4, 3), tmp_path / "net.pt2", dynamic_shapes=None)
    with pytest.raises(ValueError, match="is 2x4x12x12, and was given 1x4x12x12"):
        read_program(path)(torch.zeros(1, 4, 12, 12))
    with pytest.raises(ConvsmithError, match="its batch is fixed at 2"):
        cs.capture_file(path)


def test_its_weights_are_of_the_bytes_in_the_file(tmp_path: Path) -> None:
    model = Tied()
    state = read_program(written(model, tmp_path / "net.pt2")).state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())


# --- files that hold code


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


Entries = dict[str, bytes]


def entries(path: Path) -> Entries:
    with zipfile.ZipFile(path) as archive:
        return {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}


def sound(folder: Path) -> Entries:
    """A small net's file, taken apart."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(576, 5))
    return entries(written(model, folder / "sound.pt2"))


def rewritten(path: Path, parts: Entries, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in parts.items():
            archive.writestr(f"{path.stem}/{name}", content)
    return path


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def in_graph(change: Callable[[dict[str, Any]], Any]) -> Callable[[Entries, Path], Entries]:
    """The entries with their program changed."""

    def changed(parts: Entries, mark: Path) -> Entries:
        record = json.loads(parts["models/model.json"])
        change(record)
        text = json.dumps(record).replace("MARK", str(mark))
        return parts | {"models/model.json": text.encode()}

    return changed


def in_config(kind: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Entries, Path], Entries]:
    name = f"data/{kind}/model_{kind}_config.json"

    def changed(parts: Entries, mark: Path) -> Entries:
        config = json.loads(parts[name])
        change(config["config"])
        return parts | {name: json.dumps(config).encode()}

    return changed


def target(name: str, *arguments: dict[str, Any]) -> Callable[[Entries, Path], Entries]:
    """The first call made another."""

    def change(record: dict[str, Any]) -> None:
        node = record["graph_module"]["graph"]["nodes"][0]
        node["target"] = name
        if arguments:
            node["inputs"] = [{"name": f"a{i}", "arg": arg, "kind": 1} for i, arg in enumerate(arguments)]

    return in_graph(change)


def expressions(record: dict[str, Any]) -> None:
    """Python in the place of every size."""
    code = "__import__('os').mkdir('MARK')"
    for meta in record["graph_module"]["graph"]["tensor_values"].values():
        for size in meta["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = code
    record["range_constraints"] = {code: {"min_val": 0, "max_val": None}}


def names(record: dict[str, Any]) -> None:
    """Python in the place of the input's name, which torch writes into code."""
    code = json.dumps("input=__import__('os').mkdir('MARK')")
    text = json.dumps(record["graph_module"]).replace('"input"', code)
    record["graph_module"] = json.loads(text)


def opaque(parts: Entries, mark: Path) -> Entries:
    name = "data/constants/model_constants_config.json"
    entry = {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    return parts | {
        name: json.dumps({"config": entry}).encode(), "data/constants/opaque_obj_0": pickle.dumps(Payload(mark))
    }  # fmt: skip


STRING, COMMAND = {"as_string": "MARK"}, {"as_string": "touch MARK"}
SPEC = json.dumps([1, {"type": "os.mkdir", "context": '"MARK"', "children_spec": []}])

# What is changed in a file, and what is told of it; None where the rest is read and the code left alone.
HOSTILE: dict[str, tuple[Callable[[Entries, Path], Entries], str | None]] = {
    "sample inputs": (lambda p, m: p | {"data/sample_inputs/model.pt": saved(Payload(m))}, None),
    "a pickled weight": (
        lambda p, m: in_config("weights", lambda c: c["0.weight"].update(use_pickle=True))(p, m)
        | {"data/weights/weight_0": saved(Payload(m))},
        "holds '0.weight' pickled",
    ),
    "legacy weights": (lambda p, m: p | {"data/weights/model.pt": saved(Payload(m))}, "cannot be read"),
    "legacy constants": (lambda p, m: p | {"data/constants/model.pt": saved(Payload(m))}, "cannot be read"),
    "an opaque constant": (opaque, "holds 'x' pickled"),
    "expressions": (in_graph(expressions), None),
    "guards": (in_graph(lambda r: r.update(guards_code=["__import__('os').mkdir('MARK')"])), None),
    "verifiers": (in_graph(lambda r: r.update(verifiers=["os.mkdir('MARK')"])), None),
    "tree specs": (
        in_graph(lambda r: r["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=SPEC, out_spec=SPEC)),
        None,
    ),
    "names that become code": (in_graph(names), None),
    "metadata": (
        in_graph(lambda r: r["graph_module"]["graph"]["nodes"][0]["metadata"].update(source_fn_stack="x,os.mkdir")),
        None,
    ),
    "a module of torch's": (target("torch.os.mkdir", STRING), "holds a call of torch.os.mkdir"),
    "a function of torch's": (target("torch.load", STRING), "holds a call of torch.load"),
    "torch.hub": (target("torch.hub.load", STRING), "holds a call of torch.hub.load"),
    "a library of operators": (target("torch.ops.load_library", STRING), "holds a call of torch.ops.load_library"),
    "operator's attributes": (
        target("_operator.methodcaller", STRING), "holds a call of _operator.methodcaller"
    ),
    "a file": (target("torch.ops.aten.from_file.default", STRING, {"as_bool": True}, {"as_int": 4}), "from_file"),
    "a builtin of TorchScript": (target("torch.ops.aten.save.default", STRING, STRING), "holds a call of"),
    "another library": (target("torch.ops.image.read_file.default", STRING), "holds a call of torch.ops.image"),
    "an attribute": (target("torch.ops.aten.__class__.mro", STRING), "holds a call of torch.ops.aten.__class__"),
    "what prints": (target("torch.ops.aten._print.default", STRING), "holds a call of torch.ops.aten._print"),
    "a text of any length": (target("torch.ops.aten.ljust.default", STRING, {"as_int": 10**11}, STRING), "aten.ljust"),
    "a list of any length": (target("torch.ops.aten.mul.left_t", {"as_ints": [1]}, {"as_int": 10**11}), "aten.mul"),
    "a higher-order operator": (target("torch.ops.higher_order.map_impl", STRING), "higher_order.map_impl"),
    "an object": (target("torch.ops.aten.relu.default", {"as_custom_obj": {"name": "x", "class_fqn": "os"}}),
                  "holds an argument of kind as_custom_obj"),
    "an operator as argument": (target("torch.ops.aten.relu.default", {"as_operator": "os.mkdir"}), "as_operator"),
    "two programs": (lambda p, m: p | {"models/b.json": p["models/model.json"]}, "holds 2 programs"),
    "compiled code": (
        lambda p, m: {k: v for k, v in p.items() if "models/" not in k} | {"data/aotinductor/model/a.so": b"\x7fELF"},
        "holds no programs",
    ),
    "another version": (in_graph(lambda r: r["schema_version"].update(major=9)), "version 9 of its format"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_code_of_a_file_runs(tmp_path: Path, name: str) -> None:
    change, told = HOSTILE[name]
    mark = tmp_path / "ran"
    path = rewritten(tmp_path / "net.pt2", change(sound(tmp_path), mark))
    for read in (lambda: cs.capture_file(path), lambda: bench({"net": path}, input=(4, 12, 12), batches=(1,),
                                                               runtimes=("eager",), seconds=0.01)):  # fmt: skip
        if told is None:
            read()
        else:
            with pytest.raises(ConvsmithError, match=told) as error:
                read()
            assert "\n" not in str(error.value)
            assert ("--trust" in str(error.value)) == ("cannot be read" not in told)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["sample inputs", "opaque constant"])
def test_with_consent_torch_reads_the_file_and_runs_its_code(tmp_path: Path, name: str) -> None:
    """Or the tests above would show nothing."""
    mark, parts = tmp_path / "ran", sound(tmp_path)
    changed = opaque(parts, mark) if name == "opaque constant" else HOSTILE[name][0](parts, mark)
    path = rewritten(tmp_path / "net.pt2", changed)
    with suppress(ConvsmithError):  # what the payload answers is no constant
        cs.capture_file(path, trust=True)
    assert mark.exists()


def first(config: dict[str, Any]) -> dict[str, Any]:
    meta: dict[str, Any] = config["0.weight"]["tensor_meta"]
    return meta


BROKEN: dict[str, Callable[[Entries, Path], Entries]] = {
    "a weight missing": lambda p, m: {k: v for k, v in p.items() if not k.endswith("weight_0")},
    "a weight cut": lambda p, m: p | {"data/weights/weight_0": b"abc"},
    "sizes beyond the bytes": in_config("weights", lambda c: first(c)["sizes"][0].update(as_int=10**9)),
    "strides beyond the bytes": in_config(
        "weights", lambda c: first(c)["strides"][0].update(as_int=10**9)
    ),
    "a tensor of one number, expanded": in_config(
        "weights", lambda c: first(c).update(sizes=[{"as_int": 10**12}], strides=[{"as_int": 0}])
    ),
    "an offset before the bytes": in_config(
        "weights", lambda c: first(c)["storage_offset"].update(as_int=-1)
    ),
    "a size that is text": in_config("weights", lambda c: first(c)["sizes"][0].update(as_int="4")),
    "no such type of number": in_config("weights", lambda c: first(c).update(dtype=99)),
    "no JSON": lambda p, m: p | {"models/model.json": b"{"},
    "nested JSON": lambda p, m: p | {"models/model.json": b"[" * 100_000},
    "a list for a graph": lambda p, m: p | {"models/model.json": b"[]"},
    "an argument of two kinds": target("torch.ops.aten.relu.default", {"as_int": 1, "as_float": 1.0}),
    "no such operator": target("torch.ops.aten.no_such.default"),
}  # fmt: skip


X = {"as_tensor": {"name": "input"}}
LONG = {"as_int": 10**11}
# Calls that ask for more than any net needs, and what is told.
ENDLESS: dict[str, tuple[Callable[[Entries, Path], Entries], str]] = {
    "a constant": (target("torch.ops.aten.ones.default", {"as_ints": [10**5, 10**6]}), "67,108,864 numbers"),
    "a range": (target("torch.ops.aten.arange.default", LONG), "67,108,864 numbers"),
    "on shapes": (target("torch.ops.aten.repeat.default", X, {"as_ints": [1, 1, 10**7, 1]}), "it would make a tensor"),
    "a text": (target("_operator.mul", {"as_string": "x"}, LONG), "mul of a str, which is no size"),
    "a list": (target("_operator.mul", {"as_ints": [1]}, LONG), "mul of a list, which is no size"),
    "a format": (target("_operator.mod", {"as_string": "%99999999999d"}, LONG), "mod of a str, which is no size"),
    "a number": (target("_operator.mul", {"as_int": 10**300}, {"as_int": 10**300}), "a size beyond 64 bits"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_calls_without_a_bound_are_refused(tmp_path: Path, name: str) -> None:
    change, told = ENDLESS[name]
    with pytest.raises(ConvsmithError, match=told) as error:
        cs.capture_file(rewritten(tmp_path / "net.pt2", change(sound(tmp_path), tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_told_in_one_line(tmp_path: Path, name: str) -> None:
    path = rewritten(tmp_path / "net.pt2", BROKEN[name](sound(tmp_path), tmp_path / "ran"))
    with pytest.raises(ConvsmithError, match="cannot be read") as error:
        cs.capture_file(path)
    assert "\n" not in str(error.value)


def test_a_compressed_file_is_refused_as_its_size_would_be_without_a_bound(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "net.pt2", sound(tmp_path) | {"models/model.json": b" " * 10**7}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ConvsmithError, match="is compressed"):
        cs.capture_file(path)


def test_damage_anywhere_is_told_in_one_line(tmp_path: Path) -> None:
    """Seeded changes of the program's text: the net is captured, or refused in a sentence."""
    parts, draw = sound(tmp_path), numpy.random.default_rng(0)
    text = parts["models/model.json"]
    for trial in range(60):
        broken = bytearray(text[: draw.integers(len(text))] if trial % 6 == 0 else text)
        for place in draw.integers(len(broken) or 1, size=1 + trial % 4):
            broken[place] = draw.integers(32, 127)
        path = rewritten(tmp_path / "net.pt2", parts | {"models/model.json": bytes(broken)})
        try:
            cs.capture_file(path, (4, 12, 12))
        except ConvsmithError as error:
            assert "\n" not in str(error)
