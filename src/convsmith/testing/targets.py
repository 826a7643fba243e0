"""The judge of a target: what a model answers there is what the module answers."""

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from convsmith.latency.packing import pack
from convsmith.latency.targets import RUNTIMES, set_threads, started
from convsmith.testing.oracles import hold


def check_target(name: str, *, tolerance: float = 1e-3) -> None:
    """Judge an entry of RUNTIMES: nets run there on one image and on several, and answer what their modules answer.

    Args:
        name: Of the entry.
        tolerance: The largest error, relative to the output's largest value; runtimes of few bits need more.

    Raises:
        AssertionError: That says what was answered.

    >>> check_target("onnxruntime")
    """
    torch.manual_seed(0)
    nets = {"plain": _net(1), "depthwise": _net(8)}
    for batch in (1, 3):
        images = torch.rand(batch, 3, 12, 12)
        with pack(nets, RUNTIMES[name], [images]) as packed, torch.inference_mode(), set_threads(1):
            for net, subject in packed.items():
                answers = [torch.as_tensor(np.asarray(leave)) for leave in tree_leaves(started(
                    subject, RUNTIMES[name], [images], 1, converted=True)())]  # fmt: skip
                want = nets[net](images)
                shapes = [tuple(answer.shape) for answer in answers]
                hold(shapes == [tuple(want.shape)], f"{name} answers {shapes}, not one tensor of {tuple(want.shape)}.")
                error = ((answers[0] - want).abs().max() / want.abs().max()).item()
                hold(error <= tolerance, f"{name}: the {net} net is off by {error:.2g} of its largest value.")


def _net(groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, groups=groups), nn.ReLU(),
        nn.Conv2d(16, 8, 1),
    ).eval()  # fmt: skip
