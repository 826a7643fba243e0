"""The judges of extensions: every entry of our own tables passes, and entries with one thing wrong do not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from convsmith.algebra import METHODS, DepthwiseFirst, Target, fits, relative_error
from convsmith.blocks import BLOCKS, Block, Carried
from convsmith.blocks.base import taps, write
from convsmith.errors import UnknownNameError
from convsmith.graph.call import RULES, Operand, unary
from convsmith.graph.onnx import TRANSLATIONS, Emit, Op, translates
from convsmith.kernels.spec import ConvSpec
from convsmith.registry import Registry
from convsmith.testing import check_block, check_method, check_net, check_onnx, check_rule
from convsmith.testing.blocks import example
from convsmith.zoo import NETS
from convsmith.zoo.records import MODULES, HeadRecord, NetForms, NetRecord, StageRecord, StemRecord

pytestmark = pytest.mark.filterwarnings("ignore:Trying to compute SVD")  # of tensorly


# --- what is registered, ours and yours


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_passes(name: str) -> None:
    check_block(example(BLOCKS[name]), less=True)


@pytest.mark.parametrize(
    "text",
    ["dw-pw", "dw-pw:r=2", "pw-dw", "cp:r=6", "channel:r=4", "spatial:r=4", "tucker:r=4,s=4", "eca", "se:r=2",
     "shuffle", "ant", "dw-gpw:g=1", "seq:dw1x3,dw3x1,pw"],
)  # fmt: skip
def test_these_see_all_that_the_convolution_sees(text: str) -> None:
    if text.startswith("seq"):
        check_block(text, (ConvSpec(8, 12, bias=True),))
    else:
        check_block(text)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_passes(name: str) -> None:
    check_method(name)


def nets() -> Iterator[object]:
    """The nets for large images take longer."""
    for name, forms in NETS.items():
        yield pytest.param(name, marks=[pytest.mark.long] * (forms.side > 64 or name in ("resnet44", "resnet56")))


@pytest.mark.parametrize("name", list(nets()))
def test_every_net_passes(name: str) -> None:
    check_net(name, side=min(64, NETS[name].side))


# --- one thing wrong


@pytest.fixture(autouse=True)
def tables_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (BLOCKS, METHODS, NETS, RULES, TRANSLATIONS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))


def put(table: Registry, name: str, entry: object) -> None:
    table._entries[name] = entry


@dataclass(frozen=True)
class Center(Block):
    """The middle tap, as docs/extend.md has it."""

    name: ClassVar[str] = "center"
    fitted: ClassVar[bool] = False

    def misfit(self, conv: ConvSpec) -> str | None:
        return None if conv.kernel == (3, 3) and conv.padding == (1, 1) else "it has no middle on every pixel"

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        return {"pointwise": nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.stride, bias=conv.bias)}

    def carry(self, conv, block, request) -> Carried:
        middle = taps(conv) * (torch.arange(9) == 4)
        write(block.pointwise, middle.sum(2), conv.bias)
        return Carried(relative_error(taps(conv), middle))


class Blameless(Center):
    def carry(self, conv, block, request) -> Carried:
        super().carry(conv, block, request)
        return Carried(0.0)


class Absolute(Center):
    def carry(self, conv, block, request) -> Carried:
        super().carry(conv, block, request)
        return Carried((taps(conv) * (torch.arange(9) != 4)).norm().item())


class Biasless(Center):
    def carry(self, conv, block, request) -> Carried:
        found = super().carry(conv, block, request)
        if conv.bias is not None:
            nn.init.zeros_(block.pointwise.bias)
        return found


class Reversed(Center):
    def carry(self, conv, block, request) -> Carried:
        found = super().carry(conv, block, request)
        block.pointwise.weight.data = block.pointwise.weight.data.flip(0)
        return found


class Attentive(Center):
    fitted: ClassVar[bool] = True


class Careless(Center):
    carries: ClassVar[bool] = False


class Larger(Center):
    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        return {"pointwise": nn.Conv2d(conv.in_channels, conv.out_channels, 1, padding=1, bias=conv.bias)}


BLOCK_FAULTS = {
    Center: None,
    Blameless: "tells an error of 0.0 and makes 0.9",
    Absolute: "1000 times the weight changes the error|tells an error of",
    Biasless: "the bias must be the convolution's, on the last kernel",
    Reversed: "tells an error of",
    Attentive: "with data the mean is not|with data tells an error of .* or set `fitted = False`|tells a shift",
    Careless: "carries no weights, but tells",
    Larger: "makes .* where the convolution makes",
}


@pytest.mark.parametrize("kind", BLOCK_FAULTS, ids=lambda kind: kind.__name__)
def test_a_block_with_a_fault_is_told(kind: type[Center]) -> None:
    put(BLOCKS, "center", kind)
    if BLOCK_FAULTS[kind] is None:
        check_block(kind(), less=True)
        return
    with pytest.raises(AssertionError, match=BLOCK_FAULTS[kind]):
        check_block(kind(), less=True)


def test_a_block_that_sees_less_says_so() -> None:
    put(BLOCKS, "center", Center)
    with pytest.raises(AssertionError, match=r"sees 16 channels in .* the convolution 16 in \(\(1, 3\), \(1, 3\)\)"):
        check_block(Center())


def test_a_block_nobody_registered_and_one_that_suits_nothing() -> None:
    with pytest.raises(AssertionError, match="center is not registered under its name"):
        check_block(Center())
    with pytest.raises(AssertionError, match=r"dw-gpw:g=7 refuses every convolution, the first since g=7 does not"):
        check_block("dw-gpw:g=7")


RUNNING = "aten.cumsum.default"


def judge_running() -> None:
    check_rule(lambda x: x.cumsum(2), torch.zeros(1, 4, 6, 6), op=RUNNING)


def test_a_rule_is_judged_by_autograd() -> None:
    judge_running()
    del RULES._entries[RUNNING]
    with pytest.raises(AssertionError, match=r"No rule for aten\.cumsum\.default; register one"):
        judge_running()
    for wrong in (lambda call, x: x, lambda call, x: x.mix(2)):
        RULES._entries.pop(RUNNING, None)
        unary(RUNNING)(wrong)
        with pytest.raises(AssertionError, match=r"Output .* sees channels and spans .* by autograd, .* by the rules"):
            judge_running()
    check_rule(lambda x: x.cumsum(2), torch.zeros(1, 4, 6, 6), bound=True)  # all of it is a bound


def test_a_rule_that_is_not_asked_is_not_judged() -> None:
    with pytest.raises(AssertionError, match=r"aten\.cumsum\.default is not called, but aten\.relu\.default"):
        check_rule(torch.relu, torch.zeros(1, 4, 6, 6), op=RUNNING)


def test_a_count_is_judged_by_torch() -> None:
    conv, x = nn.Conv2d(4, 8, 3), torch.zeros(1, 4, 6, 6)
    right = RULES["aten.conv2d.default"]
    put(RULES, "aten.conv2d.default", type(right)(right.reach, lambda call: 1, right.ptflops, right.kind))
    with pytest.raises(AssertionError, match="The rules count 1 multiply-accumulates, torch 4608; mend `macs`"):
        check_rule(conv, x)


HEAD = '<ir_version: 8, opset_import: ["": 17]> net (float[1,2,5,6] x) => (float[1,2,5,6] y) '


def test_a_translation_is_judged_by_onnx_runtime() -> None:
    check_onnx(HEAD + "{ y = Relu(x) }")
    del TRANSLATIONS._entries["Relu"]
    with pytest.raises(AssertionError, match=r"No translation for onnx\.Relu, or it declined this form"):
        check_onnx(HEAD + "{ y = Relu(x) }")

    @translates("Relu")
    def wrong(op: Op, emit: Emit) -> Operand:
        """A softmax over channels."""
        return emit("aten.softmax.int", op.out, self=op[0], dim=1)

    with pytest.raises(AssertionError, match=r"Output .* in ONNX Runtime, .* by the translation"):
        check_onnx(HEAD + "{ y = Relu(x) }")


def method(solve) -> None:
    METHODS._entries.pop("mine", None)
    fits("mine", DepthwiseFirst)(solve)


def right(form: DepthwiseFirst, target: Target) -> tuple[Tensor, Tensor]:
    return METHODS["svd"][DepthwiseFirst](form, target)


def unseeded(form: DepthwiseFirst, target: Target) -> tuple[Tensor, Tensor]:
    depthwise, pointwise = right(form, target)
    return depthwise + 0.1 * torch.randn(depthwise.shape, dtype=torch.float64), pointwise


def infinite(form: DepthwiseFirst, target: Target) -> tuple[Tensor, Tensor]:
    depthwise, pointwise = right(form, target)
    return depthwise / depthwise.norm(dim=2, keepdim=True), pointwise


def zero(form: DepthwiseFirst, target: Target) -> tuple[Tensor, Tensor]:
    return tuple(0 * factor for factor in right(form, target))


def ordered(form: DepthwiseFirst, target: Target) -> tuple[Tensor, Tensor]:
    depthwise, pointwise = right(form, target)
    depthwise[0] = 0
    return depthwise, pointwise


METHOD_FAULTS = {
    right: None,
    unseeded: "a second fit gives other factors; seed draws",
    infinite: "gives an error of",
    zero: "an error of 1 is no better than zeros",
    ordered: "channels in another order have an error of",
}


@pytest.mark.parametrize("solve", METHOD_FAULTS, ids=lambda solve: solve.__name__)
def test_a_method_with_a_fault_is_told(solve) -> None:
    method(solve)
    if METHOD_FAULTS[solve] is None:
        check_method("mine")
        return
    with pytest.raises(AssertionError, match=METHOD_FAULTS[solve]):
        check_method("mine", near=1e-3)


def test_a_form_without_an_instance_is_told() -> None:
    with pytest.raises(AssertionError, match=r"svd fits .*pw-dw.* of which `forms` holds no instance; add one"):
        check_method("svd", forms=[DepthwiseFirst(1)])


class Sound(nn.Module):
    """A convolution, and a ReLU."""

    def __init__(self, channels: int, width: int, stride: int, style: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


class Idle(Sound):
    """A unit with a layer that nothing runs."""

    def __init__(self, channels: int, width: int, stride: int, style: object) -> None:
        super().__init__(channels, width, stride, style)
        self.idle = nn.Conv2d(width, width, 1)


def test_a_net_with_a_fault_is_told() -> None:
    with pytest.raises(UnknownNameError, match="Unknown zoo net 'tiny'"):
        check_net("tiny")
    for unit, told in ((Sound, None), (Idle, "no finite gradient reaches .*idle")):
        stages = tuple(StageRecord(unit, width, 2, pool=True) for width in (8, 16))
        record = NetRecord(StemRecord(8), stages, HeadRecord("classifier"), MODULES)
        put(NETS, "tiny", NetForms(small=record, large=record, side=32))
        if told is None:
            check_net("tiny")
        else:
            with pytest.raises(AssertionError, match=told):
                check_net("tiny")
