"""bench/gpu/run.py: end to end on the CPU with tiny cells; cut off, it goes on; nothing is begun that would be late."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep

import pytest
import torch

import convsmith as cs

ROOT = Path(__file__).parents[2]
GPU = ROOT / "bench" / "gpu"


@pytest.fixture(scope="module", autouse=True)
def _bench_on_path():
    sys.path.insert(0, str(GPU))
    yield
    sys.path.remove(str(GPU))


@pytest.fixture(scope="module")
def digits():
    return cs.load_data("digits")


def lab_of(data, work: Path, minutes: float = 5, say=lambda text: None):
    from loop import Lab

    return Lab(data, torch.device("cpu"), perf_counter() + 60 * minutes, work, say)


def walked(lab, path: Path, only: str = "", cells=None) -> tuple[int, dict]:
    import run
    from cells import tiny

    chosen = [cell for cell in (cells or list(tiny())) if only in cell.key]
    status = run.walk(lab, chosen, run.read(path), path, "digits")
    return status, run.read(path)


def test_every_kind_of_cell_leaves_its_record(digits, tmp_path: Path) -> None:
    from cells import tiny

    status, done = walked(lab_of(digits, tmp_path / "work"), tmp_path / "tiny.json")
    assert status == 0
    assert list(done["cells"]) == [cell.key for cell in tiny()]
    assert {key.partition("/")[0] for key in done["cells"]} == {
        "rpw", "shift", "speed", "table2", "table6", "expand", "recovery",
    }  # fmt: skip
    (machine,) = done["machines"]
    assert all(one["passed"] for one in done["checks"][machine].values())
    assert all(cell["machine"] == machine for cell in done["cells"].values())
    trained = done["cells"]["table2/+1 in stage 1/0"]
    assert (trained["epochs"], len(trained["train_losses"])) == (2, 2)
    assert trained["gain"] - done["cells"]["table2/base/0"]["gain"] == pytest.approx(1.7315, abs=1e-4)
    wide, narrow = done["cells"]["expand/shufflenetv2-0.5 expanded/0"], done["cells"]["expand/shufflenetv2-0.5 base/0"]
    assert wide["expanded"]["macs"] > narrow["macs"] >= wide["macs"]
    recovered = done["cells"]["recovery/resnet20/0"]
    assert {"top1", "before"} <= recovered.keys()
    assert recovered["control"]["epochs"] == recovered["epochs"] == 2
    assert list((tmp_path / "work").glob("*")) == [], "checkpoints go when their cell is written"


def test_killed_at_any_moment_the_driver_goes_on(tmp_path: Path, digits) -> None:
    result = tmp_path / "out" / "tiny.json"
    words = ["--set", "tiny", "--data", "digits", "--only", "table2", "--out", str(result.parent)]
    driver = [sys.executable, str(GPU / "run.py"), *words, "--work", str(tmp_path / "work"), "--device", "cpu"]
    with subprocess.Popen(driver, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}) as running:
        while running.poll() is None and (not result.is_file() or not json.loads(result.read_text())["cells"]):
            sleep(0.01)
        running.send_signal(signal.SIGKILL)
    before = json.loads(result.read_text())["cells"]
    assert 1 <= len(before) <= 2, "killed in the midst of it"
    _, done = walked(lab_of(digits, tmp_path / "work"), result, "table2")
    assert len(done["cells"]) == 3
    assert {key: done["cells"][key] for key in before} == before, "what is done is not done again"


def test_a_run_that_was_stopped_ends_as_if_it_was_not(digits, tmp_path: Path, monkeypatch) -> None:
    import loop
    from cells import TINY, zoo_net

    recipe = replace(TINY.recipe, epochs=3)

    def fitted(work: Path, say) -> tuple[dict, torch.nn.Module]:
        lab = lab_of(digits, work, say=say)
        torch.manual_seed(0)
        model = zoo_net(lab, "vgg11", None, 1 / 8)
        return loop.fit(lab, model, loop.pictures_of(lab, 64), recipe, "run"), model

    def stop(text: str) -> None:
        if "epoch 3" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "stopped", stop)
    seen: list[str] = []
    again, model = fitted(tmp_path / "stopped", seen.append)
    whole, other = fitted(tmp_path / "whole", seen.append)
    assert [text.split(":")[0].strip() for text in seen] == [f"epoch {n} of 3" for n in (3, 1, 2, 3)]
    assert (again["top1"], again["train_losses"]) == (whole["top1"], whole["train_losses"])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_nothing_is_begun_that_would_not_end_in_time(digits, tmp_path: Path) -> None:
    from cells import Cell

    def late(lab, key, settings):
        raise AssertionError("begun")

    cells = [Cell("slow/one/0", {}, lambda lab, key, settings: {}), Cell("slow/one/1", {}, late)]
    path = tmp_path / "tiny.json"
    walked(lab_of(digits, tmp_path), path, cells=cells[:1])
    done = json.loads(path.read_text())
    done["cells"]["slow/one/0"]["seconds"] = 1e6
    path.write_text(json.dumps(done))
    seen: list[str] = []
    status, _ = walked(lab_of(digits, tmp_path, say=seen.append), path, cells=cells)
    assert status == 0
    assert "slow/one/1: takes 1000000 s" in seen[-1]


def test_a_run_that_grows_too_long_stops_with_its_checkpoint(digits, tmp_path: Path) -> None:
    import loop
    from cells import TINY, zoo_net

    lab = lab_of(digits, tmp_path)
    pictures, model = loop.pictures_of(lab, 64), zoo_net(lab, "vgg11", None, 1 / 8)
    with pytest.raises(loop.LateError, match="are left"):
        loop.fit(lab, model, pictures, replace(TINY.recipe, epochs=100_000), "long")
    assert not lab.state("long").exists(), "measured first, not begun"
    run = loop.Run(model, loop.sgd(model, TINY.recipe, lab.device))
    over = lab_of(digits, tmp_path, minutes=0)
    with pytest.raises(loop.LateError), loop.stopped_safely(run, lab.state("long")):
        step = loop.step_of(model, run.optimizer, TINY.recipe, lab.device, None)
        loop.train(over, run, pictures, TINY.recipe, step, lab.state("long"))
    assert torch.load(lab.state("long"), weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("plain", "compiled", "used"), [(1.0, 0.5, True), (1.0, 2.0, False), (1.0, None, False), (1e-3, 1e-4, False)]
)
def test_the_compiled_net_is_used_where_it_is_faster(
    digits, tmp_path: Path, monkeypatch, plain: float, compiled: float | None, used: bool
) -> None:
    """Seconds of a step as they are, and compiled (None: it cannot be); short runs are not compiled at all."""
    import loop
    from cells import TINY, zoo_net

    class Compiled:
        pass

    def timed(lab, model, pictures, recipe, teacher, net=None) -> float:
        if net is not None and compiled is None:
            raise RuntimeError("no compiler")
        return plain if net is None else compiled

    monkeypatch.setattr(loop, "timed", timed)
    monkeypatch.setattr(loop.Lab, "compiles", property(lambda lab: True))
    monkeypatch.setattr(torch, "compile", lambda model: Compiled())
    monkeypatch.setattr(loop, "step_of", lambda net, *rest: net)
    lab = lab_of(digits, tmp_path)
    run = loop.Run(zoo_net(lab, "vgg11", None, 1 / 8), None)
    step, told = loop.paced(lab, run, loop.pictures_of(lab, 64), replace(TINY.recipe, epochs=10), None, 0)
    assert isinstance(step, Compiled) == told["compiled"] == used
    assert told["images_s"] == pytest.approx(16 / (compiled if used else plain))
    assert ("compile_failed" in told) == (compiled is None)


def test_what_needs_a_kernel_that_is_wrong_is_not_measured(digits, tmp_path: Path, monkeypatch) -> None:
    import run

    wrong = {"convolution": {"passed": True}, "rolling": {"passed": False, "error": 0.5, "where": "everywhere"}}
    monkeypatch.setattr(run, "check", lambda lab: wrong)
    seen: list[str] = []
    status, done = walked(lab_of(digits, tmp_path, say=seen.append), tmp_path / "tiny.json", "table6")
    assert status == 1
    assert list(done["cells"]) == ["table6/DW+GPW g=4/0"]
    assert any(text.startswith("table6/DW+RPW g=4 o=0.5/0: not measured") for text in seen)


def test_a_wrong_kernel_is_found(digits, tmp_path: Path) -> None:
    import checks

    lab, cases = lab_of(digits, tmp_path), checks.rollings()[:1]
    assert checks.judged(lab, cases)["passed"]
    name, own, exact, x, weight = cases[0]
    for bad in (lambda x, w: 1.1 * own(x, w), lambda x, w: own(x, w) * float("nan")):
        assert not checks.judged(lab, [(name, bad, exact, x, weight)])["passed"]


def test_a_failure_costs_one_cell_alone(digits, tmp_path: Path) -> None:
    from cells import Cell

    def broken(lab, key, settings):
        raise RuntimeError("out of memory")

    cells = [Cell("one/a/0", {}, broken), Cell("one/b/0", {}, lambda lab, key, settings: {"top1": 1.0})]
    status, done = walked(lab_of(digits, tmp_path), tmp_path / "tiny.json", cells=cells)
    assert (status, list(done["cells"])) == (1, ["one/b/0"])


def test_other_settings_or_data_are_measured_anew() -> None:
    import run
    from cells import Cell

    done = {"cells": {"t/a/0": {"settings": {"epochs": 1}, "data": "digits"}}}
    assert run.is_done(done, Cell("t/a/0", {"epochs": 1}, None), "digits")
    assert not run.is_done(done, Cell("t/a/0", {"epochs": 2}, None), "digits")
    assert not run.is_done(done, Cell("t/a/0", {"epochs": 1}, None), "cifar10")


def test_crops_are_windows_of_the_padded_images_some_mirrored(digits, tmp_path: Path) -> None:
    import loop

    pictures = loop.pictures_of(lab_of(digits, tmp_path), 8)
    crops = loop.cropped(pictures.images, torch.arange(8), 4, torch.Generator().manual_seed(0))
    mirrored = 0
    for crop, padded in zip(crops, pictures.images, strict=True):
        windows = padded.unfold(0, 32, 1).unfold(1, 32, 1).permute(0, 1, 3, 4, 2)  # (9, 9, h, w, c)
        plain, turned = ((windows == each).flatten(2).all(2).any() for each in (crop, crop.flip(1)))
        assert plain or turned
        mirrored += int(turned and not plain)
    assert 0 < mirrored < 8
    images, labels = next(pictures.batches(4, seed=0, epoch=0))
    assert (images.shape, labels.shape) == ((4, 3, 32, 32), (4,))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_all_cells_for_a_gpu_and_a_cpu_are_known_by_one_name_each() -> None:
    from cells import SETS

    for make in SETS.values():
        keys = [cell.key for cell in make()]
        assert len(keys) == len(set(keys))
    order = list(dict.fromkeys(key.partition("/")[0] for key in (cell.key for cell in SETS["gpu"]())))
    assert order == ["rpw", "shift", "speed", "table2", "table3", "table6", "expand", "recovery"]
    needy = {cell.key.split("/")[1] for cell in SETS["gpu"]() if cell.needs == "rolling" and cell.key[0] == "t"}
    assert len(needy) == 6, "the RPW rows of Table 6"
