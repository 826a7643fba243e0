"""Evaluations of a net after each step: kept beside it, carried on, and begun anew where they are of something else."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.load import Loaded, Origin
from convsmith.optimize import ORIGINAL, Evaluated, Evaluations, made_by, read_evaluations
from convsmith.plan import Edit, Merge, Plan, Remove, Repeat, Replace, Totals
from convsmith.train import Evaluation

DATA = cs.load_data("digits")
SEEN = Evaluated("seen", 0.5, 0.9, 1.0, 360)


def net(seed: int = 0) -> Loaded:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    return Loaded(model, Origin("own:net", (3, 32, 32), trained=True))


def plan(*edits: Edit) -> Plan:
    totals = Totals((), 0.0, 1, 1)
    return Plan("net", (3, 32, 32), "", totals, edits, ())


REPEAT, REMOVE = Repeat(("a",), 1, "", ""), Remove(("a",), "", "")
REPLACE = Replace("a", "dw-pw", "", (2, 1), quality=True, compact=True)
MERGE = Merge("a", (), "b", False, True, "", (1, 2))


@pytest.mark.parametrize(
    ("plans", "word"),
    [
        ([], "original"), ([plan()], "original"), ([plan(REPEAT)], "organized"), ([plan(REMOVE)], "organized"),
        ([plan(MERGE)], "expanded"), ([plan(REPLACE)], "decomposed"), ([plan(MERGE), plan(REPLACE)], "decomposed"),
        ([plan(REPLACE), plan(REPEAT)], "decomposed"), ([plan(REPEAT), plan()], "organized"),
    ],
)  # fmt: skip
def test_what_plans_made_of_a_net_in_one_word(plans: list[Plan], word: str) -> None:
    assert made_by(plans) == word


def test_steps_are_evaluated_in_order_and_come_back_from_the_folder(tmp_path: Path) -> None:
    log, loaded = Evaluations(DATA, "cpu"), net()
    log.begin(loaded, teacher=net(1).model)
    log.renormed(loaded.model, kept=False)
    final = Evaluation(0.9, 1.0, 0.3, 360)
    log.finish("recovered", final)
    log.finish("recovered", final)  # as where a finished run comes back at once
    log.write(tmp_path)
    told = read_evaluations(tmp_path)
    assert [each.label for each in told] == ["teacher", ORIGINAL, "BatchNorm re-estimated (not kept)", "recovered"]
    for each, model in ((told[0], net(1).model), (told[1], loaded.model), (told[2], loaded.model)):
        found = asdict(cs.evaluate(model, DATA.test, device="cpu"))
        assert {name: value for name, value in asdict(each).items() if name in found} == pytest.approx(found)


def test_statistics_that_are_kept_are_evaluated() -> None:
    log, loaded = Evaluations(DATA, "cpu"), net()
    log.begin(loaded)
    log.renormed(net(1).model, kept=True)
    assert (log.told[1].when, log.told[1].kept) == ("BatchNorm re-estimated", True)
    assert log.told[1].loss == pytest.approx(cs.evaluate(net(1).model, DATA.test, device="cpu").loss)


def test_what_is_known_is_carried_on_where_it_is_of_these_weights_and_data() -> None:
    first = Evaluations(DATA, "cpu")
    first.begin(net())
    (own,) = first.told
    for known, whens in (
        ([SEEN, replace(own, when="trained")], ["seen", "trained"]),  # it ends with this net
        ([SEEN, replace(own, when="trained", loss=1.001 * own.loss)], ["seen", "trained"]),  # on another device
        ([own, SEEN], ["original"]),
        ([SEEN, replace(own, images=100)], ["original"]),
        ([], ["original"]),
    ):
        log = Evaluations(DATA, "cpu", known)
        log.begin(net())
        assert [each.when for each in log.told] == whens
    log = Evaluations(DATA, "cpu", [replace(SEEN, when="teacher"), own])
    log.begin(net(), teacher=net(1).model)
    assert [each.when for each in log.told] == ["teacher", "original"], "of this teacher, and once"
    assert log.told[0].loss != SEEN.loss


def test_a_folder_without_evaluations_has_none_and_a_spoiled_file_is_named(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path) == ()
    (tmp_path / "evaluations.json").write_text("[")
    with pytest.raises(ConvsmithError, match=r"evaluations\.json: cannot be read as evaluations"):
        read_evaluations(tmp_path)
