"""The front of budgets: plans of one pricing, what is measured of them, the table, and the page with its slider."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import convsmith as cs
from convsmith.blocks import Block
from convsmith.cli import app
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.measure import Latencies
from convsmith.plan import Plan
from convsmith.report.front import front_page, front_rows

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@cache
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip


@cache
def found() -> cs.Front:
    return cs.front(
        net(), torch.zeros(1, 3, 32, 32), data=cs.load_data("digits"), images=32, points=5, measured=2, int8=True
    )


def test_every_plan_is_that_of_its_limit() -> None:
    front = found()
    costs = [point.plan.new.macs for point in front.points]
    errors = [point.error for point in front.points]
    assert len(front.points) >= 4
    assert costs == sorted(costs)
    assert errors == sorted(errors, reverse=True)
    for point in front.points:
        assert point.macs <= point.limit
        assert point.plan.asked is not None
        assert point.plan.asked.max_macs == point.limit
    middle = front.points[len(front.points) // 2]
    alone = cs.decompose(
        net(), torch.zeros(1, 3, 32, 32), data=cs.load_data("digits"), images=32, max_macs=middle.limit
    )
    assert {e.layer for e in alone.edits} == {e.layer for e in middle.plan.edits}


def test_what_is_measured_is_the_applied_plan() -> None:
    front, data = found(), cs.load_data("digits")
    measured = [point for point in front.points if point.top1 is not None]
    assert [measured[0], measured[-1]] == [front.points[0], front.points[-1]]
    assert len(measured) == 2
    made = cs.apply(net(), front.points[0].plan, data=data, images=32)
    assert front.points[0].top1 == pytest.approx(cs.evaluate(made, data.test, device="cpu").top1, abs=0.02)
    assert front.top1 == cs.evaluate(net(), data.test, device="cpu").top1
    assert front.int8 is not None
    unlabelled = cs.front(net(), torch.zeros(1, 3, 32, 32), data=torch.rand(8, 3, 32, 32), points=2)
    assert unlabelled.top1 is unlabelled.points[0].top1 is None


class Halved(Latencies):
    """Modules that take a millisecond, and blocks half of their layer's."""

    def blocks(self, layer: str, conv: ConvSpec, size: tuple[int, int], blocks: Sequence[Block]) -> list[float]:
        return [0.5 * self.of([layer])] * len(blocks)


def test_a_front_of_latency_tells_predicted_times() -> None:
    graph = cs.capture(net(), torch.zeros(1, 3, 32, 32))
    latencies = Halved({"": 4e-3, **{str(place): 1e-3 for place in range(9)}})
    front = cs.front(
        graph, model=net(), data=torch.rand(8, 3, 32, 32), points=3, latencies=latencies, width=False, depth=False
    )
    assert front.points[0].latency_ms == pytest.approx(3.0), "two of four are halved"
    assert front_rows(front)[0][3] == "3"
    assert front_rows(front)[-1][3] == "4"
    assert front_page(front)
    with pytest.raises(cs.PlanError, match="no plan costs less"):
        cs.front(net(), torch.zeros(1, 3, 32, 32), data=torch.rand(8, 3, 32, 32), keep=("2", "4"))


def test_the_command_prints_json_with_plans_that_apply(tmp_path: Path) -> None:
    command = ["decompose", "own_net:make", "--front", "--data", "digits", "--images", "16", "--block", "dw-pw"]
    done = CliRunner().invoke(app, [*command, "--json", "-", "--html", str(tmp_path / "front.html")])
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["base"]["int8_top1"] is not None
    plan = Plan.from_json(json.dumps(record["points"][0]["plan"]))
    assert plan.new.macs == record["points"][0]["macs"]
    made = cs.apply(cs.load("own_net:make").model, plan)
    assert cs.capture(made, torch.zeros(1, 3, 32, 32)).macs == plan.new.macs
    assert (tmp_path / "front.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--front"], "give --data"),
        (["--front", "--data", "digits", "--max-macs", "0.5x"], "leave limits and -o out"),
        (["--front", "--data", "digits", "--judged", "3"], "leave --judged out"),
        (["--html", "a.html"], "--html shows a front"),
    ],
)
def test_what_a_front_has_no_use_for_is_refused(options: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["decompose", "resnet20", *options])
    assert done.exit_code == 1
    assert told in done.stderr


PROBE = """<script>
window.caught = [];
window.addEventListener("error", (event) => window.caught.push(event.message));
for (const name of ["error", "warn"]) console[name] = (...words) => window.caught.push(words.join(" "));
window.addEventListener("load", () => setTimeout(async () => {
  const slider = document.getElementById("slider"), view = document.documentElement, blobs = [], seen = [];
  URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
  for (const place of [0, Number(slider.max)]) {
    slider.value = place; slider.dispatchEvent(new Event("input", { bubbles: true }));
    document.getElementById("download").click();
    const panels = [...document.querySelectorAll(".plan")].filter((panel) => !panel.hidden);
    const mark = document.getElementById("front").data.at(-1);
    seen.push({ shown: panels.map((panel) => Number(panel.dataset.plan)), x: mark.x[0], text: panels[0].textContent });
  }
  const told = {
    width: innerWidth, overflow: view.scrollWidth - view.clientWidth, errors: window.caught, seen,
    drawn: document.querySelectorAll("#front .main-svg").length > 0,
    plans: await Promise.all(blobs.map((blob) => blob.text())),
  };
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  window.parent.document.body.append(out);
}, 1500));
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_slider_shows_marks_and_downloads_a_plan(tmp_path: Path, width: int) -> None:
    front = found()
    (tmp_path / "page.html").write_text(front_page(front).replace("<meta", f"{PROBE}<meta", 1))
    frame = f'<body><iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe></body>'
    (tmp_path / "frame.html").write_text(frame)
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--allow-file-access-from-files", "--virtual-time-budget=8000", "--window-size=1280,900",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(tmp_path / "frame.html"),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    text = re.search(r'<pre id="told">(.*?)</pre>', dom, re.S)
    assert text, dom[-2000:]
    told = json.loads(text[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert told["width"] == width
    assert told["errors"] == []
    assert told["overflow"] <= 0
    assert told["drawn"]
    ends = front.points[0], front.points[-1]
    assert [each["shown"] for each in told["seen"]] == [[0], [len(front.points) - 1]]
    for each, plan, point in zip(told["seen"], told["plans"], ends, strict=True):
        assert each["x"] == pytest.approx(point.macs)
        assert point.plan.edits[0].name in each["text"]
        assert Plan.from_json(plan) == point.plan
