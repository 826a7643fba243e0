"""Second moments of one convolution's input patches against target responses: what factors are fitted to."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# A variance below this share of its second moment is the rounding of float64 sums: the quantity is constant.
_CONSTANT = 1e-12


@dataclass(frozen=True)
class Statistics:
    """Centred second moments of patches x (C K, in the order c, kh, kw of `unfold`) and responses y (N), in float64.

        gram = mean(x x^T),   cross = mean(x y^T),   energy = mean(y^2),   each of x - mean_x and y - mean_y

    y is what the layer should answer, its bias included; x is what the layer will see, perhaps in another net than
    that which gave y. gram: (C K, C K); cross: (C K, N); energy: (N,); mean_x: (C K,); mean_y: (N,);
    samples: rows (output positions) behind the means. A grouped convolution has one record per group.
    """

    gram: Tensor
    cross: Tensor
    energy: Tensor
    mean_x: Tensor
    mean_y: Tensor
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
        # As certain as it gets: no number of samples would change it.
        return cls(eye, rows.T.clone(), rows.square().sum(1), rows.new_zeros(inputs), rows.new_zeros(outputs), 2**62)

    def error(self, weight: Tensor) -> float:
        """Relative error of the responses that a weight (N, C, K) gives, the best bias assumed.

        sqrt(mean |y - W' x|^2 / mean |y|^2),   x and y centred
        """
        rows = weight.double().flatten(1).to(self.gram.device)
        # |y - W x|^2 = y^2 - 2 W cross + W gram W^T; rounding may leave it just below zero.
        missed = self.energy.sum() - 2 * (rows * self.cross.T).sum() + (rows @ self.gram * rows).sum()
        return (missed / self.energy.sum()).clamp(min=0).sqrt().item() if missed > 0 else 0.0

    def bias(self, weight: Tensor) -> Tensor:
        """The bias (N,) with which a weight (N, C, K) answers the right mean: mean_y - W mean_x."""
        return self.mean_y - weight.double().flatten(1).to(self.mean_x.device) @ self.mean_x


@dataclass(frozen=True)
class Rows:
    """Sampled patches (S, C K) and the responses wanted there (S, N), for what second moments cannot tell.

    scale, shift: (N,), the BatchNorm between the response and its ReLU as an affine map; none where there is none.
    """

    patches: Tensor
    responses: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


class Moments:
    """Running sums of patches and responses, in float64.

    They are sums of rows and nothing else: `sums` of several processes may be added up in place by an all-reduce.

    >>> moments = Moments(inputs=2, outputs=1)
    >>> moments.add(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.tensor([[1.0], [5.0]]))
    >>> moments.statistics().cross.tolist()
    [[2.0], [4.0]]
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.count, self.x, self.y = zeros(1), zeros(inputs), zeros(outputs)
        self.xx, self.xy, self.yy = zeros(inputs, inputs), zeros(inputs, outputs), zeros(outputs)

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """The tensors that hold everything, each additive over rows."""
        return self.count, self.x, self.y, self.xx, self.xy, self.yy

    def add(self, patches: Tensor, responses: Tensor) -> None:
        """Add rows of patches (S, C K) and responses (S, N), of any float type and device."""
        x, y = (rows.detach().to(self.x) for rows in (patches, responses))
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx.addmm_(x.T, x)
        self.xy.addmm_(x.T, y)
        self.yy += y.square().sum(0)

    def merge(self, other: "Moments") -> None:
        """Add the rows that another accumulator has seen."""
        for mine, theirs in zip(self.sums, other.sums, strict=True):
            mine += theirs.to(mine)

    def statistics(self) -> Statistics:
        """The centred moments; raises ValueError before any row."""
        samples = int(self.count.item())
        if not samples:
            raise ValueError("no rows have been added")
        x, y = self.x / samples, self.y / samples
        alive_x, alive_y = _varying(self.xx.diagonal(), x, samples), _varying(self.yy, y, samples)
        # In place: of 512 channels a gram has 170 MB.
        gram = (self.xx / samples).addr_(x, x, alpha=-1).mul_(alive_x).mul_(alive_x[:, None])
        cross = (self.xy / samples).addr_(x, y, alpha=-1).mul_(alive_y).mul_(alive_x[:, None])
        return Statistics(gram, cross, (self.yy / samples - y.square()) * alive_y, x, y, samples)


def _varying(squares: Tensor, mean: Tensor, samples: int) -> Tensor:
    """1 where a quantity varies, 0 where it is constant up to the rounding of its sums."""
    second = squares / samples
    return (second - mean.square() > _CONSTANT * second).double()
