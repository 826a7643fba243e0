"""A block written kernel by kernel: what the search finds, named by its kernels and rebuilt from the name."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Self, final

from torch import nn

from convsmith.algebra import Chain, Form, Link
from convsmith.blocks.base import Factored, not_standard, pointwise_already, registered, two_dimensional
from convsmith.blocks.kinds import Kernel, channels, parts, read_kernel, uncovered
from convsmith.errors import ConvsmithError
from convsmith.kernels.spec import ConvSpec

LONGEST = 4
_BETWEEN = re.compile(r",(?![^()]*\))")


@registered
@final
@dataclass(frozen=True)
class KernelSequence(Factored):
    """Linear kernels one after another, at most four.

    The convolution's stride, padding and dilation are those of its spatial kernels. The number of channels changes at
    the last kernel that mixes them where it grows, at the first where it shrinks. Where none is spatial, they replace a
    1x1 convolution, and the first that mixes strides.

    >>> from convsmith.blocks import parse_block
    >>> block = parse_block("seq:gpw(2),shuffle(2),dw,gpw(2)")
    >>> str(block), block.build(ConvSpec(8, 16)).gpw3
    ('seq:gpw(g=2),shuffle(g=2),dw,gpw(g=2)', Conv2d(8, 16, kernel_size=(1, 1), stride=(1, 1), groups=2, bias=False))
    """

    name: ClassVar[str] = "seq"
    of: tuple[Kernel, ...] = field()

    def __post_init__(self) -> None:
        if not 1 <= len(self.of) <= LONGEST:
            raise ConvsmithError(f"seq: give 1 to {LONGEST} kernels, as seq:dw,pw; got {len(self.of)}.")

    def __str__(self) -> str:
        return f"{self.name}:{','.join(map(str, self.of))}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Kernels between commas, as `dw,rpw(g=4,o=0.5),rpw(g=4,o=0.5)`."""
        return cls(tuple(map(read_kernel, _BETWEEN.split(text))) if text else ())

    def unsuited(self, conv: ConvSpec) -> str | None:
        """Any but a standard convolution of images; a 1x1 one where a kernel needs a window, or it pads or strides
        unevenly.
        """
        if reason := two_dimensional(conv):
            return reason
        if pointwise_already(conv) and any(kernel.spatial for kernel in self.of):
            return pointwise_already(conv)
        if pointwise_already(conv) and (any(conv.padding) or conv.stride[0] != conv.stride[1]):
            return "a 1x1 kernel that pads or has two strides is not taken apart"
        return not_standard(conv)

    def misfit(self, conv: ConvSpec) -> str | None:
        """Windows that do not add up, groups that divide no channels, and what holds neither width nor bias."""
        if not any(kernel.mixes for kernel in self.of):
            return "none of its kernels mixes channels"
        if self.of[-1].kind == "shuffle":
            return "a shuffle at its end mixes nothing"
        for kernel, (inputs, outputs) in zip(self.of, channels(self.of, conv), strict=True):
            if kernel.undivided(inputs, outputs):
                return f"{kernel} does not divide {inputs} input and {outputs} output channels"
        return uncovered(self.of, conv)

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """Named by kind and place; the bias is on the last."""
        widths, geometry = channels(self.of, conv), parts(self.of, conv)
        built: dict[str, nn.Module] = {}
        for place, (kernel, part, (inputs, outputs)) in enumerate(zip(self.of, geometry, widths, strict=True)):
            last = place == len(self.of) - 1
            module = kernel.build(part, inputs, outputs, conv.bias and last)
            if not last:  # passes the variance on, as in `keep_variance`
                for weight in module.parameters():
                    nn.init.kaiming_uniform_(weight, nonlinearity="linear")
            built[f"{kernel.kind}{place}"] = module
        return built

    def form(self, conv: ConvSpec) -> Form:
        """The product of all kernels; a shuffle has no weight."""
        links = [
            Link(kernel.reads(*widths), kernel.window(conv), kernel.kind != "shuffle")
            for kernel, widths in zip(self.of, channels(self.of, conv), strict=True)
        ]
        return Chain(conv.in_channels, tuple(links))
