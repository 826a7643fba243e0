"""Pages in a browser: they draw without an error, fit a desktop and a phone, follow light and dark, and answer."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch

import convsmith as cs
from convsmith.report import compare_page, read_run, run_page, scores_page
from convsmith.score.advice import Advice, advise

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>
const rows = (view) => [...view.querySelectorAll("tbody tr")];
function sorted() {
  const sort = document.querySelector("th[aria-sort]:nth-child(6)");
  const column = () => [...sort.closest("table").tBodies[0].rows].map((row) => Number(row.cells[5].dataset.value));
  sort.click(); const up = column(); sort.click(); const down = column();
  for (const header of document.querySelectorAll("th[aria-sort]")) header.click();  // whatever is sorted by
  sort.click(); sort.click();
  return { up, down };
}
function filtered() {
  const view = document.querySelector(".layer-table"), search = view.querySelector("input[type=search]");
  const shown = () => rows(view).filter((row) => !row.hidden).map((row) => row.textContent);
  const type = (words) => { search.value = words; search.dispatchEvent(new Event("input", { bubbles: true })); };
  const all = rows(view).length;
  type("STAGE2 3x3"); const words = shown();
  type("no such layer"); const none = shown(), counter = view.querySelector(".shown").textContent;
  type(""); const again = shown().length, box = view.querySelector("input[type=checkbox]");
  if (box) box.click();
  const idle = box ? shown() : []; if (box) box.click();
  return { all, words, none, counter, again, idle, marked: view.querySelectorAll("tr.idle").length };
}
// As a mouse does it: over the first point of the named chart's line; plotly answers with a label.
function hovered(name) {
  const plot = document.getElementById(name);
  if (!plot) return "";
  plot.scrollIntoView();
  const point = plot.querySelector(".scatterlayer .points path, .barlayer .points path").getBoundingClientRect();
  const place = { clientX: point.x + point.width / 2, clientY: point.y + point.height / 2, bubbles: true };
  const target = plot.querySelector(".nsewdrag");
  target.dispatchEvent(new MouseEvent("mouseover", place)); target.dispatchEvent(new MouseEvent("mousemove", place));
  return new Promise((done) => setTimeout(() => {
    done([...plot.querySelectorAll(".hovertext")].map((label) => label.textContent).join(" "));
  }, 300));
}
async function zoomed(name) {
  const plot = document.getElementById(name);
  if (!plot) return [];
  await Plotly.relayout(plot, { "xaxis.range": [2, 5] });
  return ["xaxis", "xaxis2"].map((axis) => plot._fullLayout[axis].range);
}
window.addEventListener("load", () => setTimeout(async () => {
  const view = document.documentElement;
  const told = {
    width: innerWidth, overflow: view.scrollWidth - view.clientWidth, errors: window.caught,
    plots: [...document.querySelectorAll(".plot")].map((plot) => plot.querySelectorAll(".main-svg").length > 0),
    points: document.querySelectorAll(".plot .points path").length, ...sorted(), filter: filtered(),
    ground: getComputedStyle(document.body).backgroundColor,
    spread: [...document.querySelectorAll(".xerror")].map((path) => getComputedStyle(path).stroke),
    hover: { windows: await hovered("windows"), cost: await hovered("cost") }, zoom: await zoomed("windows"),
  };
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  (window.parent === window ? document : window.parent.document).body.append(out);
}, 1500));
</script>"""
CATCH = """<script>
window.caught = [];
window.addEventListener("error", (event) => window.caught.push(event.message));
window.addEventListener("unhandledrejection", (event) => window.caught.push(String(event.reason)));
for (const name of ["error", "warn"]) console[name] = (...words) => window.caught.push(words.join(" "));
</script>"""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
    "--virtual-time-budget=8000", "--window-size=1280,900",
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
    told: dict = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return told


@cache
def analyzed(net: str) -> tuple[cs.Scores, Advice]:
    with torch.device("meta"):
        model = cs.build(net, input=(3, 32, 32), classes=10)
    graph = cs.capture(model, torch.zeros(1, 3, 32, 32, device="meta"), name=net)
    scores = cs.score(graph)
    return scores, advise(graph, scores)


def page_of(which: str, run_folder: Path) -> str:
    if which == "run":
        return run_page(read_run(run_folder))
    if which == "net":
        return scores_page(*analyzed("vgg16"))
    return compare_page((analyzed("vgg16"), analyzed("mobilenet")))


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("which", "plots"), [("run", 6), ("net", 2), ("pair", 4)])
def test_pages_draw_without_errors_and_fit(
    run_folder: Path, tmp_path: Path, width: int, which: str, plots: int
) -> None:
    told = probe(page_of(which, run_folder), width, tmp_path)
    assert told["width"] == width
    assert told["errors"] == []
    assert told["overflow"] <= 0
    assert len(told["plots"]) == plots
    assert all(told["plots"])
    assert told["points"] > 10
    assert told["up"] == sorted(told["up"])
    assert told["down"] == sorted(told["down"], reverse=True)
    assert told["filter"]["again"] == told["filter"]["all"] > 0
    assert told["filter"]["none"] == []


@pytest.mark.browser
@needs_chromium
def test_the_page_of_a_net_filters_its_layers_names_them_and_zooms(tmp_path: Path) -> None:
    scores, advice = analyzed("vgg16")
    told = probe(scores_page(scores, advice), 1280, tmp_path)
    filtered = told["filter"]
    assert [text.partition("stage")[0] for text in filtered["words"]] == ["features.10", "features.7"], "as sorted"
    assert filtered["counter"] == "0 of 14 layers"
    assert len(filtered["idle"]) == filtered["marked"] == len(advice.idle) == 5
    assert all(text.endswith("idle") for text in filtered["idle"])
    assert "features.0: 64x32x32" in told["hover"]["windows"]
    assert "sees 3x3" in told["hover"]["windows"]
    assert "features." in told["hover"]["cost"]
    assert told["zoom"] == [[2, 5], [2, 5]], "the charts below zoom along"


@pytest.mark.browser
@needs_chromium
def test_the_page_follows_light_and_dark(run_folder: Path, tmp_path: Path) -> None:
    page = run_page(read_run(run_folder))
    (tmp_path / "l").mkdir()
    light = probe(page, 800, tmp_path / "l")
    dark = probe(page, 800, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert set(light["spread"]) == {"rgb(28, 36, 48)"}, "quartiles have the color of the text"
    assert set(dark["spread"]) == {"rgb(230, 234, 240)"}
    assert light["ground"] == "rgb(246, 247, 249)"
    assert dark["ground"] == "rgb(18, 22, 28)"
