"""Copies of units set so that they change nothing at first: zeros, identity kernels, and norms set to the identity."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convsmith.calibration.calibrate import BATCH
from convsmith.calibration.pictures import Pictures
from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.plan import Remove, Repeat
from convsmith.structure.starts import Setting, identity_start

Spread = tuple[Tensor, Tensor]  # mean and variance of each channel


@dataclass(frozen=True, eq=False)
class Start:
    """What to set in a copy of a unit; `spread` is that of the unit's answers on images, None without images."""

    settings: tuple[Setting, ...]
    spread: Spread | None = None

    @torch.no_grad()
    def set(self, modules: Mapping[str, nn.Module]) -> None:
        """Set a copy: its modules by the paths of the originals."""
        for setting in self.settings:
            path = next(path for path in modules if _within(setting.path, path))
            _SET[setting.how](modules[path], setting.path.removeprefix(path).removeprefix("."), self.spread)


def _within(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(f"{ancestor}.")


def check_start(graph: Graph, edit: Repeat) -> tuple[Setting, ...]:
    """What the copies of an edit set, nothing for plain copies. Raises PlanError where no identity start can be."""
    if edit.start == "copy":
        return ()
    settings = identity_start(graph, edit.unit)
    if isinstance(settings, str):
        raise PlanError(
            f"{edit.name} cannot start as an identity: {settings}; take that edit out, or start it as copy."
        )
    return settings


def starts_of(
    model: nn.Module, graph: Graph, edits: Iterable[Repeat | Remove], images: Pictures | None
) -> dict[str, Start]:
    """By name of an edit, what its copies set; norms are set by what the unit answers to `images`, where there are any.

    graph: of the model, before any unit is moved. Raises PlanError as `check_start`.
    """
    settings = {edit: check_start(graph, edit) for edit in edits if isinstance(edit, Repeat)}
    last = {edit: edit.unit[-1] for edit, found in settings.items() if any(s.how == "identity norm" for s in found)}
    spreads = _spreads(model, set(last.values()), images) if last and images is not None else {}
    return {edit.name: Start(found, spreads.get(last.get(edit, ""))) for edit, found in settings.items()}


def _spreads(model: nn.Module, paths: Iterable[str], images: Pictures) -> dict[str, Spread]:
    """By module, the mean and variance of each channel (n, c, ..) that it answers to images."""
    sums: dict[str, list[Tensor]] = {}
    handles = [model.get_submodule(path).register_forward_hook(_adding(sums.setdefault(path, []))) for path in paths]
    modes = [(module, module.training) for module in model.modules()]
    like = next(model.parameters())
    try:
        model.eval()
        with torch.no_grad():
            for first in range(0, len(images), BATCH):
                model(images[first : first + BATCH].to(like, copy=True))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return {path: _spread(torch.stack(parts).sum(0)) for path, parts in sums.items()}


def _adding(parts: list[Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    """A hook that keeps count, sum and sum of squares of each channel."""

    def add(module: nn.Module, args: object, out: Tensor) -> None:
        values = out.double().transpose(0, 1).flatten(1)  # (n, c, ..) -> (c, n ..)
        count = torch.full_like(values[:, 0], values.shape[1])
        parts.append(torch.stack([count, values.sum(1), values.square().sum(1)]))

    return add


def _spread(sums: Tensor) -> Spread:
    count, total, squares = sums
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0.0)


def _zero(module: nn.Module, name: str, spread: Spread | None) -> None:
    module.get_parameter(name).zero_()


def _identity_kernel(module: nn.Module, name: str, spread: Spread | None) -> None:
    weight = module.get_parameter(name)  # (o, i, kh, kw), i of one group
    height, width = (side // 2 for side in weight.shape[2:])
    outs = torch.arange(weight.shape[0])
    weight.zero_()
    weight[outs, outs % weight.shape[1], height, width] = 1.0


def _identity_norm(module: nn.Module, name: str, spread: Spread | None) -> None:
    """The norm (x - m) / sqrt(v + eps) w + b is x where w = sqrt(v + eps) and b = m.

    With m and v of what it reads it stays about so in training, where a batch's own take their place.
    """
    norm = module.get_submodule(name)
    mean, var = (norm.get_buffer(f"running_{each}") for each in ("mean", "var"))
    eps = float(norm.eps)  # type: ignore[arg-type]
    learned = dict(norm.named_parameters(recurse=False))
    if spread is None or learned.keys() != {"weight", "bias"}:
        mean.zero_()
        var.fill_(1.0 - eps)
        for each, value in (("weight", 1.0), ("bias", 0.0)):
            if each in learned:
                learned[each].fill_(value)
        return
    mean.copy_(spread[0])
    var.copy_(spread[1])
    learned["weight"].copy_((spread[1] + eps).sqrt())
    learned["bias"].copy_(spread[0])


_SET: dict[str, Callable[[nn.Module, str, Spread | None], None]] = {
    "zero": _zero, "identity kernel": _identity_kernel, "identity norm": _identity_norm,
}  # fmt: skip
