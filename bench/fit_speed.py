"""Time and memory of fits on a net of ImageNet's size: `python bench/fit_speed.py [svd] [als] [memory]`.

    svd     all sixteen 3x3 convolutions of ResNet-50 into dw-pw:r=1 from their weights, and layer by layer beside
            tensorly-torch's CP at as many multiply-accumulates, where that is installed
    als     the same layers with 512 smooth random images of 224 x 224, in order of execution, in units of the time
            that one forward pass of these images takes; and where that time goes
    memory  peak of processes that calibrate and fit one 3x3 convolution, over that of one which only runs it

Weights are drawn, and normalization is estimated on some of the images. Sections that are not asked for stay as they
are in bench/results/fit_speed.json, from which the table of docs/fits.md is written. `--threads 1` and
`--images 512` by default; `--large-peer` runs CP on 512 channels, once, for minutes. The page tells processor time,
which other processes do not lengthen.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

import convsmith as cs
from convsmith.algebra import DepthwiseFirst, FitRequest, fit
from convsmith.blocks.base import Factored
from convsmith.calibration.calibrate import BATCH, IMAGES, Sampler, calibrate
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.graph.replay import Replay

RESULT = Path(__file__).parent / "results" / "fit_speed.json"
PAGE = Path(__file__).parent.parent / "docs" / "fits.md"
ROUNDS = 9  # readings of what takes less than a second
PEER_ROUNDS = {64: 3, 256: 2}  # readings of the peer by channels
WIDTHS = (512, 1024)  # channels whose memory is measured


def smooth(count: int, channels: int, side: int, seed: int) -> Tensor:
    """Random maps (count, channels, side, side) whose neighbours go together."""
    noise = torch.randn(count, channels, side + 6, side + 6, generator=torch.Generator().manual_seed(seed))
    return 5 * F.avg_pool2d(noise, 7, 1)


def net(images: Tensor) -> nn.Module:
    """ResNet-50 with weights drawn by a seed, normalized on some images so that every map has its usual size."""
    torch.manual_seed(0)
    model = resnet50()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what is seen
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def spatial(model: nn.Module) -> list[nn.Conv2d]:
    """All convolutions of 3 x 3."""
    return [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def readings(run: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Median, least and most seconds of some runs, on the clock and of the processor."""
    walls, works = [], []
    for _ in range(rounds):
        wall, work = perf_counter(), process_time()
        run()
        walls.append(perf_counter() - wall)
        works.append(process_time() - work)
    return told(walls) | {"processor": round(median(works), 4)}


def told(seconds: list[float]) -> dict[str, Any]:
    """Median and spread of readings."""
    values = {"median": median(seconds), "least": min(seconds), "most": max(seconds)}
    return {name: round(value, 4) for name, value in values.items()} | {"readings": len(seconds)}


# --- svd ---


def svd(asked: argparse.Namespace) -> dict[str, Any]:
    """Fits to weights, ours and the peer's in turn, layer by layer."""
    layers = spatial(net(smooth(2, 3, 64, 0)))
    separable = DepthwiseFirst(1)

    def ours(convs: list[nn.Conv2d]) -> None:
        for conv in convs:
            fit(separable, conv.weight.flatten(2), FitRequest("svd"))

    ours(layers)  # warm-up
    found: dict[str, Any] = {"layers": len(layers), "all, convsmith svd": readings(lambda: ours(layers), ROUNDS)}
    if not find_spec("tltorch"):
        return found
    for channels, rounds in (PEER_ROUNDS | ({512: 1} if asked.large_peer else {})).items():
        conv = next(conv for conv in layers if conv.in_channels == channels)
        rank = round(channels * (9 + channels) / (2 * channels + 6))  # as many weights as dw-pw:r=1
        theirs = readings(lambda conv=conv, rank=rank: peer(conv, rank), rounds)
        found[f"{channels} channels"] = {
            "convsmith svd": readings(lambda conv=conv: ours([conv]), ROUNDS),
            "tensorly-torch CP": theirs | {"rank": rank},
        }
        print(channels, found[f"{channels} channels"], flush=True)
    return found | {"tensorly-torch": version("tensorly-torch"), "tensorly": version("tensorly")}


def peer(conv: nn.Conv2d, rank: int) -> nn.Module:
    """The peer's factorized convolution."""
    import tltorch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tltorch.FactorizedConv.from_conv(
            conv, rank=rank, factorization="cp", implementation="factorized", decompose_weights=True
        )


# --- als ---


@dataclass
class Shares:
    """Processor seconds spent in some methods, by what they are for; calls within calls count for the outer one."""

    seconds: dict[str, float] = field(default_factory=dict)
    busy: bool = False

    @contextmanager
    def of(self, owner: type, name: str, what: str) -> Iterator[None]:
        """While this is open, runs of a method are clocked."""
        original = getattr(owner, name)

        def clocked(*args: Any, **kwargs: Any) -> Any:
            if self.busy:
                return original(*args, **kwargs)
            began, self.busy = process_time(), True
            try:
                return original(*args, **kwargs)
            finally:
                self.busy = False
                self.seconds[what] = self.seconds.get(what, 0.0) + process_time() - began

        with patch.object(owner, name, clocked):
            yield


def als(asked: argparse.Namespace) -> dict[str, Any]:
    """One `apply` in order between forward passes of half the images before and half after; a batch is a reading."""
    images = smooth(asked.images, 3, 224, 1)
    model = net(images[:BATCH])
    plan = cs.decompose(cs.capture(model, images[:1]), block="dw-pw")
    batches = torch.split(images, BATCH)

    def forward(parts: Sequence[Tensor]) -> list[dict[str, Any]]:
        with torch.no_grad():
            return [readings(lambda part=part: model(part), 1) for part in parts]

    shares = Shares()
    forward(batches[:1])  # warm-up
    before = forward(batches[: len(batches) // 2])
    with ExitStack() as stack:
        stack.enter_context(shares.of(Replay, "run", "running both nets"))
        stack.enter_context(shares.of(Sampler, "add", "second moments"))
        stack.enter_context(shares.of(Sampler, "statistics", "second moments"))
        stack.enter_context(shares.of(Factored, "carry", "fits"))
        applied = readings(lambda: cs.apply(model, plan, data=images, method="als"), 1)
    passes = [*before, *forward(batches[len(batches) // 2 :])]
    clock, processor = (sum(each[what] for each in passes) for what in ("median", "processor"))
    return {
        "images": len(images), "layers": len(plan.edits), "batch": told([each["median"] for each in passes]),
        "forward pass": round(clock, 2), "forward pass, processor": round(processor, 2),
        "apply": applied["median"], "apply, processor": applied["processor"],
        "forward passes": round(applied["median"] / clock, 2),
        "forward passes, processor": round(applied["processor"] / processor, 2),
        "of these, processor": {what: round(seconds / processor, 2) for what, seconds in shares.seconds.items()},
    }  # fmt: skip


# --- memory ---


def memory(asked: argparse.Namespace) -> dict[str, Any]:
    """Megabytes over a process that only runs the convolution, and those of the Gram matrix alone."""
    found: dict[str, Any] = {}
    for channels in WIDTHS:
        peaks = {what: child(what, channels, asked.threads) for what in ("run", "calibrate", "calibrate and fit")}
        over = {f"to {what}": round(peak - peaks["run"]) for what, peak in peaks.items() if what != "run"}
        found[f"{channels} channels"] = over | {"gram": round(8 * (9 * channels) ** 2 / 2**20)}
        print(channels, found[f"{channels} channels"], flush=True)
    return found


def child(what: str, channels: int, threads: int) -> float:
    """Peak megabytes of a process that does one thing."""
    command = [sys.executable, __file__, "--threads", str(threads), "--child", what, str(channels)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def peak(what: str, channels: int) -> float:
    """Peak megabytes of this process (of Linux) after one thing done to a convolution on maps of 7 x 7."""
    torch.manual_seed(0)
    images = smooth(2 * BATCH, channels, 7, 0)
    model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False)).eval()
    with torch.no_grad():
        for part in torch.split(images, BATCH):
            model(part)
    if what != "run":
        statistics = calibrate(model, images)["0"]
    if what == "calibrate and fit":
        fit(DepthwiseFirst(1), model[0].weight.flatten(2), FitRequest("als", statistics))
    # not `getrusage`, which knows the peak of the parent process too
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**10


SECTIONS = {"svd": svd, "als": als, "memory": memory}


def table(found: dict[str, Any]) -> str:
    """The rows of the documentation's table."""
    plain, fitted = found["svd"], found["als"]
    rows = [("all sixteen by `svd`", f"{plain['all, convsmith svd']['processor']:.2f} s")]
    for channels in (each for each in PEER_ROUNDS if f"{each} channels" in plain):
        pair = plain[f"{channels} channels"]
        ours, theirs = (pair[who]["processor"] for who in ("convsmith svd", "tensorly-torch CP"))
        rows.append((f"one of {channels} channels by `svd`; tensorly-torch CP", f"{ours:.3f} s; {theirs:.1f} s"))
    times = f"{fitted['images']} images by `als` in order, in forward passes of these"
    rows.append((times, f"{fitted['forward passes, processor']:.1f}"))
    rows += [(f"of which {what}", f"{passes:.1f}") for what, passes in fitted["of these, processor"].items()]
    for channels in WIDTHS:
        used = found["memory"][f"{channels} channels"]
        fitting = f"{used['to calibrate']} MB; {used['to calibrate and fit']} MB; {used['gram']} MB"
        rows.append((f"to calibrate {channels} channels; and fit them; G alone", fitting))
    return "".join(f"| {what} | {value} |\n" for what, value in [("", "measured"), ("---", "---:"), *rows])


def write_page(found: dict[str, Any]) -> None:
    """Renew that table, where all sections are there."""
    if SECTIONS.keys() <= found.keys():
        before, _, rest = PAGE.read_text().partition("<!-- fit-speed -->\n")
        write_text(PAGE, f"{before}<!-- fit-speed -->\n{table(found)}{rest[rest.index('<!-- /fit-speed -->') :]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="svd, als, memory; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--large-peer", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.child:
        print(peak(asked.child[0], int(asked.child[1])))
        return
    done = json.loads(RESULT.read_text())["seconds and megabytes"] if RESULT.exists() else {}
    for name in asked.sections or SECTIONS:
        done[name] = SECTIONS[name](asked) | {"threads": asked.threads}
        print(name, json.dumps(done[name], indent=1), flush=True)
        write_text(RESULT, json.dumps({"what": __doc__, "seconds and megabytes": done, **environment()}, indent=1))
    write_page(done)


if __name__ == "__main__":
    main()
