"""Int8 files beside their float nets: measured in turn, in one table, and the sentence that a plan is not worth it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import convsmith as cs
from convsmith.bench import Bench, Latency, bench
from convsmith.cli import app
from convsmith.export import Accuracy, ExportCheck, export, keep_record
from convsmith.load import load, save
from convsmith.report import quantize_only
from convsmith.report.records import NetRecords, RunRecords
from convsmith.report.tables import before_after_rows

IMAGES = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def cell(model: str, ratio: float, verdict: str, batch: int = 1) -> Latency:
    return Latency(model, "onnxruntime", batch, 4 * ratio, 4 * ratio, 4 * ratio, 9, ratio, ratio, ratio, verdict)


def measured(*pairs: Latency) -> Bench:
    cells = (cell("a", 1, ""), cell("b", 0.9, "faster"), cell("a int8", 0.5, "faster"), cell("b int8", 1.5, "slower"))
    return Bench(cells, (), (3, 32, 32), 1, 0, {}, {}, pairs)


def net(name: str, top1: float | None, error: float = 0.05) -> NetRecords:
    accuracy = None if top1 is None else Accuracy(0.9, top1, 100)
    small = ExportCheck(Path("model.int8.onnx"), "onnx", 20, 1000, 0.1, 0.1, "int8", error, (), accuracy)
    return NetRecords(name, None, (), (), (replace(small, path=Path("model.onnx"), precision="fp32"), small))


BASE = cell("a int8", 1, "")
SLOWER, FASTER, UNSURE = (cell("b int8", *told) for told in ((3, "slower"), (0.5, "faster"), (1, "unclear")))
CASES: dict[str, tuple[tuple[Latency, ...], NetRecords, NetRecords, bool]] = {
    "slower and less exact": ((BASE, SLOWER), net("a", 0.9), net("b", 0.8), True),
    "as fast and as exact": ((BASE, UNSURE), net("a", 0.9), net("b", 0.9), True),
    "slower, but more exact": ((BASE, SLOWER), net("a", 0.8), net("b", 0.9), False),
    "faster, less exact": ((BASE, FASTER), net("a", 0.9), net("b", 0.8), False),
    "faster at another batch": ((BASE, SLOWER, replace(FASTER, batch=8)), net("a", 0.9), net("b", 0.8), False),
    "without labels, a larger error": ((BASE, SLOWER), net("a", None, 0.05), net("b", None, 0.1), True),
    "without labels, a smaller error": ((BASE, SLOWER), net("a", None, 0.1), net("b", None, 0.05), False),
    "no int8 file of the plan": ((BASE,), net("a", 0.9), replace(net("b", 0.9), exports=()), False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_quantize_only_is_said_where_the_plan_is_not_worth_it(case: str) -> None:
    pairs, base, new, said = CASES[case]
    told = quantize_only(measured(*pairs), base, new, ("a", "b"))
    assert bool(told) == said
    if said and base.exports[1].accuracy:
        assert told[0].startswith("quantize only: int8 of the original takes 0.50x the float original (onnxruntime,")
        assert "at top-1 90.00 %; int8 of the plan takes 1.50x" in told[0]


def test_a_run_has_float_and_int8_in_one_table() -> None:
    run = RunRecords("", {}, {}, None, None, net("a", 0.9), net("b", 0.8), measured(BASE, SLOWER))
    rows = {name: cells for name, *cells in before_after_rows(run)}
    assert rows["onnxruntime, batch 1"] == ["4.00 ms", "3.60 ms", "0.90x, faster"]
    assert rows["onnxruntime int8, batch 1"] == ["2.00 ms", "12.0 ms", "3.00x, slower"], "against the other's int8"
    assert "int8 onnx file" in rows


def test_int8_files_run_beside_their_models_alone_in_onnxruntime(tmp_path: Path) -> None:
    nets = {name: nn.Conv2d(3, width, 3) for name, width in (("a", 4), ("b", 8))}
    small = {
        name: export(each, tmp_path / f"{name}.onnx", input=(3, 32, 32), int8=IMAGES).path
        for name, each in nets.items()
    }
    found = bench(nets, input=(3, 32, 32), batches=(1,), runtimes=("eager", "onnxruntime"), int8=small, seconds=0.01)
    assert [(c.model, c.runtime) for c in found.cells] == [
        ("a", "eager"), ("b", "eager"),
        *((name, "onnxruntime") for name in ("a", "b", "a int8", "b int8")),
    ]  # fmt: skip
    assert [(c.model, c.runtime) for c in found.pairs] == [("a int8", "onnxruntime"), ("b int8", "onnxruntime")]
    assert found.pairs[1].ratio == pytest.approx(found.cells[5].median_ms / found.cells[4].median_ms)
    assert found.skipped == (), "nobody misses int8 in eager"
    assert Bench.from_json(found.to_json()) == found


def test_the_command_takes_the_int8_files_of_folders_along(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        loaded = load("resnet20")
        save(loaded, folder)
        keep_record([export(loaded.model, folder / "model.int8.onnx", input=(3, 32, 32), int8=IMAGES)], folder)
    options = ["--runtimes", "onnxruntime", "--batches", "1", "--json", "-"]
    done = CliRunner().invoke(app, ["bench", *map(str, folders), *options])
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["model"], row["precision"]) for row in rows] == [
        (str(folders[0]), "fp32"), (str(folders[1]), "fp32"),
        (f"{folders[0]} int8", "int8"), (f"{folders[1]} int8", "int8"),
    ]  # fmt: skip


@pytest.mark.long
def test_a_run_measures_int8_of_both(tmp_path: Path) -> None:
    from convsmith.optimize import Settings, run
    from convsmith.report import read_run

    run(Settings("own_net:make", "digits", epochs=1, int8=True, images=64), tmp_path / "run",
        runtimes=("onnxruntime",), formats=("onnx",), seconds=0.02)  # fmt: skip
    records = read_run(tmp_path / "run")
    assert [[file.precision for file in each.exports] for each in records.nets] == [["fp32", "int8"]] * 2
    assert records.bench is not None
    assert {c.model for c in records.bench.pairs} == {"baseline int8", "optimized int8"}
    assert cs.report(tmp_path / "run").read_text().count("onnxruntime int8, batch") >= 2
