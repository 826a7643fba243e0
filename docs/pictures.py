"""Takes the pictures of docs/gallery.md: `python docs/pictures.py RUN`, RUN being a folder that `convsmith optimize` wrote.

Needs Chromium. The pages of `analyze --html` and `--compare` are made here, the report is the run's own.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import convsmith as cs
from convsmith.report import compare_page, scores_page

PICTURES = Path(__file__).parent / "pictures"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def picture(page: Path, name: str, height: int) -> None:
    """A page as a user sees it at 1280 pixels."""
    with TemporaryDirectory() as profile:
        shot = [f"--user-data-dir={profile}", f"--screenshot={PICTURES / name}", f"--window-size=1280,{height}"]
        command = ["chromium", *FLAGS, "--virtual-time-budget=5000", *shot, page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Make the pages and take their pictures."""
    PICTURES.mkdir(exist_ok=True)
    x = torch.zeros(1, 3, 32, 32)
    graphs = [cs.capture(cs.build(name, input=(3, 32, 32)), x, name=name) for name in ("vgg16", "resnet20")]
    found = [(scores := cs.score(graph), cs.advise(graph, scores)) for graph in graphs]
    with TemporaryDirectory() as folder:
        for name, text in (("analyze", scores_page(*found[0])), ("compare", compare_page((found[0], found[1])))):
            page = Path(folder) / f"{name}.html"
            page.write_text(text)
            picture(page, f"{name}.png", 1400)
    picture(Path(sys.argv[1]) / "report.html", "report.png", 2000)


if __name__ == "__main__":
    main()
