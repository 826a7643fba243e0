"""Accuracy after each step: records in the order of what was done, chart and table, and the page of a net's folder."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from test_report import read, text

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.load import Loaded, Origin, save
from convsmith.optimize import Evaluated
from convsmith.report import accuracy_record, accuracy_table
from convsmith.report.charts import accuracy
from convsmith.report.records import NetRecords, Step, read_net
from convsmith.train import Epoch

NORMS = "BatchNorm re-estimated"


def told(*whens: str, kept: bool = True) -> tuple[Evaluated, ...]:
    """Evaluations whose accuracies are .5, .6, .7 and so on."""
    return tuple(Evaluated(when, 0.5 + place / 10, 0.9, 1.0, 360, kept) for place, when in enumerate(whens))


def net(evaluations: tuple[Evaluated, ...], epochs: int, name: str = "run") -> NetRecords:
    history = [Epoch(n, 0.1, 1.0, 0.5, 0.4, 0.8 + n / 100, 0.99, 1.0) for n in range(1, epochs + 1)]
    return NetRecords(name, None, tuple(history), evaluations, ())


# evaluations, epochs: names of the steps, and top-1 of each in percent
STEPS = {
    "trained afresh": (told("trained"), 2, ["epoch 1", "epoch 2"], [81, 82]),
    "recovered": (
        told("teacher", "decomposed", NORMS, "recovered"), 2,
        ["decomposed", NORMS, "epoch 1", "epoch 2"], [60, 70, 81, 82],
    ),
    "norms alone": (told("decomposed", NORMS), 0, ["decomposed", NORMS], [50, 60]),
    "norms not kept": (told("decomposed", NORMS, kept=False), 0,
                       ["decomposed (not kept)", f"{NORMS} (not kept)"], [50, 60]),
    "stopped in training": (told("decomposed", NORMS), 1, ["decomposed", NORMS, "epoch 1"], [50, 60, 81]),
    "of another folder's training": (
        told("decomposed", "recovered", NORMS), 0,
        ["decomposed", "recovered", NORMS], [50, 60, 70],
    ),
    "norms behind a training": (told("trained", NORMS), 1, ["epoch 1", NORMS], [81, 60]),
    "trained twice": (told("trained", "recovered"), 1, ["trained", "epoch 1"], [50, 81]),
    "as it came": (told("original"), 0, ["original"], [50]),
    "nothing": ((), 0, [], []),
}  # fmt: skip


@pytest.mark.parametrize(("evaluations", "epochs", "names", "top1"), STEPS.values(), ids=STEPS)
def test_steps_stand_in_the_order_of_what_was_done(
    evaluations: tuple[Evaluated, ...], epochs: int, names: list[str], top1: list[int]
) -> None:
    records = net(evaluations, epochs)
    assert [step.name for step in records.steps] == names
    assert [100 * step.top1 for step in records.steps] == pytest.approx(top1)
    shown = accuracy_record([records])["run"]
    assert [each["name"] for each in shown] == ["teacher"] * (records.teacher is not None) + names


def test_the_table_tells_a_training_as_one_step_and_changes_from_the_first() -> None:
    lines = text(accuracy_table(net(told("teacher", "decomposed", NORMS, "recovered"), 12))).splitlines()
    assert lines[0].rstrip() == "Accuracy after each step"
    rows = [" ".join(line.split()) for line in lines[2:]]
    assert rows == [
        "teacher 50.00 % 90.00 % 1.0000",
        "decomposed 60.00 % +10.00 pt 90.00 % 1.0000",
        "BatchNorm re-estimated 70.00 % +20.00 pt 90.00 % 1.0000",
        "recovered, 12 epochs 80.00 % +30.00 pt 90.00 % 1.0000",
    ]


def test_the_chart_puts_steps_before_epochs_and_a_net_that_only_was_evaluated_across() -> None:
    records = net(told("decomposed", NORMS, "recovered"), 16)
    drawn = accuracy({"baseline": [Step("original", 0.9, 1.0, 0.1)], "optimized": records.steps})
    (curve,) = drawn["data"]
    assert curve["x"] == [-3, -1, *range(1, 17)], "a step is as wide as two of sixteen epochs"
    assert curve["y"] == pytest.approx([50, 60, *range(81, 97)])
    assert curve["text"][:3] == ["decomposed", NORMS, "epoch 1"]
    (line,) = drawn["layout"]["shapes"]
    assert (line["y0"], line["line"]["dash"]) == (90, "dash")
    assert drawn["layout"]["annotations"][0]["text"] == "baseline 90.00 %"
    axis = drawn["layout"]["xaxis"]
    ticks = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    assert (ticks[-3], ticks[-1], ticks[1]) == ("decomposed", "BatchNorm<br>re-estimated", "1")
    assert len(ticks) <= 12
    assert axis["title"]["text"] == "epoch"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `apply` and `train` leave, without having trained."""
    torch.manual_seed(0)
    model = cs.build("resnet20", classes=10)
    plan = cs.decompose(cs.capture(model, torch.zeros(1, 3, 32, 32), name="resnet20"), block="dw-pw")
    origin = Origin("resnet20", (3, 32, 32), 10, trained=True)
    save(Loaded(cs.apply(model, plan), origin, (plan,)), tmp_path)
    records = net(told("teacher", "decomposed", NORMS, "recovered"), 3)
    (tmp_path / "evaluations.json").write_text(json.dumps([asdict(each) for each in records.evaluations]))
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(asdict(each)) + "\n" for each in records.history))
    return tmp_path


def test_the_page_of_a_folder_tells_accuracy_costs_and_the_plan(folder: Path) -> None:
    page = cs.report(folder).read_text()
    words = " ".join(read(page).words.split())
    for part in (
        "resnet20, decomposed", "Accuracy after each step", "On 360 test images.", "+30.00 points, teacher 50.00 %",
        "recovered, 3 epochs 80.00 % +30.00 pt", "Every epoch", "epoch 2 82.00 %", "Blocks: the plan", "0.158x",
        "input 3, 32, 32",
    ):  # fmt: skip
        assert part in words, part
    assert read(page).loads == ["data:,"]
    figures = json.loads(page.partition("const FIGURES = ")[2].partition(";\n")[0])
    assert [trace["name"] for trace in figures["accuracy"]["data"]] == [folder.name]
    assert figures["accuracy"]["layout"]["annotations"][0]["text"] == "teacher 50.00 %"


def test_a_folder_that_was_only_applied_has_a_page_without_a_chart(folder: Path) -> None:
    for name in ("evaluations.json", "history.jsonl"):
        (folder / name).unlink()
    page = cs.report(folder).read_text()
    assert "Blocks: the plan" in read(page).words
    assert "Accuracy" not in read(page).words
    assert "const FIGURES = {};" in page


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', '[{"when": "decomposed"}]'])
def test_evaluations_that_cannot_be_read_are_named(folder: Path, content: str) -> None:
    (folder / "evaluations.json").write_text(content)
    with pytest.raises(ConvsmithError, match=r"evaluations\.json: cannot be read as") as error:
        read_net(folder)
    assert "\n" not in str(error.value)
