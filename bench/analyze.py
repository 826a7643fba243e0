"""What analysis takes, ours and the peers', net by net in one run: `python bench/analyze.py [--rounds 3] [--nets A,B]`.

Every measurement runs in a process forked after all imports, so that its first call is cold and nothing it warms up
serves another tool; tools take turns. Ours is capture and both conventions of the score: MACs, parameters, 3DRF and
exact reach. Beside it: capture alone, torch.export alone (the other front end there might be), and the peers that are
installed: fvcore, ptflops, torchinfo, calflops, rfa_toolbox. Writes bench/results/analyze.json, where nets that are not
asked for stay; `--page` writes the table of docs/metric.md.
"""

import argparse
import collections
import collections.abc
import contextlib
import io
import json
import os
import pickle
import resource
import statistics
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "analyze.json"
PAGE = Path(__file__).parents[1] / "docs" / "metric.md"
NETS = (
    "resnet50", "vgg16_bn", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "densenet121", "timm:hrnet_w18",
    "inception_v3",
)  # fmt: skip
GOLDEN = {"resnet50": 427, "mobilenet_v2": 491, "vgg16_bn": 212, "densenet121": 2071, "inception_v3": 1311}

Tool = Callable[[nn.Module, Tensor], int]


def convsmith(model: nn.Module, x: Tensor) -> int:
    graph = cs.capture(model, x)
    cs.score(graph, convention="exact")
    return cs.score(graph).macs


def capture_alone(model: nn.Module, x: Tensor) -> int:
    return cs.capture(model, x).macs


def torch_export(model: nn.Module, x: Tensor) -> int:
    torch.export.export(model, (x,), strict=False)
    return 0


def fvcore(model: nn.Module, x: Tensor) -> int:
    from fvcore.nn import FlopCountAnalysis

    counted = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return int(counted.total())


def ptflops(model: nn.Module, x: Tensor) -> int:
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        model, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, backend="pytorch"
    )
    return int(macs)


def torchinfo(model: nn.Module, x: Tensor) -> int:
    from torchinfo import summary

    return int(summary(model, input_data=x, verbose=0).total_mult_adds)


def calflops(model: nn.Module, x: Tensor) -> int:
    from calflops import calculate_flops

    _, macs, _ = calculate_flops(model, input_shape=tuple(x.shape), output_as_string=False, print_results=False)
    return int(macs)


def rfa_toolbox(model: nn.Module, x: Tensor) -> int:
    from rfa_toolbox import create_graph_from_pytorch_model, input_resolution_range

    input_resolution_range(create_graph_from_pytorch_model(model, input_res=tuple(x.shape)), cardinality=1)
    return 0


TOOLS: dict[str, tuple[Tool, str | None]] = {
    "convsmith": (convsmith, None), "convsmith, capture alone": (capture_alone, None),
    "torch.export alone": (torch_export, None), "fvcore": (fvcore, "fvcore"), "ptflops": (ptflops, "ptflops"),
    "torchinfo": (torchinfo, "torchinfo"), "calflops": (calflops, "calflops"),
    "rfa_toolbox": (rfa_toolbox, "rfa_toolbox"),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A net with random weights in evaluation mode, and one image."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        model = timm.create_model(name.removeprefix("timm:"))
    else:
        model = torchvision.models.get_model(name, **({"init_weights": False} if name.startswith("incep") else {}))
    side = 299 if name.startswith("incep") else 224
    return model.eval(), torch.zeros(1, 3, side, side)


def apart(work: Callable[[], Any]) -> Any:
    """The answer of `work`, from a process forked for it; an error comes back as its text."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe, contextlib.redirect_stdout(io.StringIO()):
            try:
                answer = work()
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"[:200]
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(data) if data else "died"


def measured(name: str, tool: Tool) -> dict[str, Any]:
    """Wall and processor seconds of the first call and of the second, the MACs told, and the memory's peak."""
    model, x = built(name)
    calls = []
    for _ in range(2):
        wall, cpu = perf_counter(), process_time()
        macs = tool(model, x)
        calls.append((perf_counter() - wall, process_time() - cpu))
    return {
        "cold_s": calls[0][0], "cold_cpu_s": calls[0][1], "warm_s": calls[1][0], "warm_cpu_s": calls[1][1],
        "macs": macs, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def facts(name: str) -> dict[str, Any]:
    """What is exact: torch's own MACs against ours, and the free window of the widest map before the head."""
    model, x = built(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    graph = cs.capture(model, x)
    maps = [node for node in graph.nodes if len(node.call.out) == 4 and min(node.call.out[2:]) > 1]
    reaches = graph.reaches()
    window = max(reaches[node.name].extent().window_free for node in maps if node.name in reaches)
    return {
        "macs": graph.macs, "torch_macs": counter.get_total_flops() // 2, "params": graph.params, "window": window,
        "golden": GOLDEN.get(name), "unknown_ops": graph.unknown_ops,
    }  # fmt: skip


def scale() -> dict[str, Any]:
    """Memory for a large input and a model without weights, and growth with depth."""

    def large() -> dict[str, Any]:
        with torch.device("meta"):
            model, x = torchvision.models.resnet50(), torch.zeros(1, 3, 4096, 4096)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = perf_counter()
        cs.score(cs.capture(model, x), convention="exact")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"seconds": perf_counter() - began, "peak_mb": peak, "imports_mb": before}

    def deep(blocks: int) -> dict[str, Any]:
        with torch.device("meta"):
            model = cs.build("resnet20", input=(3, 32, 32), blocks_per_stage=(blocks,) * 3)
            x = torch.zeros(1, 3, 32, 32)
        began = process_time()
        cs.score(cs.capture(model, x))
        return {"layers": 6 * blocks + 2, "cpu_seconds": process_time() - began}

    return {
        "resnet50 at 4096x4096 on the meta device": apart(large),
        "depth": [apart(lambda blocks=blocks: deep(blocks)) for blocks in (18, 50, 100, 200)],
    }


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and spread of every figure over the rounds."""
    if bad := [each for each in rounds if isinstance(each, str)]:
        return {"failed": bad[0]}
    told: dict[str, Any] = {"macs": rounds[0]["macs"]}
    for key in rounds[0].keys() - {"macs"}:
        values = sorted(each[key] for each in rounds)
        told[key] = {"median": statistics.median(values), "min": values[0], "max": values[-1]}
    return told


def ratios(tools: dict[str, Any], key: str) -> dict[str, float]:
    """How many times longer each peer takes than ours."""
    ours = tools["convsmith"][key]["median"]
    return {name: told[key]["median"] / ours for name, told in tools.items() if key in told and name != "convsmith"}


def table(found: dict[str, Any]) -> str:
    """Of the documentation: ours in seconds of the first call, the others as multiples of it."""
    names = [
        name for name in TOOLS if name != "convsmith" and any(name in net["tools"] for net in found["nets"].values())
    ]
    heads = [name.removeprefix("convsmith, ").removesuffix(" alone") for name in names]
    heads[0] += " alone"
    lines = [f"| net | convsmith, s | {' | '.join(heads)} |", "|---|" + "---:|" * (len(names) + 1)]
    for net, row in found["nets"].items():
        ours, times = row["tools"]["convsmith"]["cold_s"]["median"], row["times_ours"]["cold_s"]
        cells = [f"{times[name]:.1f}x" if name in times else "fails" for name in names]
        lines.append(f"| {net} | {ours:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_page() -> None:
    """Put the table of the result file between its marks."""
    before, _, rest = PAGE.read_text().partition("<!-- analyze -->\n")
    made = table(json.loads(RESULT.read_text()))
    write_text(PAGE, f"{before}<!-- analyze -->\n{made}{rest[rest.index('<!-- /analyze -->') :]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--page", action="store_true")
    told = parser.parse_args()
    if told.page:
        write_page()
        return
    warnings.simplefilter("ignore")
    collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]  # rfa_toolbox's, gone since 3.10
    for _, package in TOOLS.values():
        if package and find_spec(package):
            import_module(package)
    ready = cs.capture, cs.score  # names that convsmith imports when they are first asked for
    assert all(map(callable, ready))
    wanted = told.nets.split(",")
    known = json.loads(RESULT.read_text())["nets"] if RESULT.is_file() else {}
    found: dict[str, Any] = {"rounds": told.rounds, "nets": {n: row for n, row in known.items() if n not in wanted}}
    for name in wanted:
        taken: dict[str, list[Any]] = collections.defaultdict(list)
        for _ in range(told.rounds):
            for tool, (call, package) in TOOLS.items():
                if package is None or find_spec(package):
                    taken[tool].append(apart(lambda call=call, name=name: measured(name, call)))
        tools = {tool: summary(rounds) for tool, rounds in taken.items()}
        found["nets"][name] = {"facts": apart(lambda name=name: facts(name)), "tools": tools}
        if "cold_s" in tools["convsmith"]:
            found["nets"][name]["times_ours"] = {key: ratios(tools, key) for key in ("cold_s", "cold_cpu_s", "warm_s")}
        print(name, json.dumps(found["nets"][name].get("times_ours", tools)), flush=True)
    found["scale"] = scale()
    print(json.dumps(found["scale"]))
    found |= environment()
    found["versions_of_peers"] = {p: _version(p) for _, p in TOOLS.values() if p}
    write_text(RESULT, json.dumps(found, indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
