"""Tables that add up and fit the terminal; records read or refused; pages that stand alone and escape their words."""

import json
import re
import shutil
from collections import OrderedDict
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from rich.console import Console, RenderableType

import convsmith as cs
from convsmith.bench import Bench, Latency, Skipped
from convsmith.errors import ConvsmithError
from convsmith.report import (
    before_after,
    bench_table,
    compare_page,
    compare_table,
    pareto_table,
    plan_table,
    read_run,
    run_page,
    scores_page,
    scores_table,
)  # fmt: skip
from convsmith.report.charts import latency
from convsmith.report.folding import fold
from convsmith.report.grids import Grid
from convsmith.report.net_charts import growth, windows
from convsmith.report.net_tables import compare_rows, stage_rows, widest
from convsmith.report.numbers import count
from convsmith.report.page import headline
from convsmith.report.records import read_scores
from convsmith.report.tables import edit_rows
from convsmith.score.advice import Advice, Finding, advise

UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@cache
def graph_of(net: str) -> cs.Graph:
    with torch.device("meta"):
        model = cs.build(net, input=(3, 32, 32), classes=10)
    return cs.capture(model, torch.zeros(1, 3, 32, 32, device="meta"), name=net)


@cache
def analyzed(net: str) -> tuple[cs.Scores, Advice]:
    scores = cs.score(graph_of(net))
    return scores, advise(graph_of(net), scores)


def text(table: RenderableType, width: int = 80) -> str:
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


# --- tables


NETS = ("vgg11", "vgg16", "mobilenet", "resnet20", "resnet50", "resnet56")


@pytest.mark.parametrize("net", NETS)
def test_every_layer_is_in_one_folded_row(net: str) -> None:
    scores = cs.score(graph_of(net))
    rows = [row for _, rows in fold(scores.layers) for row in rows]
    assert sorted(place for row in rows for place in row.places) == list(range(len(scores.layers)))
    assert all(
        layer is scores.layers[place] for row in rows for place, layer in zip(row.places, row.layers, strict=True)
    )
    assert sum(row.macs for row in rows) == scores.macs
    assert sum(row.gain for row in rows) == pytest.approx(scores.gain)
    for row in rows:
        assert len({(layer.kernel, layer.stride, layer.out_shape, layer.params) for layer in row.layers}) == 1


@pytest.mark.parametrize(("net", "most"), [("resnet56", 26), ("resnet50", 53), ("mobilenet", 34), ("vgg16", 19)])
def test_the_table_of_a_deep_net_is_short(net: str, most: int) -> None:
    assert len(text(scores_table(cs.score(graph_of(net)))).splitlines()) <= most + 10


@pytest.mark.parametrize("net", NETS)
def test_the_printed_columns_add_up_to_the_total(net: str) -> None:
    """Parameters up to those of normalization, which is no layer of the table."""
    graph = graph_of(net)
    rows, total = [], None
    for line in text(scores_table(*analyzed(net))).splitlines():
        numbers = re.search(r" ([\d.]+) ?([kMG]?) +([\d.]+) ?([kMG]?) +\d+(?:x\d+)?(?: +[\d.]+)?[ *]*$", line)
        if numbers:
            rows.append([float(numbers[1]) * UNITS[numbers[2]], float(numbers[3]) * UNITS[numbers[4]]])
        elif line.startswith("total"):
            found = re.findall(r"([\d.]+) ([kMG])", line)
            total = [float(number) * UNITS[unit] for number, unit in found]
    params, macs = (sum(column) for column in zip(*rows, strict=True))
    norms = sum(node.params for node in graph.nodes if not node.kind)
    assert total == [pytest.approx(params + norms, rel=2e-3), pytest.approx(macs, rel=2e-3)]


@pytest.mark.parametrize("net", NETS)
def test_tables_fit_80_columns(net: str) -> None:
    graph = graph_of(net)
    for table in (
        scores_table(*analyzed(net)), plan_table(cs.organize(graph)),
        compare_table((analyzed(net), analyzed("resnet56"))), compare_table((analyzed("resnet56"), analyzed(net))),
        plan_table(cs.decompose(graph)), pareto_table(cs.pareto(graph)), bench_table(BENCH),
    ):  # fmt: skip
        assert max(len(line.rstrip()) for line in text(table).splitlines()) <= 80
        assert "…" not in text(table), "nothing is cut off"


@pytest.mark.parametrize("net", NETS)
def test_stages_and_what_is_outside_add_up(net: str) -> None:
    scores = cs.score(graph_of(net))
    rows = stage_rows(scores)
    *parts, total = rows
    for column in (4, 6):
        shares = [float(row[column].removesuffix(" %")) for row in parts]
        assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares) + 0.01)
    assert sum(float(row[7] or 0) for row in parts) == pytest.approx(scores.gain, abs=1e-3 * len(parts))
    assert [row[0] for row in parts[: len(scores.stages)]] == [stage.name for stage in scores.stages]
    assert total[2:4] == (str(sum(stage.layers for stage in scores.stages)), count(scores.params))


WIDTHS = (80, 120)
PATH = "its_own.which_has.inside_of_others.of_a_module.a_long_name"


@cache
def deep() -> tuple[cs.Graph, cs.Scores]:
    """A net whose layers have long names, two of them alike."""
    net: torch.nn.Module = torch.nn.Conv2d(3, 64, 3, padding=1)
    for name in reversed(PATH.split(".")):
        more = [(f"{name}_too", torch.nn.Conv2d(64, 64, 3, padding=1))] if name == "its_own" else []
        net = torch.nn.Sequential(OrderedDict([(name, net), *more]))
    graph = cs.capture(net, torch.zeros(1, 3, 224, 230))
    return graph, cs.score(graph)


@pytest.mark.parametrize("width", WIDTHS)
def test_names_are_whole_in_every_table(width: int) -> None:
    """So that they can be pasted into --keep: not cut, and not broken over lines."""
    graph, scores = deep()
    plan = cs.decompose(graph, block="dw-pw", overrides={"its_own_too": "pw-dw:r=4"})
    bench = replace(BENCH, cells=tuple(replace(cell, model=f"runs/{PATH}/{cell.model}") for cell in BENCH.cells))
    for table, names in (
        (scores_table(scores, share=True, milliseconds=(1.0, None, 3.0)), {PATH, "its_own_too"}),
        (plan_table(plan), {PATH, "its_own_too"}),
        (bench_table(bench), {cell.model for cell in bench.cells}),
    ):
        told = text(table, width)
        assert names <= set(re.split(r"[\s,]+", told))
        assert max(map(len, (line.rstrip() for line in told.splitlines()))) <= width
        assert "\N{HORIZONTAL ELLIPSIS}" not in told


def test_a_table_uses_the_width_there_is() -> None:
    _, scores = deep()
    row = rf"^{re.escape(PATH)} +3x3 +3->64 +224x230 "
    assert re.search(row, text(scores_table(scores), 120), re.MULTILINE)
    assert not re.search(row, text(scores_table(scores), 80), re.MULTILINE)
    assert re.search(rf"^{re.escape(PATH)} *\n +3x3 +3->64 ", text(scores_table(scores), 80), re.MULTILINE)


def test_shares_and_times_are_columns_that_add_up() -> None:
    scores = cs.score(graph_of("resnet20"))
    milliseconds = [0.5] * len(scores.layers)
    told = text(scores_table(scores, share=True, milliseconds=(*milliseconds, 77.0)), 120)
    rows = [line for line in told.splitlines() if "counted" not in line and re.search(r" \d+\.\d%", line)]
    *layers, total = [re.search(r"([\d.]+)% +([\d.]+)", row) for row in rows]
    assert sum(float(cells[1]) for cells in layers if cells) == pytest.approx(100, abs=0.05 * len(layers))
    assert sum(float(cells[2]) for cells in layers if cells) == pytest.approx(0.5 * len(scores.layers))
    assert total is not None
    assert total.groups() == ("100.0", "77"), "of the whole net, what is no layer among it"


@pytest.mark.parametrize("net", NETS)
def test_a_row_stands_for_layers_of_one_window_only(net: str) -> None:
    for _, rows in fold(cs.score(graph_of(net)).layers):
        for row in rows:
            assert len({layer.reach.window for layer in row.layers if layer.reach}) == 1


def test_a_linear_layer_on_channels_last_maps_shows_its_features_as_channels() -> None:
    class Last(torch.nn.Module):
        """As in ConvNeXt."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.grow, self.head = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 32), torch.nn.Linear(32, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(self.grow(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))
            return y

    told = text(scores_table(cs.score(cs.capture(Last(), torch.zeros(1, 3, 16, 16)))))
    assert re.search(r"^grow +linear +8->32 +14 ", told, re.MULTILINE)
    assert re.search(r"^head +linear +32->5 ", told, re.MULTILINE)


@pytest.mark.parametrize("width", (40, *WIDTHS))
def test_words_wrap_between_columns_and_no_word_is_broken(width: int) -> None:
    table = Grid("A title", ("layer", ">number", "why"), frozenset({"layer", "why"}))
    names, why = ", ".join(f"layer{i}.0.conv1" for i in range(9)), "as it was asked to be kept " * 4
    table.add_row(names, "12345", why)
    table.add_row("x", "1", "y")
    told = text(table, width)
    for words in (names, why):
        assert all(told.split().count(word) >= words.split().count(word) for word in words.split())
    assert max(map(len, (line.rstrip() for line in told.splitlines()))) <= width


def test_idle_layers_are_marked_and_told() -> None:
    told = text(scores_table(*analyzed("vgg16")))
    marked = [line.split()[0] for line in told.splitlines() if line.rstrip().endswith("*")]
    assert marked == ["features.20", "features.27", "features.34"], "a row is marked for any of its layers"
    assert "stage4 sees all of its 4 px map" in told
    assert len(re.findall(r"^idle ", told, re.MULTILINE)) == 3
    assert "2 more idle layers, marked in the table." in told


def test_every_column_is_told_in_one_line_below() -> None:
    scores = cs.score(graph_of("vgg16"))
    lines = text(scores_table(scores)).splitlines()
    legend = lines[next(place for place, line in enumerate(lines) if line.startswith("total")) + 1]
    for word in ("kernel", "channels", "map", "window", "gain"):
        assert word in legend
    assert not any("idle" in line for line in lines), "nothing is said of marks that are not there"


def test_the_value_is_told_of_a_net_of_two_and_of_plans() -> None:
    (one, _), (other, _) = nets = analyzed("vgg16"), analyzed("vgg19")
    told = text(scores_table(*nets[0]))
    assert re.search(rf"^value +{one.value:.3f}$", told, re.MULTILINE)
    assert "value: the sum of gain^(1/4)" in told
    totals, _ = compare_rows(nets)
    change = f"{other.value - one.value:+.3f}"
    assert ("value", f"{one.value:.3f}", f"{other.value:.3f}", change) in totals
    assert stage_rows(one)[-1][8] == f"{one.value:.3f}"
    assert one._repr_html_().count(f"value {one.value:.3f}") == 1
    plan = cs.organize(graph_of("vgg16"))
    told = text(plan_table(plan))
    assert re.search(rf"^value +{plan.base.value:.3f} +{plan.new.value:.3f} ", told, re.MULTILINE)
    front = cs.pareto(graph_of("vgg16"))
    told = text(pareto_table(front))
    assert all(f" {choice.value:.3f} " in told for choice in front)


def test_two_nets_stand_in_one_table() -> None:
    one, other = analyzed("vgg16"), analyzed("resnet56")
    told = text(compare_table((one, other)))
    for part in ("vgg16", "resnet56", count(one[0].params), count(other[0].macs), "13", "54"):
        assert part in told
    totals, stages = compare_rows((one, other))
    assert [row[0] for row in stages] == ["stage1", "stage2", "stage3", "stage4", "stage5"]
    assert sum(float(row[3]) for row in stages) == pytest.approx(other[0].gain - one[0].gain, abs=5e-3)
    assert {row[0]: row[3] for row in totals}["idle layers"] == f"{len(other[1].idle) - len(one[1].idle):+d}"
    assert "vgg16 (first)" in text(compare_table((one, one)))


def test_the_widest_window_is_not_clamped() -> None:
    assert widest(cs.score(graph_of("vgg16"))) == (196, 196)
    assert widest(cs.score(cs.capture(torch.nn.Linear(10, 5), torch.zeros(1, 10)))) == ()


def test_stages_of_parallel_branches_have_one_sum_each() -> None:
    told = text(scores_table(cs.score(cs.capture(Branches(), torch.zeros(1, 4, 16, 16)))))
    sums = [line.partition(":")[0] for line in told.splitlines() if line.startswith("stage")]
    assert sorted(sums) == ["stage1", "stage2"]


class Branches(torch.nn.Module):
    """Convolutions on two map sizes in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large, small = self.convs[0](x), self.convs[1](torch.nn.functional.max_pool2d(x, 2))
        large, small = self.convs[2](large), self.convs[3](small)
        return large + torch.nn.functional.interpolate(small, scale_factor=2.0)


def test_units_are_counted_where_there_are_some() -> None:
    plan = cs.decompose(graph_of("vgg16"))
    assert re.search(r"units per stage +2,2,3,3,3", text(plan_table(plan)))
    none = replace(plan.base, blocks=(0, 0, 0))
    assert "units per stage" not in text(plan_table(replace(plan, base=none, stages=())))


def test_edits_that_differ_in_their_error_only_share_a_row() -> None:
    plan = cs.decompose(graph_of("vgg11"))
    errors = [0.5 + 0.01 * place for place in range(len(plan.edits))]
    carried = replace(
        plan, edits=tuple(replace(edit, error=error) for edit, error in zip(plan.edits, errors, strict=True))
    )
    ((_, what, _),) = edit_rows(carried)
    assert what == f"dw-pw, relative error 0.500 to {errors[-1]:.3f}"


def test_a_plans_table_tells_reasons_and_refusals() -> None:
    told = text(plan_table(cs.decompose(graph_of("vgg16"))))
    for part in ("14.73 M", "1.687 M", "dw-pw", "it is a stem with 3 input channels", "0.115x"):
        assert part in told
    forced = text(plan_table(cs.decompose(graph_of("vgg16"), block="dw-gpw:g=4")))
    assert "sees less" in forced


def test_layers_apart_with_the_same_edit_and_reason_share_a_row() -> None:
    plan = cs.decompose(graph_of("vgg16"), block="dw-rpw:g=4,o=0.5")
    (alone, in_a_row) = edit_rows(plan)  # the first convolution behind the stem has no neighbour
    assert (alone[:2], in_a_row[1]) == (
        ("features.3", "dw-rpw:g=4,o=0.5 (sees less)"),
        "dw-rpw:g=4,o=0.5 (in a row)",
    )
    assert in_a_row[0] == "features.7, features.10, features.14 and 8 more"
    turned = replace(plan, edits=(plan.edits[1], plan.edits[0], *plan.edits[2:]))
    assert edit_rows(turned) == [in_a_row, alone]


def test_unknown_ops_are_named_under_the_table() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), Renormed(), torch.nn.Conv2d(4, 4, 3))
    told = text(scores_table(cs.score(cs.capture(net, torch.zeros(1, 3, 8, 8)))))
    assert "aten.renorm.default (1)" in told
    assert "unknown" in told


class Renormed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.renorm(2, 1, 1.0)


CELL = Latency("baseline", "eager", 1, 4.0, 3.9, 4.1, 21, 1.0, 1.0, 1.0, "")
BENCH = Bench(
    (
        CELL,
        replace(CELL, model="optimized", median_ms=2.0, ratio=0.5, ratio_low=0.45, ratio_high=0.55, verdict="faster"),
        replace(CELL, model="other", ratio=1.5, ratio_low=1.2, ratio_high=1.7, verdict="slower"),
        replace(CELL, model="third", ratio_low=0.9, ratio_high=1.2, verdict="unclear"),
    ),
    (Skipped("optimized", "compile", 1, "no compiler was found"),),
    (3, 32, 32), 2, 0, {}, {},
)  # fmt: skip


def test_the_benchs_table_tells_verdicts_spread_and_what_was_skipped() -> None:
    told = text(bench_table(BENCH))
    for part in ("faster", "slower", "unclear", "0.45-0.55", "3.9-4.1", "no compiler was found"):
        assert part in told


# --- records


def test_scores_come_back_as_they_were() -> None:
    scores = cs.score(graph_of("resnet20"))
    assert read_scores(scores.to_json()) == replace(scores, unknown_ops=dict(scores.unknown_ops))


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """The records of a finished run, to be changed."""
    names = shutil.ignore_patterns("*.onnx", "*.pt2", "*.safetensors")
    return shutil.copytree(run_folder, tmp_path / "run", ignore=names)


@pytest.mark.parametrize(
    "missing",
    ["bench.json", "optimized/*.json*", "*/*.json*", "*/evaluations.json", "organize.json", "*/history.jsonl"],
)
def test_a_run_that_was_stopped_shows_what_there_is(run: Path, missing: str) -> None:
    whole = len(run_page(read_run(run)))
    for path in run.glob(missing):
        path.unlink()
    assert len(run_page(read_run(run))) < whole
    text(before_after(read_run(run)))


@pytest.mark.parametrize(
    "spoiled", ["run.json", "bench.json", "organize.json", "baseline/scores.json", "optimized/history.jsonl",
                "optimized/evaluations.json", "baseline/exports.json"]
)  # fmt: skip
@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
def test_a_spoiled_record_is_named(run: Path, spoiled: str, content: str) -> None:
    (run / spoiled).write_text(content)
    with pytest.raises(ConvsmithError, match=re.escape(spoiled.rpartition("/")[2])) as error:
        read_run(run)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConvsmithError, match="holds no run"):
        cs.report(tmp_path)


# --- pages


class Links(HTMLParser):
    """Collects what a page would load, and its text outside scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words = ""
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag in ("script", "style")
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.words += "" if self._silent else f" {data}"


def read(page: str) -> Links:
    parser = Links()
    parser.feed(page)
    return parser


def test_the_page_tells_the_records_and_loads_nothing(run: Path) -> None:
    records = read_run(run)
    page = read(cs.report(run).read_text())
    assert page.loads == ["data:,"]
    assert records.decompose is not None
    assert records.optimized.final is not None
    for told in (
        records.command, f"{100 * records.optimized.final.top1:.2f} %", records.decompose.refusals[0].reason,
        records.decompose.edits[0].reason, records.environment["versions"]["torch"], "onnxruntime", "model.onnx",
    ):  # fmt: skip
        assert told in page.words


def test_what_a_page_shows_is_escaped(run: Path) -> None:
    evil = "</script><script>alert(1)</script><b>"
    record = json.loads((run / "baseline" / "scores.json").read_text())
    record["layers"][0]["name"] = record["model"] = evil
    (run / "baseline" / "scores.json").write_text(json.dumps(record))
    settings = json.loads((run / "run.json").read_text())
    settings["settings"]["model"] = settings["command"] = evil
    (run / "run.json").write_text(json.dumps(settings))
    scores = read_scores(json.dumps(record))
    advice = Advice((Finding("idle", f"{evil} sees nothing new; use `{evil}`.", layer=evil),), frozenset({0}))
    pages = run_page(read_run(run)), scores_page(scores, advice), compare_page(((scores, advice), (scores, advice)))
    for page in pages:
        assert "<script>alert" not in page
        assert evil in read(page).words


def test_a_nets_page_has_all_its_layers() -> None:
    scores = cs.score(graph_of("resnet20"))
    page = read(scores_page(scores))
    assert page.loads == ["data:,"]
    assert all(layer.name in page.words for layer in scores.layers)


def test_a_nets_page_tells_its_advice_and_marks_what_is_idle() -> None:
    scores, advice = analyzed("vgg16")
    page = scores_page(scores, advice)
    words = " ".join(read(page).words.split())
    assert all(finding.advice.replace("`", "").split("; ")[0] in words for finding in advice.findings)
    assert page.count('<tr class="idle">') == len(advice.idle) == 5
    for html in (page, scores_page(scores)):
        table = html[html.index('<div class="layer-table">') :]
        assert table.count("<td") == len(scores.layers) * table.count("<th "), "a cell below every header"


def test_a_page_of_two_nets_has_the_layers_of_both() -> None:
    nets = analyzed("vgg11"), analyzed("resnet20")
    page = read(compare_page(nets))
    assert page.loads == ["data:,"]
    assert all(layer.name in page.words for scores, _ in nets for layer in scores.layers)


ODD = {
    "flat": (torch.nn.Linear(10, 5), (10,)),
    "signal": (torch.nn.Sequential(torch.nn.Conv1d(3, 8, 3), torch.nn.Conv1d(8, 8, 5)), (3, 100)),
    "volume": (torch.nn.Conv3d(3, 8, 3), (3, 8, 8, 8)),
    "pointwise only": (torch.nn.Conv2d(3, 8, 1), (3, 20, 30)),
    "nothing to score": (torch.nn.ReLU(), (3, 8, 8)),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("convention", ["published", "exact"])
def test_nets_that_are_not_for_images_have_tables_and_pages(name: str, convention: str) -> None:
    net, shape = ODD[name]
    scores = cs.score(cs.capture(net, torch.zeros(1, *shape), name="odd"), convention=convention)
    assert "odd" in text(scores_table(scores))
    assert "odd" in read(scores_page(scores)).words


def test_the_ceiling_of_a_stage_is_its_map_whatever_its_form() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1))
    curve, ceiling = growth(cs.score(cs.capture(net, torch.zeros(1, 3, 20, 30))))["data"]
    assert curve["y"] == [8 * 9, 8 * 25]
    assert ceiling["y"] == [8 * 20 * 30] * 2


def test_the_windows_chart_has_both_ceilings_and_circles_what_is_idle() -> None:
    scores, advice = analyzed("vgg16")
    figure = windows(scores, advice)
    curves = {trace["name"]: trace for trace in figure["data"]}
    assert curves["of input"]["y"] == [max(layer.reach.window) for layer in scores.layers if layer.reach]
    assert set(curves["map"]["y"]) == {32, 16, 8, 4, 2, None}
    assert curves["idle"]["x"] == [place + 1 for place in sorted(advice.idle)]
    assert [shape["y0"] for shape in figure["layout"]["shapes"] if shape["type"] == "line"] == [32]
    assert "idle" not in {trace["name"] for trace in windows(scores, Advice())["data"]}


def test_gates_do_not_break_the_line_of_windows() -> None:
    gate = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(4, 4, 1), torch.nn.Sigmoid())
    net = Gated(gate)
    scores = cs.score(cs.capture(net, torch.zeros(1, 4, 16, 16)))
    assert [layer.reach.window for layer in scores.layers if layer.reach] == [(3, 3), (16, 16), (5, 5)]
    (line,) = [trace for trace in windows(scores, Advice())["data"] if trace["name"] == "of input"]
    assert line["y"] == [3, 5]


class Gated(torch.nn.Module):
    """A convolution, squeeze-and-excitation, and another convolution."""

    def __init__(self, gate: torch.nn.Module) -> None:
        super().__init__()
        self.convs, self.gate = torch.nn.ModuleList(torch.nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)), gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convs[0](x)
        return self.convs[1](x * self.gate(x))


def test_the_latency_chart_shows_medians_and_quartiles() -> None:
    bars = [trace for trace in latency(BENCH)["data"] if trace["type"] == "bar"]
    assert [bar["x"] for bar in bars] == [[1.0], [0.5], [1.0], [1.0]]
    assert bars[0]["error_x"]["array"] == pytest.approx([0.025])
    assert bars[1]["error_x"]["arrayminus"] == pytest.approx([(2.0 - 3.9) / 4])
    assert len({place for bar in bars for place in bar["y"]}) == len(bars), "no bar lies on another"


def test_the_headline_tells_faster_and_slower(run: Path) -> None:
    records = replace(read_run(run), bench=BENCH)
    assert "Latency is 0.50x to 0.50x the baseline's: faster in 1 of 1 settings." in headline(records)
    slow = replace(BENCH.cells[1], batch=32, ratio=1.3, verdict="slower")
    both = replace(records, bench=replace(BENCH, cells=(*BENCH.cells, slow)))
    assert "0.50x to 1.30x the baseline's: faster in 1, slower in 1 of 2 settings." in headline(both)
    assert "Latency" not in headline(replace(records, bench=None))


def test_settings_of_any_form_are_shown(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["settings"] |= {"wish": "anything", "limits": [1, {"a": 0, "b": None}]}
    (run / "run.json").write_text(json.dumps(record))
    words = read(run_page(read_run(run))).words
    assert "anything" in words
    assert "1, a 0" in words
