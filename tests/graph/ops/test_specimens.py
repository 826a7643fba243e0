"""Every rule against autograd: a specimen per op."""

import pytest
import torch
from specimens import SPECIMENS, Call
from torch import Tensor, nn

import convsmith as cs
from convsmith.graph.call import RULES
from convsmith.testing import check_rule
from convsmith.testing.oracles import disagreements, torch_macs

# torch, of an even kernel under `same`, which pads one side more than the other
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

aten = torch.ops.aten


def captured(net: nn.Module, shape: tuple[int, ...]) -> cs.Graph:
    return cs.capture(net, torch.zeros(1, *shape, dtype=torch.float64))


@pytest.mark.parametrize("name", SPECIMENS)
def test_what_an_op_sees_is_what_autograd_finds(name: str) -> None:
    one = SPECIMENS[name]
    graph = check_rule(one.net, torch.zeros(1, *one.shape), draws=one.draws, bound=one.bound)
    assert one.bound or not graph.reaches()[graph.outputs[0]].bound


@pytest.mark.parametrize("name", [name for name, one in SPECIMENS.items() if one.bound and "back" not in name])
def test_a_bound_says_so(name: str) -> None:
    graph = captured(SPECIMENS[name].net.double(), SPECIMENS[name].shape)
    assert graph.reaches()[graph.outputs[0]].extent().bound


# --- what works on each element by itself needs no specimen: its arguments follow from the schema

FILL = {"number": 0.5, "Scalar": 0.5, "float": 0.5, "bool": False, "int": torch.float64, "ScalarType": torch.float64}
FILL |= {"Device": torch.device("cpu"), "Optional[List[int]]": None}


def from_schema(name: str) -> nn.Module:
    """An op on each element by itself, its further arguments filled in by their types."""
    _, op, overload = name.split(".")
    target = getattr(getattr(aten, op), overload)
    needed = [a for a in target._schema.arguments if not a.has_default_value() and not a.kwarg_only]
    options = {"min": 0.5} if op in ("clamp", "clamp_") else {}

    def function(x: Tensor) -> Tensor:
        data = 0.9 * x  # where every function is defined, and a tensor that may be written to
        given = [data if str(a.real_type) == "Tensor" else FILL[str(a.real_type)] for a in needed]
        answer: Tensor = target(*given, **options)
        return answer

    return Call(function)


# No gradient goes through these, so that autograd is no judge: each shares its rule with one that is judged, or with
# one whose arguments have the same names and meaning.
UNJUDGED = {
    "aten.amax.default": ("aten.argmax.default", "aten.argmin.default", "aten.all.dim", "aten.any.dim"),
    "aten.sum.default": ("aten.all.default", "aten.any.default"),
    "aten.add.Tensor": (
        *(f"aten.{op}{place}.Tensor" for op in ("gt", "ge", "lt", "le", "eq", "ne") for place in ("", "_")),
        *(f"aten.logical_{op}{place}.default" for op in ("and", "or", "xor") for place in ("", "_")),
        *(f"aten.{op}{place}.Tensor" for op in ("floor_divide", "remainder", "fmod") for place in ("", "_")),
        *(f"aten.{op}.Tensor" for op in ("bitwise_and", "bitwise_or", "__and__", "__or__", "__xor__")),
        "aten.div.Tensor_mode", "aten.div_.Tensor_mode",
        "aten.where.Scalar", "aten.where.ScalarOther", "aten.where.ScalarSelf",
        "aten.masked_fill.Tensor", "aten.masked_fill_.Tensor",
    ),
    "aten.clone.default": (
        *(f"aten.{op}{place}.Scalar" for op in ("gt", "ge", "lt", "le", "eq", "ne", "floor_divide")
          for place in ("", "_")),
        *(f"aten.{op}{place}.default" for op in ("floor", "ceil", "round", "trunc", "sign") for place in ("", "_")),
        *(f"aten.{op}{place}.default" for op in ("logical_not", "bitwise_not", "detach") for place in ("", "_")),
        "aten.isnan.default", "aten.isinf.default", "aten.isfinite.default", "aten.sgn.default",
        "aten.lift_fresh.default", "aten.lift_fresh_copy.default", "aten.real.default", "aten.to.dtype_layout",
    ),
    "aten.tril.default": ("aten.triu.default",),
    "aten.upsample_linear1d.default": ("aten.upsample_linear1d.vec",),
    "aten.take_along_dim.default": (
        "aten.scatter.src", "aten.scatter_.src", "aten.scatter.value", "aten.scatter_add.default",
        "aten.scatter_add_.default", "aten.masked_scatter.default", "aten.masked_scatter_.default",
        "aten.affine_grid_generator.default", "torchvision.roi_align.default", "torchvision.roi_pool.default",
    ),
    "aten.index_add.default": ("aten.index_add_.default", "aten.index_copy.default"),
    "aten.grid_sampler.default": ("aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default"),
    "aten.batch_norm.default": ("aten._native_batch_norm_legit_no_training.default",),
    "aten.softmax.int": ("aten.argsort.default", "aten.argsort.stable"),
}  # fmt: skip
RESIZED = [op for op in RULES if "upsample" in op and not op.endswith(".vec")]  # what .vec is a front for


def test_every_op_with_a_rule_is_judged() -> None:
    graphs = [captured(one.net.double(), one.shape) for one in SPECIMENS.values()]
    met = {node.call.op for graph in graphs for node in graph.nodes}
    for judged, others in UNJUDGED.items():
        for op in others:
            assert RULES[op].reach is RULES[judged].reach, f"{op} is judged by {judged}, whose rule it does not share"
    unjudged = {op for others in UNJUDGED.values() for op in others}
    left = set(RULES) - met - unjudged - set(RESIZED)
    for name in sorted(left):
        net = from_schema(name)
        graph = captured(net, (4, 3, 3))
        assert graph.unknown_ops == {}
        assert graph.nodes[-1].call.op == name
        reach = graph.reaches()[graph.outputs[0]]
        assert reach.extent().window == (1, 1), name
        assert list(disagreements(net, (4, 3, 3), reach, draws=24)) == [], name


# --- cost

COUNTED = {
    name: one
    for name, one in SPECIMENS.items()
    if name.split()[0].strip(",") in ("conv", "transposed", "rolling", "linear", "matmul", "bmm", "mm", "addmm",
                                      "baddbmm", "einsum", "attention", "long", "gated", "memory")
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_multiplications_are_those_of_torchs_counter(name: str) -> None:
    one = COUNTED[name]
    x = torch.zeros(1, *one.shape, dtype=torch.float64)
    counted = torch_macs(one.net.double(), x)
    assert cs.capture(one.net, x).macs == counted > 0
