"""The whole way: what a run leaves, that it goes on where it was stopped, and that nothing is done twice."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import convsmith as cs
from conftest import SETTINGS
from convsmith.errors import ConvsmithError
from convsmith.load import Wish, load
from convsmith.optimize import Settings, Watch, run
from convsmith.plan import Remove, Repeat, Replace
from convsmith.report import read_run

QUICK = {"runtimes": ("eager",), "formats": ("onnx",), "seconds": 0.02}


def test_a_run_leaves_everything(run_folder: Path) -> None:
    files = sorted(str(p.relative_to(run_folder)) for p in run_folder.rglob("*") if p.is_file())
    nets = [
        f"{net}/{file}"
        for net in ("baseline", "optimized")
        for file in ("evaluations.json", "exports.json", "history.jsonl", "model.json", "model.onnx", "model.pt2",
                     "model.safetensors", "scores.json")
    ]  # fmt: skip
    plans = ["optimized/plan-1.json", "optimized/plan.json", "organize.json", "decompose.json"]
    assert files == sorted([*nets, *plans, "run.json", "bench.json"])


def test_its_records_tell_what_its_models_are(run_folder: Path) -> None:
    records = read_run(run_folder)
    assert records.organize is not None
    assert records.decompose is not None
    assert any(isinstance(edit, Repeat) for edit in records.organize.edits)
    assert all(isinstance(edit, Replace) and edit.error is None for edit in records.decompose.edits), "trained afresh"
    for net in records.nets:
        model = load(str(run_folder / net.name))
        graph = cs.capture(model.model, torch.zeros(1, 3, 32, 32))
        assert net.scores is not None
        assert (net.scores.params, net.scores.macs) == (graph.params, graph.macs)
        assert model.origin.trained
        evaluated = cs.evaluate(model.model, cs.load_data("digits").test)
        assert net.final is not None
        assert evaluated.top1 == net.final.top1
    assert records.optimized.scores is not None
    assert records.decompose.new.params == records.optimized.scores.params


def test_both_are_trained_alike(run_folder: Path) -> None:
    rates = [[epoch.lr for epoch in net.history] for net in read_run(run_folder).nets]
    assert rates[0] == rates[1] != []


class StopError(Exception):
    """Somebody has pulled the plug."""


def stop_at(net: str, number: int) -> Watch:
    def epoch(name: str, total: int, record) -> None:
        if (name, record.epoch) == (net, number):
            raise StopError

    return Watch(epoch=epoch)


@pytest.mark.parametrize(("net", "number"), [("baseline", 1), ("optimized", 1)])
def test_a_stopped_run_goes_on_to_the_same_weights(run_folder: Path, tmp_path: Path, net: str, number: int) -> None:
    settings = replace(SETTINGS, epochs=2)
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    run(settings, whole, **QUICK)
    with pytest.raises(StopError):
        run(settings, halted, watch=stop_at(net, number), **QUICK)
    assert not (halted / net / "model.json").exists()
    trained_again: list[tuple[str, int]] = []
    watch = Watch(epoch=lambda name, total, record: trained_again.append((name, record.epoch)))
    run(settings, halted, watch=watch, **QUICK)
    expected = [("baseline", 2)] * (net == "baseline") + [("optimized", 1)] * (net == "baseline") + [("optimized", 2)]
    assert trained_again == expected
    for name in ("baseline", "optimized"):
        one, other = (load_file(folder / name / "model.safetensors") for folder in (whole, halted))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=0, organize=False)
    run(settings, tmp_path / "run", **QUICK)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    run(settings, tmp_path / "run", **QUICK)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    assert {p.name for p in before} >= {"bench.json", "decompose.json", "scores.json", "model.onnx", "plan.json"}


def test_a_mistyped_run_claims_no_folder(tmp_path: Path) -> None:
    for mistyped in (replace(SETTINGS, model="vgg61"), replace(SETTINGS, data="digit")):
        with pytest.raises(ConvsmithError, match="did you mean"):
            run(mistyped, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trained_weights_are_kept_carried_and_recovered(run_folder: Path, tmp_path: Path) -> None:
    weights = str(run_folder / "baseline" / "model.safetensors")
    run(replace(SETTINGS, weights=weights, block="dw-pw:r=8"), tmp_path / "run", **QUICK)
    records = read_run(tmp_path / "run")
    assert records.organize is None
    assert records.decompose is not None
    errors = [edit.error for edit in records.decompose.edits if isinstance(edit, Replace)]
    assert errors
    assert all(error is not None and error < 0.2 for error in errors)
    assert [told.when for told in records.baseline.evaluations] == ["original"]
    assert [told.when for told in records.optimized.evaluations] == [
        "decomposed",
        "BatchNorm re-estimated",
        "recovered",
    ]
    first, trained = records.baseline.evaluations[0], read_run(run_folder).baseline.final
    assert trained is not None
    assert first.top1 == trained.top1, "the weights are as they were"


def test_a_trained_folder_is_taken_as_trained(run_folder: Path, tmp_path: Path) -> None:
    settings = Settings(str(run_folder / "optimized"), "digits", block="none", organize=True, epochs=0)
    run(settings, tmp_path / "run", **QUICK)
    records = read_run(tmp_path / "run")
    assert records.baseline.final is not None
    assert records.baseline.final.top1 == read_run(run_folder).optimized.final.top1  # type: ignore[union-attr]


def test_a_trained_net_is_organized_by_what_images_tell() -> None:
    torch.manual_seed(0)
    net, images = cs.build("resnet20", classes=10), torch.rand(16, 3, 16, 16)
    done = cs.optimize(net, images[:1], images=images, max_macs=0.8, block="none", organize=True)
    assert done.plan.new.macs <= 0.8 * done.plan.base.macs
    assert all(edit.output_error for edit in done.plan.edits if isinstance(edit, Remove))
    assert all(edit.start == "identity" for edit in done.plan.edits if isinstance(edit, Repeat))
    assert cs.optimize(net, images[:1], images=images, block="none", organize=True).plan.new.macs <= done.plan.base.macs


def test_max_macs_limits_the_result_by_the_baseline(tmp_path: Path) -> None:
    run(replace(SETTINGS, epochs=0, max_macs=0.7), tmp_path / "run", **QUICK)
    base, new = (net.scores for net in read_run(tmp_path / "run").nets)
    assert base is not None
    assert new is not None
    assert 0.35 * base.macs < new.macs <= 0.7 * base.macs


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("settings", "prepare", "told"),
    [
        (replace(SETTINGS, seed=7), None, "holds a run with seed = 0, not 7"),
        (replace(SETTINGS, wish=Wish(mean=(0.1,) * 3)), None, "holds a run with wish = "),
        (SETTINGS, lambda out: write(out / "mine.txt", "x"), "is not empty and holds no run of convsmith"),
        (SETTINGS, lambda out: write(out / "run.json", "{"), "cannot be read as a run's record"),
        (SETTINGS, lambda out: write(out, "a file"), "choose another folder"),
        (replace(SETTINGS, model="vgg61"), lambda out: None, "did you mean vgg19"),
        (replace(SETTINGS, data="digit"), lambda out: None, "did you mean digits"),
        (replace(SETTINGS, block="dw-wp"), lambda out: None, "did you mean"),
        (replace(SETTINGS, weights="no.pth"), lambda out: None, "no.pth: no such weights file"),
        (replace(SETTINGS, max_macs=0.01), lambda out: None, "more than the 0.0"),
    ],
)
def test_a_run_that_cannot_be_is_told_in_one_line(tmp_path: Path, settings: Settings, prepare, told: str) -> None:
    out = tmp_path / "run"
    if prepare is None:
        write(out / "run.json", json.dumps({"settings": asdict(SETTINGS)}))
    else:
        prepare(out)
    with pytest.raises(ConvsmithError) as error:
        run(settings, out, **QUICK)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.part"))
