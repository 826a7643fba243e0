"""What is measured in a target: small nets by hand on a clock of the test's own, the file, and real layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.blocks import parse_block
from convsmith.errors import ConvsmithError
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.clock import Clock
from convsmith.latency.in_target import TargetLatencies
from convsmith.latency.interleaved import FEWEST, take_single_turns
from convsmith.latency.kept import Kept
from convsmith.latency.targets import RUNTIMES, Runtime
from convsmith.target import Target


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """A runtime in which a multiply-accumulate of a convolution takes a nanosecond, and nothing else takes time."""
    started: list[nn.Module] = []
    now = [0.0]

    def start(subject, inputs, threads):  # type: ignore[no-untyped-def]
        started.append(subject.module)
        macs = cs.capture(subject.module, inputs[0]).macs * len(inputs[0])

        def run() -> None:
            now[0] += 1e-9 * macs

        return run

    monkeypatch.setitem(RUNTIMES._entries, "counted", Runtime("counts", start))
    monkeypatch.setattr(Clock, "reads", property(lambda self: lambda: now[0]))
    return started


@pytest.fixture
def clock(runs: list[nn.Module], tmp_path: Path) -> Clock:
    return Clock(Target("counted"), file=tmp_path / "latency.jsonl")


SPEC, SIZE = ConvSpec(16, 16), (8, 8)


@pytest.mark.parametrize("block", [None, "dw-pw", "cp:r=8"])
def test_a_layer_takes_what_it_adds_to_its_context(clock: Clock, block: str | None) -> None:
    module = SPEC.standard() if block is None else parse_block(block).build(SPEC)
    macs = cs.capture(nn.Sequential(module), torch.zeros(1, 16, 8, 8)).macs
    found = clock.seconds(SPEC, SIZE, None if block is None else parse_block(block))
    assert found == pytest.approx(1e-9 * macs)


def test_a_batch_takes_the_time_of_all_its_images(runs: list[nn.Module], tmp_path: Path) -> None:
    one, four = (Clock(Target("counted", batch=n), file=tmp_path / "l.jsonl").seconds(SPEC, SIZE) for n in (1, 4))
    assert four == pytest.approx(4 * one)


def test_what_was_measured_is_kept_for_other_runs(clock: Clock, runs: list[nn.Module], tmp_path: Path) -> None:
    blocks = [None, parse_block("dw-pw")]
    found = clock.all_seconds(SPEC, SIZE, blocks)
    read = len(runs)
    assert clock.all_seconds(SPEC, SIZE, blocks) == found
    assert Clock(Target("counted"), file=tmp_path / "latency.jsonl").all_seconds(SPEC, SIZE, blocks) == found
    assert len(runs) == read
    lines = [json.loads(line) for line in (tmp_path / "latency.jsonl").read_text().splitlines()]
    assert {"hardware", "versions", "runtime", "threads", "batch", "dtype", "conv", "size", "block"} <= lines[-1].keys()
    Clock(Target("counted", threads=2), file=tmp_path / "latency.jsonl").all_seconds(SPEC, SIZE, blocks)
    assert len(runs) > read, "other threads are another measurement"


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    Kept(tmp_path / "l.jsonl", {"a": 1}).add({"b": 2}, 0.5)
    with (tmp_path / "l.jsonl").open("a") as file:
        file.write('{"a": 1, "b": 3, "seco')
    kept = Kept(tmp_path / "l.jsonl", {"a": 1})
    assert (kept.find({"b": 2}), kept.find({"b": 3})) == (0.5, None)


def test_a_file_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(ConvsmithError, match=r"cannot be read as times of layers .*; name another file"):
        Kept(tmp_path / "folder" / "l.jsonl", {})
    with pytest.raises(ConvsmithError, match=r"times cannot be kept .*--latency-file or CONVSMITH_LATENCY"):
        Kept(Path("/proc/latency.jsonl"), {}).add({}, 1.0)


def test_where_few_ranks_are_measured_others_lie_between(
    runs: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES._entries, "few", Runtime("few", RUNTIMES["counted"].start, most=2))
    blocks = [parse_block(f"cp:r={rank}") for rank in (8, 16, 24)]
    whole, few = (Clock(Target(name), file=tmp_path / "l.jsonl") for name in ("counted", "few"))
    assert few.all_seconds(SPEC, SIZE, blocks) == pytest.approx(whole.all_seconds(SPEC, SIZE, blocks))
    assert sum("r=16" in line and '"few"' in line for line in (tmp_path / "l.jsonl").read_text().splitlines()) == 0


def test_times_are_told_at_the_pace_of_the_machine(clock: Clock) -> None:
    before = clock.seconds(SPEC, SIZE)
    reads = Clock.reads.fget(clock)  # type: ignore[attr-defined]
    slow = [2 * reads() for _ in range(2)]  # a clock that goes twice as fast from here on
    assert slow[0] == slow[1]
    Clock.reads = property(lambda self: lambda: 2 * reads())  # type: ignore[method-assign, assignment]
    clock.set_pace(lambda: None)
    assert clock.seconds(SPEC, SIZE) == pytest.approx(2 * before)


def test_single_turns_end_in_time_and_what_evicts_nothing_is_warmed() -> None:
    log: list[str] = []
    runs = {name: (lambda name=name: log.append(name)) for name in "ab"}
    found = take_single_turns(runs, {"a": 0, "b": 4096}, 0.0)
    assert {name: len(times) for name, times in found.items()} == {"a": FEWEST, "b": FEWEST}
    assert (log.count("a"), log.count("b")) == (1 + 2 * FEWEST, 1 + FEWEST)


@pytest.fixture
def latencies(runs: list[nn.Module], tmp_path: Path) -> TargetLatencies:
    net = cs.build("vgg11", input=(3, 32, 32), classes=10)
    graph = cs.capture(net, torch.zeros(1, 3, 32, 32))
    found = cs.measure_latency(net, graph, target="counted", file=tmp_path / "l.jsonl")
    assert isinstance(found, TargetLatencies)
    return found


def test_a_net_takes_what_its_layers_take(latencies: TargetLatencies) -> None:
    graph = cs.capture(latencies._model, torch.zeros(1, 3, 32, 32))
    assert latencies.total == pytest.approx(1e-9 * graph.macs)
    layers = latencies.layers(latencies._model, graph)
    told = np.array([1e-9 * node.macs for node in graph.layers if node.kind == "conv"])
    found = np.array([seconds for seconds in layers if seconds is not None])
    assert found / told == pytest.approx(np.full(len(told), found[0] / told[0])), "scaled, so that a rest remains"
    assert found.sum() == pytest.approx(0.97 * latencies.total)
    assert latencies.of(["features.0", "features.1", "features.2"]) == pytest.approx(found[0] / 0.97, rel=0.1)
    with pytest.raises(ConvsmithError, match="nothing is never called as a module"):
        latencies.of(["nothing"])


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Sequential(nn.Conv1d(4, 16, 9, 2), nn.ReLU(), nn.Conv1d(16, 16, 5, padding=2)), (4, 200)),
        (nn.Sequential(nn.Conv3d(4, 8, 3, (1, 2, 2)), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1)), (4, 4, 12, 12)),
    ],
    ids=["signal", "volume"],
)
@pytest.mark.parametrize("target", ["eager", "onnxruntime"])
def test_layers_of_signals_and_volumes_are_measured(
    net: nn.Module, shape: tuple[int, ...], target: str, tmp_path: Path
) -> None:
    graph = cs.capture(net.eval(), torch.zeros(1, *shape))
    found = cs.measure_latency(net, graph, target=target, file=tmp_path / "l.jsonl")
    layers = found.layers(net, graph)
    assert all(seconds > 0 for seconds in layers)
    (conv,) = [node for node in graph.layers if node.module == "2"]
    spec, size = conv.conv_spec(), conv.call.input.shape[2:]
    (block,) = found.blocks("2", spec, size, [parse_block("dw-pw")])
    assert block > 0
    assert found.of(["0", "1", "2"]) > 0
