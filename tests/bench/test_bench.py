"""Benchmarks: what is timed and in which order, on the test's own clock; verdicts; what is skipped; one real run."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import groupby
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.bench import (
    FASTER,
    SLOWER,
    UNSURE,
    Bench,
    Latency,
    Skipped,
    bench,
    compare,
    ratio_bounds,
)  # fmt: skip
from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.export import export
from convsmith.latency.interleaved import FEWEST, ROUNDS, Times, take_turns
from convsmith.latency.targets import RUNTIMES, Runtime

SHAPE = (3, 8, 8)
QUICK = {"input": SHAPE, "seconds": 0.01, "batches": (2,)}


class Clock:
    """Seconds that pass only where something runs, and who ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, cost: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += cost()
            self.log.append(name)

        return run


def test_models_take_turns_and_the_order_turns_round() -> None:
    clock = Clock()
    times = take_turns({name: clock.run(name, lambda: 1.0) for name in "abc"}, 1.0, 1, clock)
    # Every reading of so slow a model is one run that is not timed, and one that is.
    assert "".join(clock.log) == "".join(["aabbcc", "ccbbaa"][number % 2] for number in range(FEWEST))
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", FEWEST)


@pytest.mark.parametrize(("cost", "runs"), [(1e-3, ROUNDS), (1e-5, ROUNDS), (10.0, FEWEST)])
def test_times_are_those_of_one_run(cost: float, runs: int) -> None:
    clock = Clock()
    costs = {"one": cost, "other": 3 * cost}
    times = take_turns({name: clock.run(name, lambda own=own: own) for name, own in costs.items()}, 0.5, 1, clock)  # type: ignore[misc]
    for name, own in costs.items():
        np.testing.assert_allclose(times[name], np.full(runs, own), rtol=1e-6)


def test_time_is_kept_where_models_are_fast() -> None:
    clock = Clock()
    take_turns({name: clock.run(name, lambda: 2e-3) for name in "ab"}, 1.5, 1, clock)
    assert 1.5 < clock.now <= 3


def test_rounds_end_when_a_machine_turns_slow() -> None:
    clock = Clock()
    times = take_turns({"a": clock.run("a", lambda: 0.01 if len(clock.log) < 48 else 9.0)}, 1.0, 1, clock)
    assert len(times["a"]) == 12 + 1, "12 readings of one run untimed and three timed, and a slow one"


def test_the_first_run_after_another_model_is_not_timed() -> None:
    clock = Clock()
    runs = {name: clock.run(name, lambda name=name: 1.0 if clock.log[-1:] == [name] else 5.0) for name in "ab"}  # type: ignore[misc]
    times = take_turns(runs, 1.0, 1, clock)
    assert {*times["a"], *times["b"][1:]} == {1.0}


def test_a_drift_strikes_all_alike() -> None:
    clock = Clock()
    times = take_turns({name: clock.run(name, lambda: 1 + clock.now / 100) for name in "ab"}, 1.0, 1, clock)
    _, other = compare(times, "eager", 1, seed=0)
    assert times["a"].max() > 1.3 * times["a"].min()
    assert other.verdict == UNSURE


def noisy(seed: int, scale: float = 1.0, spread: float = 0.02, rounds: int = ROUNDS) -> Times:
    """Readings of about 10 ms."""
    return 0.01 * scale * np.exp(spread * np.random.default_rng(seed).standard_normal(rounds))


BASE = noisy(1)
CASES: dict[str, tuple[Times, Times, str]] = {
    "half the time": (BASE, noisy(2, 0.5), FASTER),
    "twice the time": (BASE, noisy(2, 2.0), SLOWER),
    "5 % less": (BASE, noisy(2, 0.95), FASTER),
    "5 % less in noise": (noisy(1, spread=0.3), noisy(2, 0.95, spread=0.3), UNSURE),
    "the same": (BASE, noisy(2), UNSURE),
    "the very same": (BASE, BASE, UNSURE),
    "1 % more every time": (BASE, 1.01 * BASE, SLOWER),
    "1 % more in rounds of their own": (noisy(1, spread=0.1), 1.01 * noisy(2, spread=0.1), UNSURE),
    "half the time, once disturbed": (BASE, np.append(noisy(2, 0.5)[1:], 99.0), FASTER),
    "the same, twice disturbed": (BASE, np.append(noisy(2)[2:], [99.0, 99.0]), UNSURE),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case: str) -> None:
    base, own, told = CASES[case]
    first, second = compare({"first": base, "second": own}, "eager", 4, seed=0)
    assert second.verdict == told
    assert (second.ratio_low > 1 or second.ratio_high < 1) == (told != UNSURE)
    assert second.ratio_low <= second.ratio == np.median(own) / np.median(base) <= second.ratio_high
    assert (first.ratio, first.ratio_low, first.ratio_high, first.verdict) == (1, 1, 1, "")


def test_numbers_are_median_and_quartiles_in_milliseconds() -> None:
    (cell,) = compare({"net": np.array([0.005, 0.001, 0.002, 0.004, 0.003])}, "eager", 4, seed=0)
    assert cell == Latency("net", "eager", 4, 3.0, 2.0, 4.0, 5, 1.0, 1.0, 1.0, "")


def test_ratios_are_to_the_first() -> None:
    cells = list(compare({"a": BASE, "b": 2 * BASE, "c": BASE / 2}, "eager", 1, seed=0))
    assert [cell.ratio for cell in cells] == pytest.approx([1, 2, 0.5])
    assert [cell.verdict for cell in cells] == ["", SLOWER, FASTER]


def test_nothing_to_compare() -> None:
    assert list(compare({}, "eager", 1, seed=0)) == []


@pytest.mark.parametrize("rounds", [FEWEST, ROUNDS])
def test_equal_models_seldom_get_a_verdict(rounds: int) -> None:
    pairs = [(noisy(2 * i, rounds=rounds), noisy(2 * i + 1, rounds=rounds)) for i in range(150)]
    bounds = [ratio_bounds(base, own, seed=i) for i, (base, own) in enumerate(pairs)]
    missed = sum(low > 1 or high < 1 for low, high in bounds)
    assert missed <= 15, "about 5 % of 150, and three standard deviations"


@pytest.mark.parametrize("rounds", [FEWEST, ROUNDS])
def test_bounds_hold_the_true_ratio(rounds: int) -> None:
    pairs = [(noisy(2 * i, rounds=rounds), noisy(2 * i + 1, 0.8, rounds=rounds)) for i in range(150)]
    bounds = [ratio_bounds(base, own, seed=i) for i, (base, own) in enumerate(pairs)]
    assert sum(low <= 0.8 <= high for low, high in bounds) >= 135


def test_bounds_are_those_of_the_seed() -> None:
    own = noisy(2, spread=0.1)
    assert ratio_bounds(BASE, own, seed=3) == ratio_bounds(BASE, own, seed=3) != ratio_bounds(BASE, own, seed=4)


EXAMPLE = Bench(
    (Latency("a", "eager", 1, 2.0, 1.5, 2.5, 21, 1.0, 1.0, 1.0, ""),
     Latency("b", "eager", 1, 1.0, 0.9, 1.1, 21, 0.5, 0.4, 0.6, FASTER)),
    (Skipped("b", "compile", 1, "no compiler"),),
    SHAPE, 2, 7, {"torch": "2"}, {"cpu": "some", "cores": 2, "gpus": []},
)  # fmt: skip


def test_round_trip() -> None:
    assert Bench.from_json(EXAMPLE.to_json()) == EXAMPLE
    assert json.loads(EXAMPLE.to_json()) == EXAMPLE.to_dict()
    assert EXAMPLE.to_dict()["cells"][1] == {
        "model": "b", "runtime": "eager", "batch": 1, "median_ms": 1.0, "q1_ms": 0.9, "q3_ms": 1.1, "runs": 21,
        "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6, "verdict": "faster",
    }  # fmt: skip


def test_rows_are_flat_records_of_the_cells() -> None:
    assert EXAMPLE.rows({"a": "fp32", "b": "int8"})[1] == {
        "model": "b", "runtime": "eager", "precision": "int8", "batch": 1, "threads": 2, "median_ms": 1.0,
        "quartiles_ms": [0.9, 1.1], "ratio": 0.5, "interval": [0.4, 0.6], "verdict": "faster",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threads": None}, "threads: Input should be a valid integer"),
        ({"input": [3, None]}, "input.1: Input should be a valid integer"),
        ({"cells": [{"model": "a"}]}, "cells.0.runtime: Field required"),
        ({"remark": "mine"}, "remark: Unexpected keyword argument"),
    ],
)
def test_files_that_do_not_fit(change: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ConvsmithError) as error:
        Bench.from_json(json.dumps(EXAMPLE.to_dict() | change), "runs/x/bench.json")
    assert str(error.value) == f"runs/x/bench.json: {told}; measure again with `convsmith bench`."


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"cells": []}'])
def test_texts_that_are_no_benchmark(text: str) -> None:
    with pytest.raises(ConvsmithError, match=r"^the benchmark: .*; measure again with `convsmith bench`\.$"):
        Bench.from_json(text)


def net(outputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout())


class Witness(nn.Module):
    """Tells how it is run; what it has seen is kept through copies."""

    seen: tuple[list[Any], ...] = ([],)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        last = torch.channels_last
        layouts = x.is_contiguous(memory_format=last), self.conv.weight.is_contiguous(memory_format=last)
        modes = self.training, torch.is_inference_mode_enabled()
        self.seen[0].append((tuple(x.shape), *layouts, *modes, torch.get_num_threads()))
        return self.conv(x)  # type: ignore[no-any-return]


@pytest.fixture
def seen() -> Iterator[list[Any]]:
    yield Witness.seen[0]
    Witness.seen[0].clear()


def test_how_modules_run(seen: list[Any]) -> None:
    before, witness = torch.get_num_threads(), Witness()
    result = bench({"net": witness}, input=SHAPE, seconds=0.01, batches=(1, 5), runtimes=("eager",), threads=before + 1)
    shapes = [shape for (shape, *_), _ in groupby(seen)]
    assert shapes == [(1, *SHAPE), (5, *SHAPE)]
    assert {tuple(how) for _, *how in seen} == {(True, True, False, True, before + 1)}
    assert torch.get_num_threads() == before
    assert result.threads == before + 1
    assert witness.training
    assert witness.conv.weight.is_contiguous(), "the model is left as it was"


class Sleeper(nn.Module):
    """Lets others have the processor for a while, as on a busy machine."""

    def forward(self, x: Tensor) -> Tensor:
        sleep(0.02)
        return x + 1


@pytest.mark.parametrize(("threads", "waits"), [(1, False), (2, True)])
def test_one_thread_is_told_in_time_of_the_processor(threads: int, waits: bool) -> None:
    (cell,) = bench(
        {"net": Sleeper()}, input=SHAPE, seconds=0.01, batches=(1,), runtimes=("eager",), threads=threads
    ).cells
    assert (cell.median_ms >= 20) == waits


def test_threads_are_given_back_after_a_failure() -> None:
    before = torch.get_num_threads()

    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench({"net": net()}, **QUICK, runtimes=("eager",), threads=before + 1, progress=stop)
    assert torch.get_num_threads() == before


def test_a_real_run() -> None:
    told: list[tuple[str, int, int]] = []
    models = {"small": net(8), "large": nn.Sequential(*[nn.Conv2d(3, 3, 5, padding=2) for _ in range(20)])}
    result = bench(
        models, input=(3, 32, 32), batches=(1, 4), runtimes=("eager", "onnxruntime"), threads=1, seconds=0.05, seed=5,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    places = [(runtime, batch) for runtime in ("eager", "onnxruntime") for batch in (1, 4)]
    measured = [(f"measuring {at[0]}, batch {at[1]}", number, 4) for number, at in enumerate(places)]
    assert told == [*((f"preparing {name}", number, len(models)) for number, name in enumerate(models)), *measured]
    assert [(c.runtime, c.batch, c.model) for c in result.cells] == [(*at, name) for at in places for name in models]
    assert result.skipped == ()
    for cell in result.cells:
        assert 0 < cell.q1_ms <= cell.median_ms <= cell.q3_ms
        assert cell.verdict == ("" if cell.model == "small" else SLOWER)
    assert (result.input, result.threads, result.seed) == ((3, 32, 32), 1, 5)
    assert {"versions": result.versions, "hardware": result.hardware} == environment()
    assert Bench.from_json(result.to_json()) == result


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_run_is_skipped_with_its_reason(tmp_path: Path) -> None:
    onnx, pt2 = (export(net(), tmp_path / f"net.{suffix}", input=SHAPE).path for suffix in ("onnx", "pt2"))
    broken, other = tmp_path / "broken.onnx", export(net(), tmp_path / "other.onnx", input=(3, 9, 9)).path
    broken.write_text("not a model")
    models: dict[str, nn.Module | Path] = {
        "module": net(), "onnx": onnx, "pt2": pt2, "deciding": Deciding(), "channels": nn.Conv2d(5, 4, 3),
        "broken": broken, "other": other, "no file": net(),
    }  # fmt: skip
    files = {"no file": tmp_path / "gone.onnx"}
    result = bench(models, **QUICK, runtimes=("eager", "onnxruntime"), onnx=files)
    ran = [(cell.runtime, cell.model) for cell in result.cells]
    assert ran == [("eager", name) for name in ("module", "pt2", "deciding", "no file")] + [
        ("onnxruntime", name) for name in ("module", "onnx")
    ]
    reasons = {(skip.runtime, skip.model): skip.reason for skip in result.skipped}
    assert len(reasons) + len(ran) == 2 * len(models)
    only = "a .onnx file runs in onnxruntime only"
    assert [reasons["eager", name] for name in ("onnx", "broken", "other")] == [only] * 3
    assert reasons["onnxruntime", "pt2"] == "a .pt2 file runs in eager only"
    for place, told in {
        ("onnxruntime", "deciding"): "data-dependent",
        ("eager", "channels"): "to have 5 channels, but got 3",
        ("onnxruntime", "channels"): "to have 5 channels, but got 3",
        ("onnxruntime", "broken"): "INVALID_PROTOBUF",
        ("onnxruntime", "other"): "its input 'input' is 3x9x9, not 3x8x8",
        ("onnxruntime", "no file"): "gone.onnx",
    }.items():
        assert told in reasons[place]
    assert not any("\n" in text for text in reasons.values())


def test_models_in_a_row_are_named_and_a_zoo_net_tells_its_input(tmp_path: Path) -> None:
    path = export(net(), tmp_path / "net.onnx", input=(3, 32, 32)).path
    models = [path, cs.build("resnet20", input=(3, 32, 32), classes=10), net()]
    result = bench(models, batches=(1,), seconds=0.01, runtimes=("eager",))
    assert result.input == (3, 32, 32)
    assert [skip.model for skip in result.skipped] == ["0 net.onnx"]
    assert [cell.model for cell in result.cells] == ["1 ConvNet", "2 Sequential"]


def test_the_first_that_runs_is_compared_with(tmp_path: Path) -> None:
    path = export(net(), tmp_path / "net.onnx", input=SHAPE).path
    (cell,) = bench({"file": path, "net": net()}, **QUICK, runtimes=("eager",)).cells
    assert (cell.model, cell.ratio, cell.verdict) == ("net", 1.0, "")


def test_files_exported_already_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(net(), tmp_path / "net.onnx", input=SHAPE).path
    exported: list[nn.Module] = []
    monkeypatch.setattr(
        import_module("convsmith.bench.subjects"), "export", lambda model, *args, **more: exported.append(model)
    )
    result = bench({"net": net()}, **QUICK, runtimes=("onnxruntime",), onnx={"net": path})
    assert len(result.cells) == 1
    bench({"net": net()}, **QUICK, runtimes=("eager",))
    assert not exported, "no other runtime needs a file"


def test_without_a_compiler_compile_is_skipped() -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": (None, "/no/compiler")}):
        result = bench({"net": net(5)}, **QUICK, runtimes=("compile", "eager"))
    assert [cell.runtime for cell in result.cells] == ["eager"]
    (skip,) = result.skipped
    assert (skip.model, skip.runtime, skip.batch) == ("net", "compile", 2)
    assert skip.reason.startswith("InvalidCxxCompiler: No working C++ compiler found")


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiled_models_run(tmp_path: Path) -> None:
    pt2 = export(net(), tmp_path / "net.pt2", input=SHAPE).path
    result = bench({"net": net(), "pt2": pt2}, **QUICK, runtimes=("compile",))
    assert [cell.model for cell in result.cells] == ["net"]
    assert [skip.reason for skip in result.skipped] == ["a .pt2 file runs in eager only"]


def test_every_model_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.testing import CompileCounter  # takes seconds to import

    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    models = {str(outputs): net(outputs) for outputs in range(1, 11)}
    result = bench(models, **QUICK, runtimes=("compile",))
    assert len(result.cells) == counter.frame_count == 10, "torch itself would stop at 8 of one forward"


def test_a_runtime_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[Tensor] = []
    mine = Runtime("counts images", lambda subject, inputs, threads: lambda: images.append(inputs[0]))
    monkeypatch.setitem(RUNTIMES._entries, "mine", mine)
    result = bench({"net": net()}, **QUICK, runtimes=("mine",), seed=3)
    assert [cell.runtime for cell in result.cells] == ["mine"]
    assert torch.equal(images[0], torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"models": {}}, "give a model, a runtime and a batch"),
        ({"runtimes": ()}, "give a model, a runtime and a batch"),
        ({"batches": ()}, "give a model, a runtime and a batch"),
        ({"batches": (1, 0)}, "sizes and threads of 1 or more"),
        ({"input": (3, 0, 8)}, "sizes and threads of 1 or more"),
        ({"threads": 0}, "sizes and threads of 1 or more"),
        ({"runtimes": ("eager", "compiled")}, "Unknown runtime 'compiled'; did you mean compile?"),
        ({"models": {"net": Path("no/net.onnx")}}, "no/net.onnx: cannot be measured"),
        ({"models": {"net": Path(__file__)}}, "test_bench.py: cannot be measured; give a .onnx or .pt2 file"),
    ],
)
def test_refusals(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConvsmithError) as error:
        bench(**{"models": {"net": net()}, **QUICK} | change)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pt2_file_that_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.pt2").write_text("not a model")
    with pytest.raises(ConvsmithError, match=r"net\.pt2: cannot be read \(.*\); export it again\."):
        bench({"net": tmp_path / "net.pt2"}, **QUICK)
    assert capfd.readouterr() == ("", "")
