"""The last factor refitted for what stands behind it: a ReLU, which forgives whatever is below zero."""

import torch
from torch import Tensor

from convsmith.algebra.forms import Factors, Form
from convsmith.algebra.linear import factorize
from convsmith.algebra.second_moments import Rows

# How strongly the auxiliary variable is held to the responses, and for how many steps.
SCHEDULE = (0.1,) * 30 + (1.0,) * 20
# Of the mean variance, against few rows: each step solves for a change, so that this slows it and biases nothing.
_RIDGE = 1e-4


def relu_refit(form: Form, factors: Factors, bias: Tensor, rows: Rows) -> tuple[Factors, Tensor]:
    """The last factor P and bias b that lower mean |relu(Y) - relu(Z P^T + b)|^2 over rows; per output, or as it was.

        M = argmin |relu(Y) - relu(M)|^2 + t |M - Z P^T - b|^2,   P, b = argmin |M - Z P^T - b|^2,   t = .1, then 1

    Z: what the factors before the last answer. A BatchNorm of `rows` stands between the responses and the ReLU. Where a
    shortcut is added before that, both Y and what is made have that of `rows` added. The auxiliary variable M is that
    of Zhang et al. (2015), as in channel decomposition. Steps are taken in the rows' own precision, in float32 of half:
    of many channels, each multiplies out all rows twice.
    """
    *before, last = factors
    dtype = torch.promote_types(rows.patches.dtype, torch.float32)
    patches, wanted = (tensor.to(last.device, dtype) for tensor in (rows.patches, rows.responses))
    scale = (torch.ones_like(bias) if rows.scale is None else rows.scale).to(patches)
    shift = (torch.zeros_like(bias) if rows.shift is None else rows.shift).to(patches).expand_as(wanted)
    if rows.offset is not None:
        shift = shift + rows.offset.to(patches)
    mix, bias = last.flatten(1).clone(), bias.clone()
    for outputs, free, features in form.parts(factors):
        seen = patches @ features.T.to(dtype)  # Z (s, m)
        made = seen @ mix[outputs][:, free].T.to(dtype) + bias[outputs].to(dtype)
        change, lift = _refit(seen, made, wanted[:, outputs], scale[outputs], shift[:, outputs])
        mix[outputs[:, None], free] += change
        bias[outputs] += lift
    return (*before, mix.view_as(last)), bias


def relu_error(weight: Tensor, bias: Tensor, rows: Rows) -> float:
    """The sum of |relu(Y) - relu(W x + b)|^2 over rows, BatchNorm and shortcut included, of a weight (N, C, K)."""
    made = rows.patches.double() @ weight.double().flatten(1).T + bias.double()
    behind = []
    for responses in (rows.responses.double(), made):
        scaled = responses if rows.scale is None else responses * rows.scale.double()
        shifted = scaled if rows.shift is None else scaled + rows.shift.double()
        behind.append((shifted if rows.offset is None else shifted + rows.offset.double()).relu())
    return (behind[1] - behind[0]).square().sum().item()


def _refit(seen: Tensor, made: Tensor, wanted: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The change of P (n, m) and of b (n) for responses `made` (s, n), none where it does not lower the error.

    shift: (s, n), what the BatchNorm and the shortcut add to `scale` times the response.
    """
    target, start = (scale * wanted + shift).relu(), scale * made + shift
    mean = seen.mean(0)
    centred = seen - mean
    gram = centred.T @ centred
    root = factorize(gram + _RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram))
    change, lift, here = torch.zeros_like(mean)[:, None] * scale, torch.zeros_like(scale), start  # (m, n) and (n)
    for weight in SCHEDULE:
        missed = _auxiliary(target, here, weight) - here
        step = torch.cholesky_solve(centred.T @ missed, root)
        change, lift = change + step, lift + missed.mean(0)
        here = here + centred @ step + missed.mean(0)
    better = ((here.relu() - target).square().sum(0) < (start.relu() - target).square().sum(0)) & (scale != 0)
    change, lift = change / torch.where(better, scale, torch.inf), lift / torch.where(better, scale, torch.inf)
    return change.T, lift - mean @ change


def _auxiliary(target: Tensor, here: Tensor, weight: float) -> Tensor:
    """Per entry the M that minimizes (target - relu(M))^2 + weight (M - here)^2: the better of its two branches."""
    below = here.clamp(max=0)
    above = ((target + weight * here) / (1 + weight)).clamp(min=0)
    loss_below = target.square() + weight * (below - here).square()
    loss_above = (target - above).square() + weight * (above - here).square()
    return torch.where(loss_above < loss_below, above, below)
