"""Plans as JSON: any plan comes back equal, and a text that is no plan is refused in one sentence."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convsmith.errors import ConvsmithError
from convsmith.plan import Merge, Plan, Refusal, Remove, Repeat, Replace, Totals

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 10**15)
TEXT = st.text(max_size=12)
UNIT = st.lists(TEXT, min_size=1, max_size=3).map(tuple)
TOTALS = st.builds(Totals, st.lists(COUNT, max_size=5).map(tuple), NUMBER, COUNT, COUNT)
CHANGE = st.tuples(COUNT, COUNT)
EDIT = st.one_of(
    st.builds(Repeat, UNIT, st.integers(1, 99), TEXT, TEXT),
    st.builds(Remove, UNIT, TEXT, TEXT),
    st.builds(
        Replace, TEXT, TEXT, TEXT, CHANGE, st.booleans(), st.none(), st.none() | NUMBER, params=CHANGE
    ),
    st.builds(
        Merge, TEXT, UNIT, TEXT, st.booleans(), st.booleans(), TEXT, st.tuples(COUNT, COUNT)
    ),
)  # fmt: skip
PLAN = st.builds(
    Plan,
    model=TEXT,
    input=st.lists(st.integers(1, 96), min_size=1, max_size=4).map(tuple),
    fingerprint=TEXT,
    base=TOTALS,
    edits=st.lists(EDIT, max_size=4).map(tuple),
    refusals=st.lists(st.builds(Refusal, TEXT, TEXT), max_size=2).map(tuple),
)


@given(PLAN)
@settings(max_examples=100, deadline=None)
def test_round_trip(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert [type(edit) for edit in again.edits] == [type(edit) for edit in plan.edits]
    assert hash(again) == hash(plan)


EXAMPLE = Plan(
    "vgg11",
    (3, 32, 32),
    "0123456789abcdef",
    Totals((1, 2), 8.5, 100, 2000),
    (
        Repeat(("features.0", "features.1"), 2, "stage1", "more gain", (10, 30), (200, 600), 0.75),
        Remove(("features.4",), "stage2", "less gain", (20, 0), (300, 0), -0.25),
        Replace("features.8", "dw-pw:r=2", "cheaper", (900, 300), True, False, 0.25, params=(40, 20)),
    ),
    (Refusal("features.2", "it is already depthwise"),),
    ("stage1", "stage2"),
)


def test_what_stands_in_the_file() -> None:
    record = json.loads(EXAMPLE.to_json())
    assert list(record) == [
        "model", "input", "fingerprint", "stages", "asked", "base_ms", "base", "new", "latency_ms", "edits", "refusals",
    ]  # fmt: skip
    assert record["base"] == {"blocks": [1, 2], "gain": 8.5, "params": 100, "macs": 2000, "value": 0.0}
    assert record["edits"][0] == {
        "kind": "repeat", "unit": ["features.0", "features.1"], "copies": 2, "stage": "stage1", "reason": "more gain",
        "params": [10, 30], "macs": [200, 600], "gain": 0.75, "value": 0.0, "latency_ms": None,
            "start": "copy",
    }  # fmt: skip
    assert record["edits"][2] == {
        "kind": "replace", "layer": "features.8", "block": "dw-pw:r=2", "reason": "cheaper", "macs": [900, 300],
        "quality": True, "compact": False, "error": 0.25, "window": [], "params": [40, 20], "output_error": None,
        "latency_ms": None,
    }  # fmt: skip
    assert record["refusals"] == [{"layer": "features.2", "reason": "it is already depthwise"}]


def test_totals_follow_from_the_edits() -> None:
    assert EXAMPLE.new == Totals((3, 1), 9.0, 100 + 20 - 20 - 20, 2000 + 400 - 300 - 600)
    assert replace(EXAMPLE, edits=EXAMPLE.edits[1:]).new == Totals((1, 1), 8.25, 60, 1100)
    assert replace(EXAMPLE, edits=()).new == EXAMPLE.base
    assert EXAMPLE.latency_ms is None
    timed = replace(EXAMPLE.edits[2], latency_ms=(3.0, 1.0))
    assert replace(EXAMPLE, edits=(timed,), base_ms=10.0).latency_ms == (10.0, 8.0)


def test_totals_in_the_file_are_told_and_not_read() -> None:
    record = json.loads(EXAMPLE.to_json())
    assert record["new"] == {"blocks": [3, 1], "gain": 9.0, "params": 80, "macs": 1500, "value": 0.0}
    record["new"]["macs"] = 7
    del record["edits"][2]
    plan = Plan.from_json(json.dumps(record))
    assert plan == replace(EXAMPLE, edits=EXAMPLE.edits[:2])
    assert plan.new.macs == 2100


def test_an_edit_written_by_hand_needs_a_layer_and_a_block() -> None:
    record = json.loads(EXAMPLE.to_json())
    record["edits"] = [{"kind": "replace", "layer": "features.8", "block": "cp:r=16"}]
    assert Plan.from_json(json.dumps(record)).edits == (Replace("features.8", "cp:r=16", "by hand"),)


def test_a_plan_shows_itself() -> None:
    assert repr(EXAMPLE) == "Plan(vgg11: 3 edits, 1 refusals, 0.75x MACs, 0.80x parameters)"
    page = EXAMPLE._repr_html_()
    assert "<td" in page
    assert "features.8" in page
    assert "dw-pw:r=2" in page


def test_plans_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        EXAMPLE.edits = ()  # type: ignore[misc]


def test_a_file_without_errors_of_carried_weights_is_read() -> None:
    record = json.loads(EXAMPLE.to_json())
    del record["edits"][2]["error"]
    edit = Plan.from_json(json.dumps(record)).edits[2]
    assert isinstance(edit, Replace)
    assert edit.error is None


def test_windows_are_read_and_a_file_without_them_too() -> None:
    record = json.loads(EXAMPLE.to_json())
    del record["edits"][2]["window"]
    assert Plan.from_json(json.dumps(record)) == EXAMPLE
    record["edits"][2]["window"] = ["features.8", "features.12"]
    plan = Plan.from_json(json.dumps(record))
    edit = plan.edits[2]
    assert isinstance(edit, Replace)
    assert edit.window == ("features.8", "features.12")
    assert Plan.from_json(plan.to_json()) == plan


# What is done to the record, and what is said: where, then why
Damage = Callable[[dict[str, Any]], object]
CORRUPT: dict[str, tuple[Damage, str]] = {
    **{
        f"no {name}": (lambda record, name=name: record.pop(name), rf"{name}: Field required")
        for name in ("model", "input", "fingerprint", "base", "edits", "refusals")
    },
    "an extra field": (lambda r: r.update(more=1), "more: Unexpected"),
    "an extra field of an edit": (lambda r: r["edits"][1].update(more=1), r"edits\.1\.remove\.more: Unexpected"),
    "no field of an edit": (lambda r: r["edits"][0].pop("unit"), r"edits\.0\.repeat\.unit: Field required"),
    "no kind": (lambda r: r["edits"][0].pop("kind"), r"edits\.0: .*'kind'"),
    "another kind": (lambda r: r["edits"][0].update(kind="swap"), r"edits\.0: Input tag 'swap'"),
    "text for a number": (lambda r: r["base"].update(params="many"), r"base\.params: .*integer"),
    "a number for text": (lambda r: r.update(model=3), r"model: .*string"),
    "text for a list": (lambda r: r.update(input="3,32,32"), r"input: "),
    "a list for an edit": (lambda r: r.update(edits=[[]]), r"edits\.0: "),
    "null for totals": (lambda r: r.update(base=None), r"base: "),
    "half a copy": (lambda r: r["edits"][0].update(copies=1.5), r"edits\.0\.repeat\.copies: "),
    "no copy": (lambda r: r["edits"][0].update(copies=0), r"edits\.0\.repeat\.copies: .*greater than or equal to 1"),
    "an empty unit": (lambda r: r["edits"][0].update(unit=[]), r"edits\.0\.repeat\.unit: .*at least 1"),
    "three numbers of MACs": (lambda r: r["edits"][2].update(macs=[1, 2, 3]), r"edits\.2\.replace\.macs"),
    "an empty input": (lambda r: r.update(input=[]), r"input: .*at least 1"),
    "a negative input": (lambda r: r.update(input=[3, -32, 32]), r"input\.1: .*greater than or equal to 1"),
}


@pytest.mark.parametrize(("change", "where"), CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_plan_is_refused(change: Damage, where: str) -> None:
    record = json.loads(EXAMPLE.to_json())
    change(record)
    with pytest.raises(ConvsmithError, match=rf"^plan\.json is not a plan: {where}.*; write one with") as caught:
        Plan.from_json(json.dumps(record), source="plan.json")
    assert "\n" not in str(caught.value)


def test_more_stages_than_are_counted_are_refused() -> None:
    text = EXAMPLE.to_json().replace('"stage1",', '"stage0", "stage1",', 1)
    with pytest.raises(ConvsmithError, match=r"^plan\.json: Plan: it names 3 stages and counts the units of 2\.$"):
        Plan.from_json(text, source="plan.json")


@pytest.mark.parametrize("text", ["", "{", "no plan", "[]", "3", "null", EXAMPLE.to_json()[:-5]])
def test_a_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ConvsmithError, match=r"^the plan is not a plan: the text: .*; write one with") as caught:
        Plan.from_json(text)
    assert "\n" not in str(caught.value)
