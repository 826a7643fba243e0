"""What a replacement block is: named and told in full by its text, refusing, building and carrying weights."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import MISSING, dataclass, fields, replace
from math import prod
from typing import ClassVar, Self, TypeVar, final

from torch import Tensor, nn

from convsmith.algebra import Factors, FitRequest, Form, fit
from convsmith.algebra.request import WEIGHT_ALONE
from convsmith.blocks.parameters import check, read, usage
from convsmith.errors import ConvsmithError
from convsmith.kernels.spec import Convolution, ConvSpec
from convsmith.registry import Registry


@dataclass(frozen=True)
class Carried:
    """What carrying weights attained: the relative error, and the mean (N,) that the outputs still lack.

    error: None where a block takes over no weights. shift: to be added to every output pixel. There is one only where
    there were statistics and the kernels have no bias to hold it. A BatchNorm that follows can take it off its mean.
    """

    error: float | None
    shift: Tensor | None = None


@dataclass(frozen=True)
class Block(ABC):
    """A sequence of kernels that stands in for a standard convolution; its parameters are its fields.

    Where nothing stands between linear kernels, their product is again a convolution and weights can be carried.
    """

    name: ClassVar[str]
    carries: ClassVar[bool] = True  # whether a trained convolution's weights can be carried into it
    fitted: ClassVar[bool] = True  # whether what a layer sees and answers changes what is carried

    def __post_init__(self) -> None:
        for field in fields(self):
            check(self.name, field, getattr(self, field.name))

    def __str__(self) -> str:
        """The text that `parse_block` reads back: parameters without a default, and those that differ from it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parameters = [
            f"{field.name}={values[field.name]}" for field in fields(self) if values[field.name] != field.default
        ]
        return f"{self.name}:{','.join(parameters)}" if parameters else self.name

    @classmethod
    def read(cls, text: str) -> Self:
        """The block whose parameters `text` gives, in order or by name."""
        values = read(cls.name, fields(cls), text.split(",") if text else [])
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
        if missing:
            raise ConvsmithError(f"{cls.name}: {' and '.join(missing)} missing; {usage(cls.name, fields(cls))}.")
        return cls(**values)

    @final
    def refuses(self, conv: ConvSpec) -> str | None:
        """Why this block cannot replace the convolution, or None where it can."""
        return self.unsuited(conv) or self.misfit(conv)

    @final
    def build(self, conv: ConvSpec) -> nn.Sequential:
        """Make the untrained block, one child per kernel; raises ConvsmithError with the reason where it refuses."""
        if reason := self.refuses(conv):
            raise ConvsmithError(f"{self} cannot replace this convolution: {reason}.")
        return self.sequence(OrderedDict(self.kernels(conv)), conv)

    def on_map(self, conv: ConvSpec, size: tuple[int, ...]) -> "Block":
        """The same block for a convolution that reads maps of `size`: for kinds whose weights depend on it."""
        return self

    def unsuited(self, conv: ConvSpec) -> str | None:
        """Why no block of this sort is for the convolution: all but add-ons are for standard ones only."""
        return pointwise_already(conv) or not_standard(conv)

    def sequence(self, kernels: "OrderedDict[str, nn.Module]", conv: ConvSpec) -> nn.Sequential:
        """What runs the kernels, one after another."""
        return nn.Sequential(kernels)

    def dearer(self, conv: ConvSpec) -> "list[Block]":
        """The same block with more freedom, at more cost, in order; none where the kind has no rank."""
        return []

    @abstractmethod
    def misfit(self, conv: ConvSpec) -> str | None:
        """Why this block's parameters do not fit a standard convolution, or None where they do."""

    @abstractmethod
    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """The kernels in order of execution, each with what follows it; the convolution's bias is on the last."""

    @abstractmethod
    def carry(self, conv: Convolution, block: nn.Sequential, request: FitRequest = WEIGHT_ALONE) -> Carried:
        """Write the trained convolution's weights into the built block.

        request: the method, and the data to fit on where there is any. A block that carries none stays as it was
        built. Raises ConvsmithError on a method that does not fit this block or lacks statistics, and on numbers that
        are not finite.
        """


class Factored(Block):
    """A block whose kernels are the factors of a form."""

    @abstractmethod
    def form(self, conv: ConvSpec) -> Form:
        """The form that the algebra fits."""

    def weights(self, conv: ConvSpec, factors: Factors) -> tuple[Tensor, ...]:
        """The weights of the kernels, in order of execution and as `write` reshapes them; the factors themselves."""
        return factors

    @final
    def carry(self, conv: Convolution, block: nn.Sequential, request: FitRequest = WEIGHT_ALONE) -> Carried:
        """Fit the form and write its factors, and the bias refitted with them where the convolution has one."""
        spec = ConvSpec.of(conv)
        fitted = fit(self.form(spec), taps(conv), request)
        weighted = [kernel for kernel in block.children() if list(kernel.parameters())]
        *first, last = zip(weighted, self.weights(spec, fitted.factors), strict=True)
        for kernel, weight in first:
            write(kernel, weight)
        write(*last, conv.bias if fitted.bias is None or conv.bias is None else fitted.bias)
        return Carried(fitted.error, fitted.bias if conv.bias is None else None)


_AXES = {1: "one axis", 3: "three axes"}
EVEN = 8  # channels that blocked kernels take at a time
BLOCKS = Registry[type[Block]]("block")
B = TypeVar("B", bound=type[Block])


def registered(block: B) -> B:
    """Decorate a block to enter it in BLOCKS under its name."""
    BLOCKS.add(block.name, block)
    return block


def parse_block(text: str) -> Block:
    """Read a block from its name and parameters, in order or by name.

    Args:
        text: As `dw-pw`, `dw-pw:2` or `dw-rpw:g=2,o=0.5`; names are those of BLOCKS.

    Returns:
        The block; its `str` reads back to the same block.

    Raises:
        ConvsmithError: On an unknown block or parameter, and on one missing, repeated, or out of range.

    >>> str(parse_block("dw-pw")), str(parse_block("dw-pw:2")), str(parse_block("dw-rpw:g=2,o=0.5"))
    ('dw-pw', 'dw-pw:r=2', 'dw-rpw:g=2,o=0.5')
    """
    name, _, rest = text.partition(":")
    return BLOCKS[name.strip()].read(rest)


def pointwise_already(conv: ConvSpec) -> str | None:
    """What has no window to take apart."""
    return "a 1x1 kernel is already pointwise" if prod(conv.kernel) == 1 else None


def not_standard(conv: ConvSpec) -> str | None:
    """What has no channels to mix, or does not mix them all."""
    if conv.groups == conv.in_channels > 1:
        return "it is already depthwise"
    if conv.groups > 1:
        return f"it is grouped already (groups={conv.groups})"
    if conv.in_channels < 4:
        return f"it is a stem with {conv.in_channels} input channels, too few to factorize"
    return None


def two_dimensional(conv: ConvSpec) -> str | None:
    """What only exists over rows and columns does not fit a convolution over other axes."""
    return None if conv.axes == 2 else f"it slides along {_AXES[conv.axes]}, and this block is for height and width"


def rank_misfit(rank: int, conv: ConvSpec, channels: int) -> str | None:
    """Why a depth multiplier is of no use: beyond min(K, channels) every weight is represented already."""
    full = min(prod(conv.kernel), channels)
    return f"r={rank} is more than {full}, where the block is exact" if rank > full else None


def ranks_above(rank: int, conv: ConvSpec, channels: int) -> range:
    """The depth multipliers from the next one to that which represents every weight."""
    return range(rank + 1, min(prod(conv.kernel), channels) + 1)


def steps_above(rank: int, conv: ConvSpec, most: int) -> range:
    """The next ranks up to `most`, about an eighth of the smaller channel count apart: enough to choose from.

    Multiples of EVEN where both channel counts are: a rank beside them takes up to twice the time in some runtimes.

    >>> list(steps_above(3, ConvSpec(16, 32), 40)), list(steps_above(3, ConvSpec(12, 12), 7))
    ([8, 16, 24, 32, 40], [4, 5, 6, 7])
    """
    step = max(1, min(conv.in_channels, conv.out_channels) // 8)
    if conv.in_channels % EVEN or conv.out_channels % EVEN:
        return range(rank + step, most + 1, step)
    return range((rank // EVEN + 1) * EVEN, most + 1, -(-step // EVEN) * EVEN)


def convolution(conv: ConvSpec, inputs: int, outputs: int, bias: bool = False, groups: int = 1) -> Convolution:
    """A kernel with the convolution's geometry between other channels."""
    return replace(conv, in_channels=inputs, out_channels=outputs, bias=bias, groups=groups).standard()


def depthwise(conv: ConvSpec, inputs: int, outputs: int, bias: bool = False) -> Convolution:
    """A depthwise kernel with that geometry: C -> r C filters each channel r times, r N -> N sums r."""
    return convolution(conv, inputs, outputs, bias, min(inputs, outputs))


def depthwise_first(conv: ConvSpec, multiplier: int, pointwise: nn.Module) -> dict[str, nn.Module]:
    """The kernels of a block that starts with C -> r C over space and ends with `pointwise`."""
    first = depthwise(conv, conv.in_channels, multiplier * conv.in_channels)
    return {"depthwise": keep_variance(first), "pointwise": pointwise}


def keep_variance(kernel: Convolution) -> Convolution:
    """Start a kernel that is not the last with weights of variance 1 / fan-in.

    It then passes the variance on. The last kernel, at torch's default of 1 / (3 fan-in), leaves the block at the
    output variance of a standard convolution at that default. Both at the default would divide it by 3 once more.
    """
    nn.init.kaiming_uniform_(kernel.weight, nonlinearity="linear")
    return kernel


def taps(conv: Convolution) -> Tensor:
    """The weight as the algebra takes it, (n, c, kh, kw) -> (n, c, k)."""
    return conv.weight.detach().flatten(2)


def write(kernel: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    """Set a kernel's weight, reshaped to its own form, and its bias; strict, so that no value stays untrained."""
    state = {"weight": weight.reshape(kernel.get_parameter("weight").shape)}
    kernel.load_state_dict(state if bias is None else state | {"bias": bias.detach()})
