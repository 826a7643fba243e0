"""Pages in a browser: they draw without an error, fit a desktop and a phone, and follow light and dark."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from convsmith.report import read_run, run_page, scores_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
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
    spread: [...document.querySelectorAll(".xerror")].map((path) => getComputedStyle(path).stroke),
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
def test_pages_draw_without_errors_and_fit(run_folder: Path, tmp_path: Path, width: int, which: str) -> None:
    records = read_run(run_folder)
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
def test_the_page_follows_light_and_dark(run_folder: Path, tmp_path: Path) -> None:
    page = run_page(read_run(run_folder))
    (tmp_path / "l").mkdir()
    light = probe(page, 800, tmp_path / "l")
    dark = probe(page, 800, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert set(light["spread"]) == {"rgb(28, 36, 48)"}, "quartiles have the color of the text"
    assert set(dark["spread"]) == {"rgb(230, 234, 240)"}
    assert light["ground"] == "rgb(246, 247, 249)"
    assert dark["ground"] == "rgb(18, 22, 28)"
