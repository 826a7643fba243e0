"""The tables of the documentation hold what is counted."""

import importlib.util
import json
import re
from pathlib import Path
from statistics import median
from types import ModuleType

import pytest

from convsmith.blocks import parse_block
from convsmith.kernels.spec import ConvSpec
from convsmith.planning.candidates import try_block
from convsmith.planning.search.search import search_blocks

DOCS = Path(__file__).parent.parent / "docs"


RESULTS = DOCS.parent / "bench" / "results"


def rows(name: str = "blocks") -> list[list[str]]:
    text = (DOCS / "blocks.md").read_text()
    table = text[text.index(f"<!-- {name} -->") : text.index(f"<!-- /{name} -->")].splitlines()[3:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in table]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_of_the_blocks(row: list[str]) -> None:
    name, _, macs, parameters, sees, weights = row
    spec, size = ConvSpec(64, 64), (16, 16)
    trial = try_block(parse_block(name).on_map(spec, size), spec, size)
    assert (f"{trial.macs / spec.macs(size):.3f}", str(trial.params)) == (macs, parameters)
    assert f"{trial.share:.3g}" == sees
    assert weights == ("carried" if trial.block.carries else "untrained")


def searches() -> list[list[str]]:
    text = (DOCS / "blocks.md").read_text()
    table = text[text.index("<!-- search -->") : text.index("<!-- /search -->")].splitlines()[3:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in table]


@pytest.mark.parametrize("row", searches(), ids=lambda row: f"{row[0]} {row[4]}")
def test_a_row_of_the_search(row: list[str]) -> None:
    name, side, window, count, text, cost = row
    inputs, outputs, kernel = map(int, re.findall(r"(\d+) to (\d+), (\d+)x", name)[0])
    conv = ConvSpec(inputs, outputs, (kernel, kernel), padding=(kernel // 2, kernel // 2))
    found = search_blocks(conv, int(window), size=(int(side), int(side)))
    (own,) = (each for each in found if str(each.block) == text)
    assert (str(len(found)), f"{own.cost:.3f}") == (count, cost)
    assert own == next(each for each in found if each.copies == 1 and len(each.kernels) == len(own.kernels))


@pytest.mark.parametrize("row", rows("repeated"), ids=lambda row: f"{row[0]} {row[2]}")
def test_a_row_of_repeated_blocks(row: list[str]) -> None:
    name, side, count, text, cost = row
    conv = ConvSpec(*map(int, re.findall(r"(\d+) to (\d+), 3x3", name)[0]))
    found = search_blocks(conv, int(count), size=(int(side), int(side)))
    cheapest = next(each for each in found if each.copies == int(count) and each.block.name == "dw-rpw")
    assert (str(cheapest.block), f"{cheapest.cost:.3f}") == (text, cost)


def test_the_nets_are_those_of_their_result_file() -> None:
    cells = json.loads((RESULTS / "blocks.json").read_text())["cells"]
    assert {cell["outcome"] for cell in cells} == {"applied", "refused"}
    assert len(rows("applied")) == len({(cell["block"], cell["limit"]) for cell in cells})
    for block, limit, nets, layers, quality, in_a_row, macs, failed in rows("applied"):
        own = [c for c in cells if (c["block"], c["limit"]) == (block, float(limit[:-1]) if limit else None)]
        done = [cell for cell in own if cell["replaced"]]
        assert nets == f"{len(done)} of {len(own)}"
        sums = [sum(cell[key] for cell in done) for key in ("replaced", "quality", "in_a_row")]
        assert (layers, quality, in_a_row) == tuple(map(str, sums))
        shares = sorted(cell["macs"] for cell in done)
        assert macs == f"{shares[0]:.3f} to {shares[-1]:.3f}"
        assert failed == "0"


def test_the_times_of_rolling_pointwise_are_those_measured() -> None:
    cells = json.loads((RESULTS / "rpw.json").read_text())["cells"]
    found = {(*cell["what"].values(),): f"{cell['times']['rolling']['ratio']:.2f}" for cell in cells}
    assert rows("rpw")
    for channels, side, groups, overlap, *ratios in rows("rpw"):
        what = int(channels), int(side), int(groups), float(overlap), "float32", "contiguous"
        assert [found[*what, False], found[*what, True]] == ratios


def test_the_share_of_rolling_pointwise_within_its_aim_is_that_measured() -> None:
    cells = json.loads((RESULTS / "rpw.json").read_text())["cells"]
    kinds = {tuple(str(cell["what"][name]) for name in ("overlap", "layout", "dtype")) for cell in cells}
    assert {tuple(row[:3]) for row in rows("rpw kinds")} == kinds
    for overlap, layout, dtype, met, middle, most in rows("rpw kinds"):
        kind = float(overlap), layout, dtype
        found = [
            cell["times"]["rolling"]["ratio"]
            for cell in cells
            if (cell["what"]["overlap"], cell["what"]["layout"], cell["what"]["dtype"]) == kind
        ]
        assert met == f"{sum(ratio <= 1.2 for ratio in found)} of {len(found)}"
        assert (middle, most) == (f"{median(found):.2f}", f"{max(found):.2f}")


def test_the_times_and_megabytes_of_fits_are_those_measured() -> None:
    spec = importlib.util.spec_from_file_location("fit_speed", RESULTS.parent / "fit_speed.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    page, found = (DOCS / "fits.md").read_text(), json.loads((RESULTS / "fit_speed.json").read_text())
    assert f"<!-- fit-speed -->\n{bench.table(found['seconds and megabytes'])}<!-- /fit-speed -->" in page


def bench_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RESULTS.parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_metric_are_those_of_its_result_file() -> None:
    bench, found = bench_module("metric_page"), json.loads((RESULTS / "metric.json").read_text())
    page = (DOCS / "metric.md").read_text()
    assert len(bench.TABLES) == 7
    for name, table in bench.TABLES.items():
        assert f"<!-- {name} -->\n{bench.markdown(table(found))}<!-- /{name} -->" in page


def test_the_table_of_what_an_analysis_takes_holds_the_result_file() -> None:
    made = bench_module("analyze").table(json.loads((RESULTS / "analyze.json").read_text()))
    assert f"<!-- analyze -->\n{made}<!-- /analyze -->" in (DOCS / "metric.md").read_text(), "bench/analyze.py --page"


def test_what_the_page_on_the_metric_says_of_its_tables_is_so() -> None:
    found = json.loads((RESULTS / "metric.json").read_text())
    assert found["table"] == found["table"] | {"nets": 3**8, "params equal": True, "MACs equal": True}
    assert found["bins"] == 20
    assert len(found["halves"]) == 5
    for half in found["halves"]:  # value: the power that the product has, on a half that nothing was fitted on
        other = half["other half, the product's"]
        assert other["kendall"] >= 0.72
        assert other["regret"] <= 0.40
    assert all(half["other half, the product's"]["kendall"] >= 0.77 for half in found["halves, exact"])
    scores = {name: told["kendall"] for name, told in found["scores"].items()}
    assert max(scores["gain"], scores["MACs"], scores["parameters"]) < scores["value"] < min(found["run against run"])
    regnets = found["regnets"]["kendall"]
    assert max(regnets["gain"], regnets["value"]) < regnets["macs"], "it fails where widths vary"
    paper = {("vgg16", 32): [5, 4, 2, 1, 1], ("vgg19", 32): [6, 4, 3, 2, 1], ("resnet50", 32): [5, 5, 4, 2]}
    free = {(row["net"], row["input"]): row for row in found["optima"] if row["MACs"] is None}
    for net, blocks in paper.items():
        assert free[net]["by gain"] == free[net]["by value"] == blocks
    for row in found["optima"]:
        assert row["gains"][0] >= row["gains"][1]
        assert row["values"][0] <= row["values"][1]


def test_the_page_on_several_processes_holds_what_was_measured() -> None:
    bench, found = bench_module("scale_page"), json.loads((RESULTS / "scale.json").read_text())
    page = (DOCS / "scale.md").read_text()
    for name, table in bench.TABLES.items():
        told = page[page.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n") : page.index(f"<!-- /{name} -->")]
        assert told == bench.markdown(table(found)), f"run bench/scale_page.py: {name} is of other results"


def test_the_table_of_nets_that_were_tried_is_that_of_its_result_file() -> None:
    bench, found = bench_module("coverage_page"), json.loads((RESULTS / "coverage.json").read_text())
    page = (DOCS / "will-it-work.md").read_text()
    assert f"<!-- coverage -->\n{bench.table(found['families'])}<!-- /coverage -->" in page
    assert {net["outcome"] for net in found["nets"]} == {"analyzed"}
    assert sum(family["nets"] for family in found["families"].values()) == len(found["nets"])


@pytest.mark.parametrize("page", ["zoo.md", "will-it-work.md"])
def test_the_code_of_a_page_runs(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_the_page_of_plans_for_onnx_runtime_holds_the_result_file() -> None:
    made = bench_module("deploy").page(
        *(json.loads((RESULTS / f"{name}.json").read_text()) for name in ("deploy", "latency"))
    )
    assert (DOCS / "results" / "deploy.md").read_text() == made, "run bench/deploy.py --page"
