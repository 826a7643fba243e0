"""The command line: what it prints and writes, its exit status, and every mistake told in one line."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from typer.testing import CliRunner, Result

import convsmith as cs
import own_net
from conftest import SETTINGS
from convsmith.cli.app import app
from convsmith.load import Wish, load_with_data

VGG = ("vgg16", "--input", "3,32,32")
SMALL = ("own_net:make", "--input", "3,32,32")  # where a command takes long on a net of the zoo


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def answer(*args: object) -> dict:
    result = run(*args, "--json", "-")
    assert result.exit_code == 0, result.output
    record: dict = json.loads(result.stdout)
    return record


# --- analyze


def test_analyze_prints_the_contract() -> None:
    told = answer("analyze", *VGG)
    assert list(told["totals"]) == ["params", "macs", "gain", "spatial_layers", "unknown_ops", "value"]
    assert (told["totals"]["params"], told["totals"]["macs"]) == (14_728_266, 313_201_664)
    assert told["totals"]["gain"] == pytest.approx(39.0626, abs=1e-4)
    assert told["totals"]["spatial_layers"] == 13
    first = told["layers"][0]
    assert (first["name"], first["kind"], first["stage"], first["kernel"]) == ("features.0", "conv", "stage1", [3, 3])
    assert (first["in"], first["out"], first["groups"]) == ([3, 32, 32], [64, 32, 32], 1)
    assert first["reach"] == {"window": [3, 3], "window_free": [3, 3], "channels": 3.0, "gated": False, "bound": False}
    assert [stage["layers"] for stage in told["stages"]] == [2, 2, 3, 3, 3]


def test_analyze_marks_idle_layers_and_advises() -> None:
    told = answer("analyze", *VGG)
    assert [layer["name"] for layer in told["layers"] if layer["idle"]] == [
        "features.20", "features.27", "features.30", "features.37", "features.40",
    ]  # fmt: skip
    assert {one["kind"] for one in told["advice"]} == {"idle", "saturated", "input"}
    assert all({"kind", "advice"} <= one.keys() and one.keys() & {"layer", "stage"} for one in told["advice"])
    assert "Advice" in run("analyze", *VGG).stdout


def test_analyze_puts_two_nets_side_by_side(tmp_path: Path) -> None:
    pair = ("analyze", *VGG, "--blocks-per-stage", "5,4,2,1,1", "--compare", "vgg16")
    told = answer(*pair)
    assert told["totals"]["params"] == 5_101_194, "depths are the first net's"
    assert told["compare"]["totals"]["params"] == 14_728_266
    assert told["compare"]["input"] == [3, 32, 32], "the input is both nets'"
    assert told["compare"].keys() == told.keys() - {"compare"}
    result = run(*pair, "--html", tmp_path / "pair.html")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    assert "vgg16 (second)" in result.stdout
    assert "2.887x" in result.stdout
    assert "<title>convsmith: vgg16 (first) and vgg16 (second)</title>" in (tmp_path / "pair.html").read_text()


def test_a_second_net_that_is_not_known_is_told() -> None:
    result = run("analyze", *VGG, "--compare", "vgg17")
    assert result.exit_code == 1
    assert "vgg17" in result.stderr


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (("--convention", "exact"), "convention", "exact"),
        (("--alpha", "1"), "alpha", 1.0),
        (("--clamp",), "clamp", True),
        (("--count", "ptflops"), "count", "ptflops"),
        (("--blocks-per-stage", "5,4,2,1,1"), "model", "vgg16"),
        (("--classes", "100"), "model", "vgg16"),
    ],
)
def test_analyze_takes_its_options(options: tuple[str, ...], key: str, value: object) -> None:
    told, plain = answer("analyze", *VGG, *options), answer("analyze", *VGG)
    assert told[key] == value
    assert told["totals"] != plain["totals"]


def test_analyze_shows_shares_and_times_where_asked(tmp_path: Path) -> None:
    layers = answer("analyze", *VGG)["layers"]
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    assert not any("ms" in layer for layer in layers)
    told = answer("analyze", *VGG, "--time")
    assert all(layer["ms"] > 0 for layer in told["layers"])
    assert sum(layer["ms"] for layer in told["layers"]) < told["totals"]["ms"]
    result = run("analyze", *VGG, "--time", "--share")
    heads = ["layer", "kernel", "channels", "map", "params", "MACs", "share", "ms", "window", "gain"]
    assert heads in [line.split() for line in result.stdout.splitlines()]
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "100.0%" in result.stdout
    refused = run("analyze", file(tmp_path / "m.onnx"), "--time")
    assert refused.exit_code == 1
    assert "layers of a file cannot be timed" in refused.stderr


def test_analyze_shows_a_table_that_fits_and_writes_files(tmp_path: Path) -> None:
    result = run("analyze", *VGG, "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    assert result.exit_code == 0
    assert "14.73 M" in result.stdout
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    assert json.loads((tmp_path / "a.json").read_text())["totals"]["params"] == 14_728_266
    assert "<title>convsmith: vgg16</title>" in (tmp_path / "a.html").read_text()
    assert run("analyze", *VGG, "-q").output == ""


# --- plans


def test_organize_and_decompose_print_plans_and_write_them(tmp_path: Path) -> None:
    told = answer("organize", *VGG, "-o", tmp_path / "o.json")
    assert (told["base"]["blocks"], told["new"]["blocks"]) == ([2, 2, 3, 3, 3], [5, 4, 2, 1, 1])
    assert told["new"]["params"] == 5_101_194
    assert told["gain"] == pytest.approx(told["new"]["gain"] - told["base"]["gain"])
    assert cs.Plan.from_json((tmp_path / "o.json").read_text()).new.params == 5_101_194
    told = answer("decompose", *VGG, "--block", "dw-pw", "--keep", "features.3",
                  "--override", "features.10=dw-rpw:g=4,o=0.5", "-o", tmp_path / "d.json")  # fmt: skip
    edit, another = told["edits"][:2]
    assert {"layer", "block", "reason", "macs", "error"} <= edit.keys()
    assert edit["layer"] == "features.7"
    assert (another["layer"], another["block"]) == ("features.10", "dw-rpw:g=4,o=0.5")
    assert {"layer": "features.3", "reason": "it was asked to be kept"} in told["refusals"]


@pytest.mark.parametrize(
    ("limit", "largest"),
    [("1x", 313_201_664), ("313201664", 313_201_664), ("330M", 330e6), ("0.9x", 0.9 * 313_201_664)],
)
def test_limits_are_multiples_or_absolute(limit: str, largest: float) -> None:
    macs = answer("organize", *VGG, "--max-macs", limit)["new"]["macs"]
    assert 0.75 * largest < macs <= largest


@pytest.mark.parametrize("command", ["organize", "decompose"])
def test_latency_is_measured_and_limited(command: str) -> None:
    before, after = answer(command, *SMALL, "--max-latency", "5000ms")["latency_ms"]
    assert before > 0
    assert 0 < after <= 5000
    assert "ms an image, by module" in run(command, *SMALL, "--max-latency", "3x").stdout


@pytest.mark.parametrize(("command", "target"), [("organize", "eager"), ("decompose", "onnxruntime")])
def test_latency_is_limited_where_the_net_is_to_be_fast(command: str, target: str) -> None:
    options = ("--max-latency", "3x", "--target", target, "--batch", 2)
    told = answer(command, "own_net:make_short", *SMALL[1:], *options)
    assert {"latency_ms", "measured_ms"} <= told.keys()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("decompose", *VGG, "--threads", 2), "are a target's; give --target too"),
        (("organize", *VGG, "--batch", 2), "are a target's; give --target too"),
        (("organize", *VGG, "--target", "eager"), "give max_latency and the model too"),
        (("analyze", *VGG, "--target", "eager"), "give --time too"),
        (("decompose", *VGG, "--max-latency", "2x", "--target", "eagre"), "Unknown runtime 'eagre'"),
    ],
)
def test_targets_that_are_none(command: tuple[object, ...], told: str) -> None:
    refused = run(*command)
    assert refused.exit_code == 1
    assert told in refused.stderr.replace("\n", " ")


def test_organize_keeps_block_numbers_parameters_and_shows_the_front() -> None:
    assert sum(answer("organize", *VGG, "--blocks", 15)["new"]["blocks"]) == 15
    assert answer("organize", *VGG, "--max-params", "0.3x")["new"]["params"] <= 0.3 * 14_728_266
    front = answer("organize", *VGG, "--pareto")["pareto"]
    assert {"blocks", "gain", "params", "macs", "value"} == front[0].keys()
    assert "Units per stage that nothing beats" in run("organize", *VGG, "--pareto").stdout


def test_organize_with_images_takes_out_what_counts_least_and_says_what_that_costs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = cs.build("resnet20", input=(3, 32, 32), classes=10)
    weights = tmp_path / "w.pth"
    torch.save(net.state_dict(), weights)
    given = ("--weights", weights, "--data", "digits", "--images", 32, "--max-macs", "0.85x")
    told = answer("organize", "resnet20", "--classes", 10, "--input", "3,32,32", *given, "-o", tmp_path / "o.json")
    assert told["new"]["macs"] <= 0.85 * told["base"]["macs"]
    gone = [edit for edit in told["edits"] if edit["kind"] == "remove"]
    assert gone
    assert all(edit["output_error"] > 0 for edit in gone)
    assert all("alone the output is off by" in edit["reason"] for edit in gone)
    assert all(edit["start"] == "identity" for edit in told["edits"] if edit["kind"] == "repeat")
    run("apply", "resnet20", tmp_path / "o.json", "--weights", weights, "--out", tmp_path / "new")
    assert (tmp_path / "new" / "model.safetensors").is_file()


def test_organize_by_value() -> None:
    told = answer("organize", *VGG, "--by", "value")
    assert told["new"]["blocks"] == [5, 4, 2, 1, 1]
    assert told["new"]["value"] > told["base"]["value"] == pytest.approx(answer("analyze", *VGG)["totals"]["value"])
    mobile = "zoo:mobilenet", "--input", "3,32,32", "--max-macs", "1x"
    one, other = (answer("organize", *mobile, "--by", by)["new"] for by in ("gain", "value"))
    assert one["gain"] > other["gain"]
    assert one["value"] < other["value"]
    assert run("organize", *VGG, "--by", "size").exit_code == 2


# --- models


def test_a_folder_may_have_the_name_of_a_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("apply", "resnet20", plan(tmp_path), "--out", "resnet20").exit_code == 0


def test_the_verbs_work_on_each_others_folders(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    small = ("resnet20", "--blocks-per-stage", "1,1,1")
    save_file(cs.build("resnet20", blocks_per_stage=(1, 1, 1)).state_dict(), weights)
    assert run("decompose", *small, "--block", "dw-pw", "-o", tmp_path / "p.json").exit_code == 0
    told = answer("apply", small[0], tmp_path / "p.json", *small[1:], "--weights", weights, "--out", tmp_path / "a")
    assert all(0 < edit["error"] < 1 for edit in told["edits"])
    assert answer("analyze", tmp_path / "a")["totals"]["params"] == told["new"]["params"]
    trained = run(
        "train", tmp_path / "a", "--data", "digits", "--epochs", 1, "--batch-size", 128, "--out", tmp_path / "t"
    )
    assert trained.exit_code == 0, trained.output
    assert "epoch 1/1" in trained.stderr
    told = answer("evaluate", tmp_path / "t", "--data", "digits")
    assert list(told) == ["top1", "top5", "loss", "images"]
    assert told["images"] == 360
    assert f"top-1 {100 * told['top1']:.2f} %" in run("evaluate", tmp_path / "t", "--data", "digits").stdout
    checks = answer("export", tmp_path / "t", "--format", "onnx")
    assert (tmp_path / "t" / "model.onnx").stat().st_size == checks[0]["bytes"]
    told = answer(
        "bench",
        tmp_path / "a",
        tmp_path / "t" / "model.onnx",
        "--batches",
        "1",
        "--runtimes",
        "onnxruntime",
        "--threads",
        1,
    )
    assert [cell["model"] for cell in told] == [str(tmp_path / "a"), str(tmp_path / "t" / "model.onnx")]
    assert [(cell["runtime"], cell["precision"], cell["threads"]) for cell in told] == [("onnxruntime", "fp32", 1)] * 2
    assert all(cell["quartiles_ms"][0] <= cell["median_ms"] <= cell["quartiles_ms"][1] for cell in told)
    read, own = answer("analyze", tmp_path / "t" / "model.onnx"), answer("analyze", tmp_path / "t")
    assert read["totals"]["macs"] == own["totals"]["macs"]
    assert [layer["name"] for layer in read["layers"]] == [layer["name"] for layer in own["layers"]]


def test_out_and_o_are_one_option_for_files_and_folders(tmp_path: Path) -> None:
    own = ("own_net:make", "--input", "3,32,32")
    for number, (file, folder) in enumerate((("-o", "--out"), ("--out", "-o"))):
        plan, made = tmp_path / f"{number}.json", tmp_path / f"{number}"
        assert run("decompose", *own, "--block", "dw-pw", file, plan).exit_code == 0
        assert run("apply", own[0], plan, *own[1:], folder, made).exit_code == 0
        assert answer("analyze", made)["totals"]["macs"] < answer("analyze", *own)["totals"]["macs"]


def test_apply_with_data_says_that_the_plan_was_made_without(tmp_path: Path) -> None:
    """Where a limit chose its ranks: without one there was nothing to decide by errors."""
    own, data = ("--input", "3,32,32"), ("--data", "digits", "--images", 64)
    plans = {"blind": ("--max-macs", "0.7x"), "seeing": ("--max-macs", "0.7x", *data), "all": ("--block", "dw-pw")}
    for name, options in plans.items():
        plan = tmp_path / f"{name}.json"
        assert run("decompose", "own_net:make", *own, *options, "-o", plan).exit_code == 0
        told = run("apply", "own_net:make", plan, *own, *data, "--out", tmp_path / name).stdout
        assert ("`convsmith decompose --data` decides better" in told) == (name == "blind")
    told = run("apply", "own_net:make", tmp_path / "blind.json", *own, "--out", tmp_path / "no-data").stdout
    assert "decides better" not in told


def test_apply_refits_all_weights_together_and_says_how_near_they_came(tmp_path: Path) -> None:
    own, plan = ("--input", "3,32,32"), tmp_path / "plan.json"
    assert run("decompose", "own_net:make", *own, "--block", "dw-pw", "-o", plan).exit_code == 0
    given = ("apply", "own_net:make", plan, *own, "--refit-steps", 5)
    assert "joint refit: " in run(*given, "--data", "digits", "--images", 64, "--out", tmp_path / "new").stdout
    refused = run(*given, "--out", tmp_path / "none")
    assert refused.exit_code != 0
    assert "a joint refit needs images" in refused.output


def test_new_weights_are_not_taken_for_those_a_run_began_with(tmp_path: Path) -> None:
    """A run elsewhere is refused, and a folder in which a net was trained takes no new one."""
    own = ("--input", "3,32,32")
    new, trained, digits = tmp_path / "new", tmp_path / "trained", ("--data", "digits", "--epochs", 1)
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(own_net.make().state_dict(), tmp_path / f"{seed}.safetensors")
    plan = tmp_path / "p.json"
    assert run("decompose", "own_net:make", *own, "--block", "dw-pw", "-o", plan).exit_code == 0

    def apply(seed: int) -> None:
        weights = ("--weights", tmp_path / f"{seed}.safetensors")
        assert run("apply", "own_net:make", plan, *own, *weights, "--out", new).exit_code == 0

    apply(0)
    own_folder = run("apply", new, plan, "--out", new)
    assert own_folder.exit_code == 1
    assert "is the folder of the model itself" in own_folder.stderr
    assert run("train", new, *digits, "--out", trained).exit_code == 0
    apply(1)
    refused = run("train", new, *digits, "--out", trained)
    assert refused.exit_code == 1
    assert "starting weights = " in refused.stderr
    assert run("train", new, *digits, "--out", new).exit_code == 0
    kept = answer("evaluate", new, "--data", "digits")
    assert run("train", new, *digits, "--out", new).exit_code == 0, "the same command again changes nothing"
    for model, out in (("own_net:make", new), (new, new), (trained, trained)):
        refused = run("apply", model, plan, *(own if model == "own_net:make" else ()), "--out", out)
        assert refused.exit_code == 1
        assert f"{out}: holds a net that was trained" in refused.stderr.replace("\n", "")
    assert answer("evaluate", new, "--data", "digits") == kept


def test_long_work_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convsmith.cli.telling.EVERY", 0.0)
    own, plan = ("--input", "3,32,32"), tmp_path / "p.json"
    data = ("--data", "digits", "--images", 8)
    priced = run("decompose", "own_net:make", *own, *data, "--max-macs", "0.7x", "-o", plan)
    assert "pricing 3.0 (2/4)" in priced.stderr
    fitted = run("apply", "own_net:make", plan, *own, *data, "--out", tmp_path / "a")
    edits = json.loads(plan.read_text())["edits"]
    place = f" (1/{len(edits)})" if len(edits) > 1 else ""
    assert f"fitting {edits[0]['layer']}{place}, " in fitted.stderr
    assert "loading own_net:make" in fitted.stderr, "from the first second on"
    trained = run("train", tmp_path / "a", "--data", "digits", "--epochs", 2, "--batch-size", 480, "--out", tmp_path)
    for told in ("training, epoch 1 of 2 (2/4), about", "training, epoch 2 of 2 (4/4), about", "evaluating (257/360)"):
        assert told in trained.stderr
    for command, told in (
        (("evaluate", tmp_path / "a", "--data", "digits"), "evaluating (257/360)"),
        (("export", tmp_path / "a", "--format", "onnx,pt2"), "exporting model.pt2 (2/2)"),
        (("bench", tmp_path / "a", "--runtimes", "eager"), "measuring eager, batch 32 (2/2)"),
        (("analyze", tmp_path / "a", "--time"), "measuring latency by module (9/21)"),
        (("decompose", tmp_path / "a", "--max-macs", "0.9"), "trying blocks for 0.0 (1/"),
    ):
        assert told in run(*command).stderr


def test_a_folder_of_images_is_enough_to_fit_to(tmp_path: Path) -> None:
    """Without labels, classes or a test half."""
    own, images = ("--input", "3,32,32"), tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    for number, image in enumerate(load_digits().images[:12].astype("uint8") * 15):
        Image.fromarray(image).convert("RGB").save(images / ("deep" if number % 2 else ".") / f"{number}.png")
    flags, plan = ("--data", f"images:{images}", "--images", 12), tmp_path / "p.json"
    assert run("decompose", "own_net:make", *own, "--max-macs", "0.7x", *flags, "-o", plan).exit_code == 0
    made = run("apply", "own_net:make", plan, *own, *flags, "--out", tmp_path / "a")
    assert made.exit_code == 0, made.output
    assert "errors: of responses" in made.stdout
    assert "no --weights given" in made.stderr
    assert run("analyze", tmp_path / "a").exit_code == 0
    assert run("evaluate", tmp_path / "a", "--data", f"images:{images}").exit_code == 1
    net, _ = load_with_data("resnet20", f"images:{images}", Wish(input=(3, 32, 32)))
    assert net.model(torch.zeros(2, 3, 32, 32)).shape == (2, 10), "the classes are the net's own"


def test_apply_with_data_refits_for_the_relu_behind_unless_told_not_to(tmp_path: Path) -> None:
    own = ("--input", "3,32,32")
    assert run("decompose", "own_net:make", *own, "--block", "dw-pw", "-o", tmp_path / "p.json").exit_code == 0
    few = run(
        "apply", "own_net:make", tmp_path / "p.json", *own, "--data", "digits", "--images", 1, "--out", tmp_path / "a"
    )
    assert "few positions to fit to: 4 of 4 layers" in few.stdout
    enough = run(
        "apply", "own_net:make", tmp_path / "p.json", *own, "--data", "digits", "--images", 64, "--out", tmp_path / "b"
    )
    assert "errors: of responses" in enough.stdout
    assert "few positions" not in enough.stdout
    errors = []
    for option in ([], ["--relu"], ["--no-relu"]):
        told = answer("apply", "own_net:make", tmp_path / "p.json", *own, "--data", "digits", "--images", 16, *option,
                      "--out", tmp_path / "a")  # fmt: skip
        errors.append([edit["error"] for edit in told["edits"]])
    assert errors[0] == errors[1] != errors[2]


def test_accuracy_after_each_step_is_carried_from_folder_to_folder(run_folder: Path, tmp_path: Path) -> None:
    base, digits = run_folder / "baseline", ("--data", "digits")
    assert run("decompose", base, "--block", "dw-pw", "-o", tmp_path / "p.json").exit_code == 0
    made = answer("apply", base, tmp_path / "p.json", "--out", tmp_path / "a")
    assert made["new"]["macs"] < made["base"]["macs"]
    norms = answer("train", tmp_path / "a", *digits, "--recover", "bn", "--out", tmp_path / "b")
    assert norms["before"] == pytest.approx(answer("evaluate", tmp_path / "a", *digits))
    assert norms["final"] == pytest.approx(answer("evaluate", tmp_path / "b", *digits))
    trained = run("train", tmp_path / "b", *digits, "--teacher", base, "--epochs", 1, "--out", tmp_path / "c")
    table = trained.stdout.splitlines()
    assert table[0].rstrip() == "Accuracy after each step"
    assert [line.split()[0] for line in table[2:6]] == ["teacher", "decomposed", "BatchNorm", "recovered,"]
    told = answer("report", tmp_path / "c")["accuracy"]["c"]
    assert [step["epoch"] for step in told] == [None, None, None, 1]
    final = answer("evaluate", tmp_path / "c", *digits)["top1"]
    assert [step["top1"] for step in told] == [
        answer("evaluate", base, *digits)["top1"], norms["before"]["top1"], norms["final"]["top1"], final,
    ]  # fmt: skip
    assert (tmp_path / "c" / "report.html").is_file()
    assert final > norms["final"]["top1"]
    assert "FELL" not in trained.stderr


def test_training_that_helps_in_no_epoch_says_so_and_changes_nothing(run_folder: Path, tmp_path: Path) -> None:
    had = answer("evaluate", run_folder / "baseline", "--data", "digits")
    ruin = ("--data", "digits", "--lr", 2, "--epochs", 1)
    spoilt = run("train", run_folder / "baseline", *ruin, "--out", tmp_path, "-q")
    assert answer("evaluate", tmp_path, "--data", "digits") == had
    told = " ".join(spoilt.stderr.split())
    assert "TRAINING DID NOT HELP: no epoch of" in told
    assert f"{100 * had['top1']:.2f} % before" in told
    assert run("report", tmp_path).exit_code == 0
    assert "TRAINING DID NOT HELP" in (tmp_path / "report.html").read_text()


def test_report_is_rebuilt_from_the_records(run_folder: Path) -> None:
    result = run("report", run_folder)
    assert result.exit_code == 0
    assert "units per stage" in result.stdout
    assert (run_folder / "report.html").stat().st_size > 1_000_000
    (run_folder / "report.html").unlink()


# --- mistakes


def file(path: Path, text: str = "{}") -> Path:
    path.write_text(text)
    return path


def empty(path: Path) -> Path:
    path.mkdir()
    return path


APPLY, EVALUATE = ("apply", "resnet20"), ("evaluate", "resnet20", "--data")
MISTAKES = {
    "unknown model": (lambda t: ("analyze", "vgg61"), "did you mean vgg19, vgg16"),
    "unknown timm model": (lambda t: ("analyze", "timm:resnet19"), "did you mean resnet1"),
    "too small": (lambda t: ("analyze", "vgg16", "--input", "3,8,8"), "vanishes under its total stride"),
    "wrong channels": (lambda t: ("analyze", "own_net:make", "--input", "4,32,32"), "captured on input 4x32x32"),
    "missing weights": (lambda t: (*EVALUATE, "digits", "--weights", t / "no.pth"), "no such weights file"),
    "misfit weights": (lambda t: (*EVALUATE, "digits", "--weights", weights_of("resnet32", t)), "not in the model"),
    "plan for another": (lambda t: ("apply", "resnet32", plan(t), "--out", t / "o"), "was made for resnet20"),
    "corrupt plan": (lambda t: (*APPLY, file(t / "p.json", "{"), "--out", t / "o"), "p.json is not a plan"),
    "missing plan": (lambda t: (*APPLY, t / "p.json", "--out", t / "o"), "p.json: cannot be read"),
    "relu without images": (lambda t: (*APPLY, plan(t), "--relu", "--out", t / "o"), "give data, and neither"),
    "data and no method": (
        lambda t: (*APPLY, plan(t), "--method", "none", "--data", "digits", "--out", t / "o"),
        "leave data out",
    ),
    "a method and no data": (
        lambda t: ("decompose", "resnet20", "--max-macs", "0.5x", "--method", "svd"),
        "a method fits weights to data",
    ),
    "epochs and no data": (lambda t: ("expand", "mobilenet", "--epochs", 3), "without --data nothing is trained"),
    "fitted nowhere": (lambda t: (*APPLY, plan(t), "--device", "tpu", "--out", t / "o"), "use cpu or cuda"),
    "out is a file": (lambda t: (*APPLY, plan(t), "--out", file(t / "o")), "choose another folder"),
    "unknown data": (lambda t: (*EVALUATE, "digit"), "did you mean digits"),
    "missing data": (lambda t: (*EVALUATE, f"imagefolder:{t / 'no'}"), "no such folder"),
    "no classes": (lambda t: (*EVALUATE, f"imagefolder:{empty(t / 'i')}", "--input", "3,32,32"), "train"),
    "not parquet": (lambda t: (*EVALUATE, empty(t / "d")), "holds no train-*.parquet"),
    "too few classes": (lambda t: (*EVALUATE, "digits", "--classes", "5"), "the data has 10 classes"),
    "unknown block": (lambda t: ("decompose", "resnet20", "--block", "dw-wp"), "did you mean"),
    "unknown layer": (lambda t: ("decompose", "resnet20", "--keep", "conv9"), "has no layer 'conv9'"),
    "a layer cut short": (
        lambda t: ("decompose", "resnet20", "--keep", "lay1.2.conv2"),
        "no layer 'lay1.2.conv2'; did you mean layer1.2.conv2",
    ),
    "half an override": (lambda t: ("decompose", "resnet20", "--override", "conv1"), "write it like layer1.0.conv1=dw"),
    "less than ranks can": (
        lambda t: ("decompose", *SMALL, "--max-macs", "0.01x", "--data", "digits", "--images", 8),
        "plan without data, which knows cheaper blocks",
    ),
    "too tight": (lambda t: ("organize", "resnet20", "--max-macs", "0.1x"), "allow more MACs, parameters or latency"),
    "no folder to export to": (lambda t: ("export", "resnet20"), "give --out DIR"),
    "unknown format": (lambda t: ("export", "resnet20", "--format", "tflite", "--out", t), "Unknown export format"),
    "unknown runtime": (lambda t: ("bench", "resnet20", "--runtimes", "eagre"), "did you mean eager"),
    "no run": (lambda t: ("report", empty(t / "r")), "holds no run"),
    "unknown device": (lambda t: (*EVALUATE, "digits", "--device", "tpu"), "use cpu or cuda"),
    "classes of a file": (
        lambda t: ("analyze", file(t / "m.onnx"), "--classes", 7),
        "m.onnx: is a file, whose classes",
    ),
    "no onnx": (lambda t: ("analyze", file(t / "m.onnx")), "m.onnx: is not an ONNX file"),
    "onnx to edit": (lambda t: ("organize", file(t / "m.onnx")), "can only be analyzed and measured"),
    "page in no folder": (lambda t: ("analyze", "resnet20", "--html", file(t / "f") / "a.html"), "cannot be written"),
    "a folder for a plan": (lambda t: ("organize", "resnet20", "-o", t), "is a folder; give the name of a file"),
    "plan in no folder": (lambda t: ("organize", "resnet20", "-o", file(t / "f") / "a.json"), "cannot be written"),
}


def weights_of(net: str, folder: Path) -> Path:
    save_file(cs.build(net).state_dict(), folder / "w.safetensors")
    return folder / "w.safetensors"


def plan(folder: Path) -> Path:
    graph = cs.capture(cs.build("resnet20"), torch.zeros(1, 3, 32, 32), name="resnet20")
    return file(folder / "plan.json", cs.decompose(graph, block="dw-pw").to_json())


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_status_1(name: str, tmp_path: Path) -> None:
    command, told = MISTAKES[name]
    args = command(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run(*args)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    busy = re.compile(r"\w.*, (\d+:\d\d so far|about \d+:\d\d to go)$")  # on a machine that has more to do
    said = (line for line in result.stderr.splitlines() if not busy.match(line))
    lines = [line for line in said if "no --weights" not in line and not line.startswith("digits: ")]
    assert len(lines) == 1
    assert lines[0].startswith("convsmith: ")
    assert told in lines[0]
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}, "nothing half-written"


@pytest.mark.parametrize(
    "args",
    [
        ("frobnicate",),
        ("analyze",),
        ("analyze", "vgg16", "--input", "3,32"),
        ("analyze", "vgg16", "--input", "3,0,32"),
        ("analyze", "vgg16", "--count", "twice"),
        ("organize", "vgg16", "--max-macs", "much"),
        ("organize", "vgg16", "--max-macs", "-1x"),
        ("optimize", "vgg16", "--data", "digits"),
        ("train", "vgg16", "--data", "digits", "--out", "x", "--epochs", "-1"),
    ],
)
def test_wrong_usage_is_status_2(args: tuple[str, ...]) -> None:
    assert run(*args).exit_code == 2


def test_verbose_adds_the_trace() -> None:
    assert "Traceback" in run("analyze", "vgg61", "-v").stderr


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["convsmith.load.folder"], "save_tensors", full)
    result = run("apply", "resnet20", plan(tmp_path), "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(ignored: bool, tmp_path: Path) -> None:
    """Also where SIGINT is ignored, as a shell has it for what it starts in the background."""
    command = [
        sys.executable, "-c", "from convsmith.cli import main; main()",
        "optimize", SETTINGS.model, "--data", "digits", "--epochs", "3", "--runtimes", "eager", "--format", "pt2",
        "--out", str(tmp_path / "r"), "--json", str(tmp_path / "told.json"),
    ]  # fmt: skip
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        options = {"cwd": Path(__file__).parents[1], "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = subprocess.Popen(command, **options)
    finally:
        signal.signal(signal.SIGINT, before)
    assert child.stderr is not None
    said = next(line for line in child.stderr if "epoch" in line)  # read as it comes, not looked for now and then
    assert "baseline epoch 1/3" in said
    os.kill(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 1, told
    assert told.splitlines()[-1].startswith("convsmith: interrupted")
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("*.part"))
    if ignored:
        return
    again = subprocess.run(command, check=False, **options)
    assert again.returncode == 0, again.stderr
    assert "baseline epoch 1/3" not in again.stderr
    record = json.loads((tmp_path / "told.json").read_text())
    assert Path(record["report"]).is_file()
    assert record["optimized"]["macs"] < record["baseline"]["macs"]
    assert 0 <= record["optimized"]["top1"] <= 1
    assert {cell["model"] for cell in record["latency"]} == {"baseline", "optimized"}
