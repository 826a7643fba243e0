"""Targets: how they are read and told, and that every runtime of the table answers what the module answers."""

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.bench import bench
from convsmith.errors import ConvsmithError
from convsmith.latency.packing import pack
from convsmith.latency.targets import RUNTIMES, Runtime, runtime_of
from convsmith.target import Target
from convsmith.testing import check_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("eager", Target("eager")),
        ("eager:cuda", Target("eager", device="cuda")),
        ("compile:cuda:1", Target("compile", device="cuda:1")),
        ("onnxruntime:int8", Target("onnxruntime:int8")),
        (Target("compile", 4, 8), Target("compile", 4, 8)),
    ],
)
def test_targets_are_read(text: str | Target, target: Target) -> None:
    assert Target.parse(text) == target
    assert Target.parse(str(Target.parse(text)).partition(",")[0]).runtime == target.runtime


def test_threads_and_batch_are_told() -> None:
    assert str(cs.Target.parse("onnxruntime:int8", threads=2, batch=8)) == "onnxruntime:int8, 2 threads, batch 8"


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name != "compile"])
def test_every_runtime_answers_what_the_module_answers(name: str) -> None:
    check_target(name, tolerance=0.1 if name.endswith("int8") else 1e-4)


@pytest.mark.long
def test_so_does_the_compiler() -> None:
    check_target("compile")


def test_the_judge_finds_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Runtime("adds one", lambda subject, inputs, threads: lambda: subject.module(inputs[0]) + 1)
    monkeypatch.setitem(RUNTIMES._entries, "wrong", wrong)
    with pytest.raises(AssertionError, match="wrong: the plain net is off by"):
        check_target("wrong")


def test_nets_packed_together_are_files_of_their_own() -> None:
    nets = {str(width): nn.Conv2d(3, width, 3) for width in (4, 6)}
    x = torch.rand(1, 3, 8, 8)
    with pack(nets, RUNTIMES["onnxruntime"], [x]) as packed:
        assert list(packed) == ["4", "6"]
        runs = {name: RUNTIMES["onnxruntime"].start(subject, [x], 1) for name, subject in packed.items()}
    for name, net in nets.items():
        (answer,) = runs[name]()
        assert torch.allclose(torch.from_numpy(answer), net(x), atol=1e-5)


def test_bench_measures_in_8_bit_integers() -> None:
    found = bench(
        {"net": nn.Conv2d(3, 8, 3)}, input=(3, 8, 8), batches=[1], runtimes=["onnxruntime:int8"], seconds=0.01
    )
    assert [cell.runtime for cell in found.cells] == ["onnxruntime:int8"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Target("eager", 0), "got 0 threads and a batch of 1"),
        (lambda: Target("eager", device="tpu"), "unknown device 'tpu'; give cpu or cuda"),
        (lambda: runtime_of(Target("onnxruntimes")), "Unknown runtime 'onnxruntimes'; did you mean onnxruntime"),
        (lambda: runtime_of(Target("onnxruntime", device="cuda")), "runs on cpu, not on cuda"),
    ],
)
def test_refusals(make: object, told: str) -> None:
    with pytest.raises(ConvsmithError) as error:
        make()  # type: ignore[operator]
    assert told in str(error.value)
