"""Tables that add up and fit the terminal; pages that stand alone, escape what they show, and draw in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
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
    pareto_table,
    plan_table,
    read_run,
    run_page,
    scores_page,
    scores_table,
)  # fmt: skip
from convsmith.report.folding import fold
from convsmith.report.records import read_scores

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def graph_of(net: str) -> cs.Graph:
    with torch.device("meta"):
        model = cs.build(net, input=(3, 32, 32), classes=10)
    return cs.capture(model, torch.zeros(1, 3, 32, 32, device="meta"), name=net)


def text(table: RenderableType) -> str:
    console = Console(width=80, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


# --- tables


NETS = ("vgg11", "vgg16", "mobilenet", "resnet20", "resnet50", "resnet56")


@pytest.mark.parametrize("net", NETS)
def test_every_layer_is_in_one_folded_row(net: str) -> None:
    scores = cs.score(graph_of(net))
    rows = [row for _, rows in fold(scores.layers) for row in rows]
    assert sorted(layer.name for row in rows for layer in row.layers) == sorted(layer.name for layer in scores.layers)
    assert sum(row.macs for row in rows) == scores.macs
    assert sum(row.gain for row in rows) == pytest.approx(scores.gain)
    for row in rows:
        assert len({(layer.kernel, layer.stride, layer.out_shape, layer.params) for layer in row.layers}) == 1


@pytest.mark.parametrize(("net", "most"), [("resnet56", 15), ("resnet50", 40), ("mobilenet", 34), ("vgg16", 18)])
def test_the_table_of_a_deep_net_is_short(net: str, most: int) -> None:
    assert len(text(scores_table(cs.score(graph_of(net)))).splitlines()) <= most + 8


@pytest.mark.parametrize("net", NETS)
def test_the_printed_columns_add_up_to_the_total(net: str) -> None:
    """Parameters up to those of normalization, which is no layer of the table."""
    graph = graph_of(net)
    rows, total = [], None
    for line in text(scores_table(cs.score(graph))).splitlines():
        numbers = re.search(r" ([\d.]+) ?([kMG]?) +([\d.]+) ?([kMG]?) +\d+(?:x\d+)?(?: +[\d.]+)? *$", line)
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
        scores_table(cs.score(graph)), plan_table(cs.organize(graph)), plan_table(cs.decompose(graph)),
        pareto_table(cs.pareto(graph)), bench_table(BENCH),
    ):  # fmt: skip
        assert max(len(line.rstrip()) for line in text(table).splitlines()) <= 80
        assert "…" not in text(table), "nothing is cut off"


def test_a_plans_table_tells_reasons_and_refusals() -> None:
    told = text(plan_table(cs.decompose(graph_of("vgg16"))))
    for part in ("14.73 M", "1.687 M", "dw-pw", "it is a stem with 3 input channels", "0.115x"):
        assert part in told
    forced = text(plan_table(cs.decompose(graph_of("vgg16"), block="dw-gpw:g=4")))
    assert "sees less" in forced


def test_unknown_ops_are_named_under_the_table() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), Cumulative(), torch.nn.Conv2d(4, 4, 3))
    told = text(scores_table(cs.score(cs.capture(net, torch.zeros(1, 3, 8, 8)))))
    assert "aten.cumsum.default (1)" in told
    assert "unknown" in told


class Cumulative(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(2)


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
    for page in (run_page(read_run(run)), scores_page(read_scores(json.dumps(record)))):
        assert "<script>alert" not in page
        assert evil in read(page).words


def test_a_nets_page_has_all_its_layers() -> None:
    scores = cs.score(graph_of("resnet20"))
    page = read(scores_page(scores))
    assert page.loads == ["data:,"]
    assert all(layer.name in page.words for layer in scores.layers)


# --- in a browser

PROBE = """<script>
window.addEventListener("load", () => setTimeout(() => {
  const view = document.documentElement;
  const sort = document.querySelector("th[aria-sort]:nth-child(6)");
  const column = () => [...sort.closest("table").tBodies[0].rows].map((row) => Number(row.cells[5].dataset.value));
  sort.click(); const up = column(); sort.click(); const down = column();
  const told = {
    width: innerWidth, overflow: view.scrollWidth - view.clientWidth, errors: window.caught,
    plots: [...document.querySelectorAll(".plot")].map((plot) => plot.querySelectorAll(".main-svg").length > 0),
    points: document.querySelectorAll(".plot .points path").length, up: up, down: down,
    ground: getComputedStyle(document.body).backgroundColor,
  };
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  (window.parent === window ? document : window.parent.document).body.append(out);
}, 1500));
</script>"""
CATCH = '<script>window.caught = []; window.addEventListener("error", (e) => window.caught.push(e.message));</script>'
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
    "--virtual-time-budget=6000", "--window-size=1280,900",
)  # fmt: skip


def probe(page: str, width: int, folder: Path, *flags: str) -> dict:
    """Open a page in a window of `width` pixels and ask it what it looks like; a frame goes below a window's least."""
    (folder / "page.html").write_text(page.replace("<meta", f"{CATCH}<meta", 1).replace("</body>", f"{PROBE}</body>"))
    frame = f'<body><iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe></body>'
    (folder / "frame.html").write_text(frame)
    assert CHROMIUM is not None
    own = (f"--user-data-dir={folder / 'profile'}", "--dump-dom", str(folder / "frame.html"))
    command = [CHROMIUM, *FLAGS, *flags, *own]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', dom)
    assert found, dom[-2000:]
    told: dict = json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    return told


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["run", "net"])
def test_pages_draw_without_errors_and_fit(run: Path, tmp_path: Path, width: int, which: str) -> None:
    records = read_run(run)
    assert records.baseline.scores is not None
    page = run_page(records) if which == "run" else scores_page(records.baseline.scores)
    told = probe(page, width, tmp_path)
    assert told["width"] == width
    assert told["errors"] == []
    assert told["overflow"] <= 0
    assert len(told["plots"]) == (6 if which == "run" else 2)
    assert all(told["plots"])
    assert told["points"] > 10
    assert told["up"] == sorted(told["up"])
    assert told["down"] == sorted(told["down"], reverse=True)


@pytest.mark.browser
@needs_chromium
def test_the_page_follows_light_and_dark(run: Path, tmp_path: Path) -> None:
    page = run_page(read_run(run))
    (tmp_path / "l").mkdir()
    light = probe(page, 800, tmp_path / "l")
    dark = probe(page, 800, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert light["ground"] == "rgb(246, 247, 249)"
    assert dark["ground"] == "rgb(18, 22, 28)"
