"""Accuracy against MACs of decomposed CIFAR ResNets, before any training: our methods, baselines and peers, in one run.

    python bench/decompose.py --data cifar10:PATH --weights FOLDER [--nets resnet20,resnet56] [--workers 2]

FOLDER holds resnet20-cifar10.safetensors and resnet56-cifar10.safetensors. Peers are measured where they are installed
(`pip install tensorly tensorly-torch`, `pip install fasterai`). Every job's result is written at once to
bench/results/decompose.json, and what is there is not done again.
"""

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.blocks import Block, parse_block
from convsmith.calibration.calibrate import calibrate, take_images
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.load import load
from convsmith.plan import Request
from convsmith.planning.by_error import Trained, plan_by_error
from convsmith.planning.candidates import consider, try_block
from convsmith.planning.edits import plan_of
from convsmith.rewriting.apply import rewrite
from convsmith.train import reestimate_norms

RESULT = Path(__file__).parent / "results" / "decompose.json"
IMAGES, DRAWS = 512, (0, 1, 2)
SHARES = (0.2, 0.27, 0.35, 0.44, 0.53, 0.6)
# The peer keeps some more than it is asked for; the last gives it ResNet-56 at the MACs that our 0.6 has.
PEER_SHARES = (*SHARES, 0.587)
SHAPE = (3, 32, 32)
# Of these the draws of calibration images count.
CONTENDERS = ("cp als in order", "cp als in order relu", "budget als in order relu")


@dataclass(frozen=True)
class Job:
    """One point of the table: a net, who decomposes it how, the setting (a rank or a share of MACs), and the draw."""

    net: str
    who: str
    how: str
    setting: float
    draw: int = 0

    @property
    def key(self) -> str:
        """Its name in the result file."""
        return f"{self.net} {self.who} {self.how} {self.setting} {self.draw}"


def jobs(net: str) -> Iterator[Job]:
    """All points of one net, the decisive ones first."""
    for share in PEER_SHARES:
        yield Job(net, "tensorly-torch", "cp", share)
    for share in SHARES:
        for how in CONTENDERS:
            yield Job(net, "convsmith", how, share)
    for share in SHARES:
        yield Job(net, "convsmith", "cp als", share)
        yield Job(net, "convsmith", "cp als weights", share)
        yield Job(net, "convsmith", "channel gsvd in order", share)
        yield Job(net, "convsmith", "spatial svd", share)
        yield Job(net, "convsmith", "tucker svd", share)
    for rank in range(1, 7):
        for how in ("svd", "gsvd", "compensated", "als", "als in order", "als in order relu"):
            yield Job(net, "convsmith", f"dw-pw {how}", rank)
    for share in (0.25, 0.5, 0.75):
        yield from (Job(net, "tensorly-torch", how, share) for how in ("tucker", "tt"))
        yield from (Job(net, "fasterai", how, share) for how in ("svd", "tucker"))
    for draw in DRAWS[1:]:
        for share in SHARES:
            for how in CONTENDERS:
                yield Job(net, "convsmith", how, share, draw)


def ours(model: nn.Module, job: Job, pictures: torch.Tensor) -> nn.Module:
    """Decompose by our own methods; `in order` fits each layer behind those replaced before, `relu` for its ReLU."""
    form, method, *rest = job.how.split()
    graph = cs.capture(model, pictures[:1])
    if form == "budget":
        plan = plan_by_error(Trained(model, graph, pictures, method, seed=job.draw), Request("auto", job.setting))
    else:
        sized = partial(_block, form, setting=job.setting)
        probe = parse_block({"dw-pw": "dw-pw:r=1", "tucker": "tucker:1,1"}.get(form, f"{form}:1"))
        candidates, refusals = consider(graph, [probe], forced=True, ranked=False)
        specs = [(c, c.node.conv_spec(), c.node.call.input.shape[2:]) for c in candidates]
        tried = [(c, try_block(sized(spec), spec, tuple(size))) for c, spec, size in specs]
        plan = plan_of(graph, tried, refusals, Request(job.how))
    if "weights" in rest or method == "svd":
        means: dict[str, Any] = {}
    elif "order" in rest or form == "budget":
        means = {"data": pictures, "relu": "relu" in rest}
    else:
        means = {"statistics": calibrate(model, pictures, seed=job.draw)}
    return rewrite(model, plan, method=method, seed=job.draw, **means).model


def _block(form: str, spec: Any, setting: float) -> Block:
    """A form's block for a convolution at a rank (dw-pw) or at a share of its MACs (the others)."""
    c, n, k, s2 = spec.in_channels, spec.out_channels, math.prod(spec.kernel), math.prod(spec.stride)
    allowed = setting * k * c * n
    if form == "dw-pw":
        return parse_block(f"dw-pw:r={min(int(setting), k, n)}")
    if form == "tucker":  # equal shares of both sides: (c + n + k f c n) f with the reduction before the stride
        shares = (f / 1000 for f in range(999, 0, -1))
        f = next(f for f in shares if s2 * f * c * c + k * f * f * c * n + f * n * n <= allowed)
        return parse_block(f"tucker:{max(1, int(f * c))},{max(1, int(f * n))}")
    per_rank = {
        "cp": s2 * c + k + n,
        "channel": k * c + n,
        "spatial": spec.kernel[0] * c * spec.stride[1] + spec.kernel[1] * n,
    }
    return parse_block(f"{form}:{max(1, round(allowed / per_rank[form]))}")


def tensorly_torch(model: nn.Module, job: Job, pictures: torch.Tensor) -> nn.Module:
    """The peer's factorized convolutions, decomposed from the weights, in all 3x3 layers but the first."""
    import tltorch

    new = deepcopy(model)
    for name, conv in _spatial(new):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = tltorch.FactorizedConv.from_conv(
                conv, rank=job.setting, factorization=job.how, implementation="factorized", decompose_weights=True
            )
        new.set_submodule(name, made)
    return new


def fasterai(model: nn.Module, job: Job, pictures: torch.Tensor) -> nn.Module:
    """The peer's decomposer on the same layers; `setting` is what it keeps."""
    from fasterai.misc.conv_decomposer import Conv_Decomposer

    layers = [name for name, _ in _spatial(model)]
    return Conv_Decomposer().decompose(model, method=job.how, percent_removed=1 - job.setting, layers=layers)


def _spatial(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return found[1:]


WHO: dict[str, Callable[[nn.Module, Job, torch.Tensor], nn.Module]] = {
    "convsmith": ours, "tensorly-torch": tensorly_torch, "fasterai": fasterai,
}  # fmt: skip


def measured(job: Job, data_name: str, weights: Path) -> dict[str, Any]:
    """Run one job: MACs and parameters as shares, accuracy before and after norms are estimated anew, seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(job.draw)
    data, (model, macs, params) = _data(data_name), trained_net(job.net, weights)
    pictures = take_images(data, IMAGES, job.draw)[:]
    began = perf_counter()
    new = WHO[job.who](model, job, pictures).eval()
    seconds = perf_counter() - began
    top1 = accuracy(new, data)
    kept = reestimate_norms(new, data, teacher=model, seed=job.draw).kept
    return asdict(job) | {
        "macs": macs_of(new) / macs, "params": sum(p.numel() for p in new.parameters()) / params, "top1": top1,
        "top1_norms": accuracy(new, data) if kept else top1, "norms_kept": kept,
        "seconds": round(seconds, 2),
    }  # fmt: skip


def accuracy(model: nn.Module, data: Any) -> float:
    """Top-1 on the test images; in small batches and channels_last, which CPUs are fastest in."""
    return cs.evaluate(model.to(memory_format=torch.channels_last), data.test, batch_size=64).top1


@lru_cache
def _data(name: str) -> Any:
    return cs.load_data(name)


@lru_cache
def trained_net(name: str, weights: Path) -> tuple[nn.Module, int, int]:
    model = load(name, weights=weights / f"{name}-cifar10.safetensors").model.eval()
    return model, macs_of(model), sum(p.numel() for p in model.parameters())


def macs_of(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *SHAPE))
    return int(counter.get_total_flops()) // 2


def arguments(what: str | None) -> argparse.ArgumentParser:
    """A parser with what every script on these nets is told."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--nets", default="resnet20,resnet56")
    return parser


def main() -> None:
    """Do what the result file lacks, several jobs at once."""
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", help="jobs whose names hold this text")
    parser.add_argument("--workers", type=int, default=2)
    told = parser.parse_args()
    done = json.loads(RESULT.read_text())["points"] if RESULT.exists() else {}
    installed = {"convsmith": "convsmith", "tensorly-torch": "tltorch", "fasterai": "fasterai"}
    todo = [
        job for net in told.nets.split(",") for job in jobs(net)
        if job.key not in done and told.only in job.key and find_spec(installed[job.who])
    ]  # fmt: skip
    if "baseline" not in done:
        data = cs.load_data(told.data)
        done["baseline"] = {n: accuracy(trained_net(n, told.weights)[0], data) for n in told.nets.split(",")}
    with get_context("spawn").Pool(told.workers) as pool:
        results = pool.imap(partial(measured, data_name=told.data, weights=told.weights), todo)
        for job, result in zip(todo, results, strict=True):
            done[job.key] = result
            print(
                f"{job.key}: macs {result['macs']:.3f} top-1 {result['top1']:.4f}, {result['seconds']:.0f} s",
                flush=True,
            )
            write_text(RESULT, json.dumps({"environment": environment(), "images": IMAGES, "points": done}, indent=1))


if __name__ == "__main__":
    main()
