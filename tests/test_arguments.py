"""Wrong types from Python: every verb tells of them in a sentence, and none in the words of a library."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import convsmith as cs
from convsmith.plan import Plan, Repeat, Replace

X = torch.zeros(1, 3, 32, 32)
IMAGES = torch.rand(2, 3, 32, 32)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return cs.build("resnet20")


@pytest.fixture(scope="module")
def graph(net: torch.nn.Module) -> cs.Graph:
    return cs.capture(net, X)


VERBS = [name for name in cs.__all__ if not isinstance(getattr(cs, name), type)]


@pytest.mark.parametrize("name", VERBS)
def test_the_first_argument_of_every_verb_is_looked_at(name: str) -> None:
    rest: dict[str, list[Any]] = {
        "capture": [X], "apply": [3], "rewrite": [3], "advise": [3], "calibrate": [IMAGES], "optimize": [X],
        "measure_latency": [3], "evaluate": [3], "train": [3], "reestimate_norms": [3], "export": ["x.onnx"],
        "recover": [X, IMAGES],
    }  # fmt: skip
    more = [3] if name == "search_blocks" else rest.get(name, [])
    with pytest.raises(cs.ConvsmithError, match=rf"^{name}: \w+ is 3\.5, of type float; give .+\.$"):
        getattr(cs, name)(3.5, *more, **({"data": IMAGES} if name == "front" else {}))


WRONG: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "an input that is a list": (
        lambda n, g: cs.capture(n, [1, 2]),
        "tensors, alone or in lists and dictionaries, but got list",
    ),
    "a second input": (lambda n, g: cs.capture(n, X, 3), "takes 2 positional arguments but 3 were given"),
    "no example": (lambda n, g: cs.score(n), "without an example input"),
    "an alpha in quotes": (lambda n, g: cs.score(g, alpha="3"), "alpha is '3', of type str; give a number"),
    "a flag for a number": (lambda n, g: cs.score(g, alpha=True), "alpha is True, of type bool; give a number"),
    "blocks in quotes": (lambda n, g: cs.organize(g, blocks="9"), "give a whole number or None"),
    "blocks in part": (lambda n, g: cs.organize(g, blocks=9.5), "give a whole number or None"),
    "a limit in a list": (lambda n, g: cs.organize(g, max_macs=[1]), "max_macs is [1], of type list"),
    "a limit that is none": (lambda n, g: cs.organize(g, max_macs="much"), "max_macs: 'much' cannot be read"),
    "one layer to keep": (lambda n, g: cs.decompose(g, keep="conv1"), "give several in a row, each a text"),
    "layers to keep by number": (lambda n, g: cs.decompose(g, keep=[1]), "give several in a row, each a text"),
    "overrides in a list": (lambda n, g: cs.decompose(g, overrides=["a"]), "a mapping of a text to a text"),
    "overrides by block": (lambda n, g: cs.decompose(g, overrides={"conv1": 3}), "a mapping of a text to a text"),
    "a block by number": (lambda n, g: cs.decompose(g, block=3), "block is 3, of type int; give a text"),
    "data by name": (lambda n, g: cs.decompose(g, model=n, data="digits", max_macs=0.5), "data is 'digits'"),
    "a graph to apply to": (lambda n, g: cs.apply(g, cs.decompose(g)), "model is of type Graph; give a Module"),
    "plan and model swapped": (lambda n, g: cs.apply(cs.decompose(g), n), "model is of type Plan; give a Module"),
    "a plan's path": (lambda n, g: cs.apply(n, "plan.json"), "plan is 'plan.json', of type str; give a Plan"),
    "two sides": (lambda n, g: cs.build("resnet20", input=(3, 32)), "give 3 in a row, each a whole number or None"),
    "a shape as text": (lambda n, g: cs.build("resnet20", input="3,32,32"), "give 3 in a row"),
    "data for a split": (lambda n, g: cs.evaluate(n, cs.load_data("digits")), "split is of type Data; give a Split"),
    "data by name to train on": (lambda n, g: cs.train(n, "digits"), "data is 'digits', of type str; give a Data"),
    "epochs in quotes": (lambda n, g: cs.Recipe(epochs="3"), "Recipe: epochs is '3', of type str"),
    "a batch by itself": (lambda n, g: cs.bench([n], batches=1), "give several in a row, each a whole number"),
    "a model by name": (lambda n, g: cs.bench(["resnet20"]), "models is ['resnet20'], of type list"),
    "a plan that is a record": (lambda n, g: cs.Plan.from_json({}), "not dict"),
    "a plan of parts that are none": (lambda n, g: Plan("x", 3, "", 3, (), ()), "Plan: "),
    "an edit by number": (lambda n, g: Replace(3, "dw-pw"), "Replace: 0: got 3, of type int"),
    "no copies": (lambda n, g: Repeat(("a",), 0), "Repeat: 1: got 0, of type int"),
    "edits replaced by words": (lambda n, g: replace(cs.decompose(g), edits="none"), "Plan: edits: got 'none'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_type_is_told_in_a_sentence(name: str, net: torch.nn.Module, graph: cs.Graph) -> None:
    call, told = WRONG[name]
    with pytest.raises(cs.ConvsmithError) as error:
        call(net, graph)
    assert told in str(error.value)
    assert str(error.value).endswith(".")
    assert "http" not in str(error.value)
    assert "\n" not in str(error.value)


def test_what_python_tells_well_itself_is_left_to_it(net: torch.nn.Module) -> None:
    with pytest.raises(TypeError, match=r"optimize\(\) missing 1 required positional argument: 'example'"):
        cs.optimize(net)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'blok'"):
        cs.decompose(net, X, blok="dw-pw")  # type: ignore[call-arg]


def test_numbers_of_other_kinds_and_texts_for_paths_are_taken(graph: cs.Graph, tmp_path: Path) -> None:
    one, half = torch.tensor(3).numpy()[()], torch.tensor(0.5).numpy()[()]
    assert cs.score(graph, alpha=int(one)).alpha == 3
    assert cs.organize(graph, blocks=one + 6).new.blocks
    assert cs.decompose(graph, max_macs=half).new.macs <= 0.5 * graph.macs
    with pytest.raises(cs.ConvsmithError, match="no such weights file"):
        cs.load("resnet20", weights=str(tmp_path / "no.pth"))  # type: ignore[arg-type]


def test_records_have_a_short_repr_and_a_table_for_notebooks(graph: cs.Graph) -> None:
    scores, plan = cs.score(graph), cs.decompose(graph)
    for record, told in ((graph, "20 layers"), (scores, "gain 34.545"), (plan, "18 edits")):
        assert told in repr(record)
        assert len(repr(record)) <= 100
        assert "layer3.2.conv2" in record._repr_html_()
