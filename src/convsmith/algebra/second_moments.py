"""Second moments of one convolution's input patches against target responses: what factors are fitted to."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

# A variance below this share of its second moment is the rounding of float64 sums: the quantity is constant.
_CONSTANT = 1e-12
# A weight whose responses differ from those measured by less, relatively, may be that which gave them.
_SAME = 0.05
# Rows of one product: rounded to their own type, as so few can be, and added up in float64.
ROWS = 1024
# Columns of one product: of a matrix that is symmetric, little above the diagonal is worked out.
BLOCK = 512


@dataclass(frozen=True)
class Statistics:
    """Centred second moments of patches x (C K, in the order c, kh, kw of `unfold`) and responses y (N), in float64.

        gram = mean(x x^T),   cross = mean(x y^T),   energy = mean(y^2),   each of x - mean_x and y - mean_y

    y is what the layer should answer, its bias included. x is what it will see, perhaps in another net than gave y.
    Shapes are gram (C K, C K), cross (C K, N), energy and mean_y (N,), mean_x and size_x = mean(|x|) (C K,). `samples`
    counts rows (output positions) behind the means. A grouped convolution has one record per group.
    """

    gram: Tensor
    cross: Tensor
    energy: Tensor
    mean_x: Tensor
    mean_y: Tensor
    size_x: Tensor
    samples: int

    @classmethod
    def of_weight(cls, weight: Tensor) -> Self:
        """Those of white inputs of variance 1, on which a weight (N, C, K) is fitted as if without data.

        >>> Statistics.of_weight(torch.ones(2, 3, 4)).cross.shape
        torch.Size([12, 2])
        """
        rows = weight.detach().double().flatten(1)
        outputs, inputs = rows.shape
        eye = torch.eye(inputs, dtype=torch.float64, device=rows.device)
        mean_x, mean_y, size_x = rows.new_zeros(inputs), rows.new_zeros(outputs), rows.new_ones(inputs)
        # As certain as it gets: no number of samples would change it.
        return cls(eye, rows.T.clone(), rows.square().sum(1), mean_x, mean_y, size_x, 2**62)

    def error(self, weight: Tensor, through: Tensor | None = None, bias: Tensor | None = None) -> float:
        """Relative error of the responses that a weight (N, C, K) gives with a bias (N,), by default the best.

        sqrt(mean |y - W' x - b'|^2 / mean |y|^2),   x and y centred

        through: W' gram (N, C K) where it is known.
        """
        rows = weight.double().flatten(1).to(self.gram.device)
        through = rows @ self.gram if through is None else through
        missed = self._missed(rows, through)
        if bias is not None:
            missed = missed + (bias.to(self.mean_y) - self.bias(weight)).square().sum()
        return (missed / self.energy.sum()).clamp(min=0).sqrt().item() if missed > 0 else 0.0

    def uncentred(self) -> Self:
        """Those about zero, on copies: what a weight is fitted to, and its error told by, where no bias is to be had.

        gram = mean(x x^T),   cross = mean(x y^T),   energy = mean(y^2),   and both means 0
        """
        x, y = self.mean_x, self.mean_y
        return replace(
            self, gram=self.gram.addr(x, x), cross=self.cross.addr(x, y), energy=self.energy + y.square(),
            mean_x=torch.zeros_like(x), mean_y=torch.zeros_like(y),
        )  # fmt: skip

    def joined(self, other: Self) -> Self:
        """Those of both sets of rows together."""
        samples = self.samples + other.samples
        ours, theirs = self.samples / samples, other.samples / samples
        x, y = self.mean_x - other.mean_x, self.mean_y - other.mean_y  # between the sets: own theirs x x^T
        both = ours * theirs
        return replace(
            self, gram=(ours * self.gram).add_(other.gram, alpha=theirs).addr_(x, x, alpha=both),
            cross=(ours * self.cross).add_(other.cross, alpha=theirs).addr_(x, y, alpha=both),
            energy=ours * self.energy + theirs * other.energy + both * y.square(),
            mean_x=ours * self.mean_x + theirs * other.mean_x, mean_y=ours * self.mean_y + theirs * other.mean_y,
            size_x=ours * self.size_x + theirs * other.size_x, samples=samples,
        )  # fmt: skip

    def answers(self, weight: Tensor) -> bool:
        """Whether these responses are what a weight (N, C, K) answers, rounding in half precision aside."""
        rows = weight.detach().double().flatten(1).to(self.gram.device)
        through = rows @ self.gram
        made = self.energy.sum() + self.mean_y.square().sum() + (through * rows).sum()
        return not self._missed(rows, through) > _SAME**2 * made  # what is not finite is another mistake

    def _missed(self, rows: Tensor, through: Tensor) -> Tensor:
        """|y - W x|^2 = y^2 - 2 W cross + W gram W^T; rounding may leave it just below zero."""
        return self.energy.sum() - 2 * (rows * self.cross.T).sum() + (through * rows).sum()

    @property
    def active(self) -> Tensor:
        """Of how many rows each x (C K,) is nonzero, if it has one size there: (sum |x|)^2 / sum x^2 (Kish, 1965)."""
        second = self.gram.diagonal() + self.mean_x.square()
        return torch.where(second > 0, self.samples * self.size_x.square() / second, 0.0)

    def bias(self, weight: Tensor) -> Tensor:
        """The bias (N,) with which a weight (N, C, K) answers the right mean: mean_y - W mean_x."""
        return self.mean_y - weight.double().flatten(1).to(self.mean_x.device) @ self.mean_x


@dataclass(frozen=True)
class Rows:
    """Sampled patches (S, C K) and the responses wanted there (S, N), for what second moments cannot tell.

    scale, shift: (N,), the BatchNorm between the response and its ReLU as an affine map; none where there is none.
    offset: (S, N), the shortcut that is added behind that; none where there is none.
    """

    patches: Tensor
    responses: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    offset: Tensor | None = None


class Moments:
    """Running sums of patches and responses, in float64.

    They are sums of rows and nothing else: `sums` of several processes may be added up in place by an all-reduce.
    Memory is that of the sums, 8 (C K)^2 bytes, and of some chunks besides, however many rows are added.

    >>> moments = Moments(inputs=2, outputs=1)
    >>> moments.add(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.tensor([[1.0], [5.0]]))
    >>> moments.statistics().cross.tolist()
    [[2.0], [4.0]]
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu") -> None:
        self._sizes, self._device = (inputs, outputs), device
        self._sums: tuple[Tensor, ...] | None = None

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """The tensors that hold everything, each additive over rows: the number of rows, x, y, |x|, x x^T, x y^T, y^2.

        Of x x^T only the lower triangle counts.
        """
        if self._sums is None:
            inputs, outputs = self._sizes
            shapes = ((1,), (inputs,), (outputs,), (inputs,), (inputs, inputs), (inputs, outputs), (outputs,))
            self._sums = tuple(torch.zeros(shape, dtype=torch.float64, device=self._device) for shape in shapes)
        return self._sums

    def add(self, patches: Tensor, responses: Tensor) -> None:
        """Add rows of patches (S, C K) and responses (S, N), of any float type and device."""
        for x, y in zip(*(torch.split(rows.detach(), ROWS) for rows in (patches, responses)), strict=True):
            self._add(x.to(self._device), y.to(self._device))

    def _add(self, x: Tensor, y: Tensor) -> None:
        """Add few rows by products of what is left without their mean, which lose nothing by cancellation."""
        count, sum_x, sum_y, size_x, xx, xy, yy = self.sums
        dtype = _product_type(x, y)
        size_x += x.to(dtype).abs().sum(0)
        mean_x, mean_y = (rows.mean(0, dtype=torch.float64) for rows in (x, y))
        x, y = x.to(dtype) - mean_x.to(dtype), y.to(dtype) - mean_y.to(dtype)
        for strip, stop in _strips(x.shape[1]):
            xx[strip, :stop] += x[:, strip].T @ x[:, :stop]
            xx[strip, :stop].addr_(mean_x[strip], mean_x[:stop], alpha=len(x))
        xy += x.T @ y
        xy.addr_(mean_x, mean_y, alpha=len(x))
        yy += y.double().square().sum(0) + len(x) * mean_y.square()
        for total, more in ((count, 1), (sum_x, mean_x), (sum_y, mean_y)):
            total += len(x) * more

    def statistics(self) -> Statistics:
        """The centred moments, in the memory of the sums, which start anew; raises ValueError before any row."""
        count, x, y, size_x, gram, cross, energy = self.sums
        samples = int(count.item())
        if not samples:
            raise ValueError("no rows have been added")
        self._sums = None
        for total in (x, y, size_x, cross, energy):
            total /= samples
        alive_x, alive_y = _varying(gram.diagonal() / samples, x), _varying(energy, y)
        for strip, stop in _strips(len(x)):
            rows = gram[strip, :stop].div_(samples).addr_(x[strip], x[:stop], alpha=-1)
            rows.mul_(alive_x[:stop]).mul_(alive_x[strip, None])
            square = rows[:, strip]
            square.copy_((square + square.T) / 2)
            gram[: strip.start, strip] = rows[:, : strip.start].T
        cross.addr_(x, y, alpha=-1).mul_(alive_y).mul_(alive_x[:, None])
        return Statistics(gram, cross, (energy - y.square()) * alive_y, x, y, size_x, samples)


def _product_type(x: Tensor, y: Tensor) -> torch.dtype:
    """Float32 is enough for products of float32 and below, if it is that: elsewhere it may stand for TF32 or less."""
    exact = x.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32 if exact else torch.float64)


def _strips(size: int) -> Iterator[tuple[slice, int]]:
    """Strips of a matrix's rows, each with the column at which what is above the diagonal begins."""
    for first in range(0, size, BLOCK):
        stop = min(first + BLOCK, size)
        yield slice(first, stop), stop


def _varying(second: Tensor, mean: Tensor) -> Tensor:
    """1 where a quantity varies, 0 where it is constant up to the rounding of its sums."""
    return (second - mean.square() > _CONSTANT * second).double()
