"""docs/evidence.md is what the result files say; claims are judged as the page explains; no result stands unclaimed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "bench"


@pytest.fixture(scope="module", autouse=True)
def _bench_on_path():
    paths = [str(BENCH), str(BENCH / "gpu")]
    sys.path[:0] = paths
    yield
    for path in paths:
        sys.path.remove(path)


def between(text: str, mark: str) -> str:
    return text[text.index(f"<!-- {mark} -->\n") + len(f"<!-- {mark} -->\n") : text.index(f"<!-- /{mark} -->")]


def test_the_page_is_what_the_result_files_say() -> None:
    import evidence

    page = (ROOT / "docs" / "evidence.md").read_text()
    for mark, table in evidence.TABLES.items():
        assert between(page, mark) == evidence.markdown(table()), f"run bench/evidence.py: {mark} is of other results"


def test_every_claim_has_a_row_with_a_word_a_script_and_a_result_that_are_there() -> None:
    import claim
    import evidence

    page = (ROOT / "docs" / "evidence.md").read_text()
    rows = [line.strip("| ").split(" | ") for mark in ("papers", "ours") for line in between(page, mark).splitlines()]
    words = [row[-1].strip("*") for row in rows if row[-1].startswith("**")]
    assert len(words) == len(claim.CLAIMS) >= 38
    assert set(words) <= set(claim.WORDS)
    assert len({one.text for one in claim.CLAIMS}) == len(claim.CLAIMS)
    for one in claim.CLAIMS:
        word, told = evidence.outcome(one)
        assert told
        assert not one.script or (ROOT / one.script.split()[0]).is_file()
        assert word == claim.NOT_MEASURED or (evidence.RESULTS / one.result).is_file()


def test_every_result_file_is_named_by_a_claim() -> None:
    import claim
    import evidence

    assert evidence.RULES
    named = {one.result for one in claim.CLAIMS}
    assert {path.name for path in (BENCH / "results").glob("*.json")} <= named


def test_the_readme_links_the_page() -> None:
    assert "](docs/evidence.md)" in (ROOT / "README.md").read_text()


def cells(table: str, rows: dict[str, list[float]], **own: dict[str, float]) -> dict[str, Any]:
    """Cells of made-up accuracies in percent, a seed each."""
    settings = {"images": None, "width": 1.0, "recipe": {"epochs": 30}}
    shared = {"data": "cifar10", "machine": "a card", "settings": settings}
    made = {
        f"{table}/{row}/{seed}": shared | {"top1": top1 / 100} | {key: value[row] for key, value in own.items()}
        for row, tops in rows.items()
        for seed, top1 in enumerate(tops)
    }
    return {"cells": made}


@pytest.mark.parametrize(
    ("new", "base", "printed", "word"),
    [
        ([92.0, 92.4, 92.2], [88.4, 88.9, 88.6], 3.5, "reproduced"),
        ([89.4, 89.9, 89.6], [88.4, 88.9, 88.6], 3.5, "in part"),
        ([90.0, 88.0, 89.0], [88.4, 88.9, 88.6], 0.0, "in part"),
        ([87.4, 87.9, 87.6], [88.4, 88.9, 88.6], 3.5, "contradicted"),
        ([92.0], [88.4], 3.5, "not measured"),
        ([92.0, 93.0], [], 3.5, "not measured"),
    ],
)
def test_differences_are_judged_in_pairs(new: list[float], base: list[float], printed: float, word: str) -> None:
    from claims_trained import difference

    told = difference("new", "base", "t", printed, cells("t", {"new": new, "base": base}))
    assert told[0] == word
    if word == "reproduced":
        assert told[1] == "+3.57 points (95 %: +3.42 to +3.71), 3 seeds; cifar10, 30 epochs, a card"


GAINS = {"base": 0.0, "+1 in stage 1": 1.73, "+1 in stage 2": 1.6, "+1 in stage 3": 0.3, "+1 in stage 4": 0.01,
         "+1 in stage 5": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    ("slope", "seeds", "word"),
    [(0.5, 3, "reproduced"), (-0.5, 3, "contradicted"), (0.5, 1, "not measured"), (0.5, 0, "not measured")],
)
def test_the_trend_of_table_2(slope: float, seeds: int, word: str) -> None:
    from claims_trained import trend

    tops = {row: [90 + seed / 10 + slope * gain for seed in range(seeds)] for row, gain in GAINS.items()}
    told = trend(cells("table2", tops, gain=GAINS))
    assert told[0] == word
    if seeds == 3:
        assert f"Kendall of gain and accuracy {1 if slope > 0 else -1:.2f}" in told[1]
    tops["base"] = []
    assert trend(cells("table2", tops, gain=GAINS))[0] == "not measured"


def test_a_recovered_net_is_judged_beside_its_control() -> None:
    from claims_trained import recovery

    found = cells("recovery", {"resnet20": [80.0, 80.2, 80.4]})
    for cell in found["cells"].values():
        cell |= {"control": {"top1": cell["top1"] + 0.005}, "base": {"top1": 0.8}, "before": 0.7}
    word, told = recovery(found)
    assert word == "reproduced"
    assert told.startswith("-0.50 points (95 %: -0.50 to -0.50), 3 seeds against the control, -10.00 before training")
    for cell in found["cells"].values():
        cell["control"]["top1"] += 0.02
    assert recovery(found)[0] == "contradicted"


def test_results_are_brought_into_the_page_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evidence
    import run

    page, results = tmp_path / "evidence.md", tmp_path / "results"
    page.write_text((ROOT / "docs" / "evidence.md").read_text())
    monkeypatch.setattr(evidence, "PAGE", page)
    monkeypatch.setattr(evidence, "RESULTS", results)
    empty: dict[str, Any] = {"machines": {}, "checks": {}}
    tops = {row: [90 + seed / 10 + gain for seed in range(3)] for row, gain in GAINS.items()}
    made = cells("table2", tops, gain=GAINS, params=dict.fromkeys(GAINS, 9e6), macs=dict.fromkeys(GAINS, 153e6))
    first = dict(list(made["cells"].items())[:1])
    run.write(results / "gpu.json", {"cells": first | {"table2/other/0": first["table2/base/0"]}} | empty)
    run.write(tmp_path / "out" / "gpu.json", made | empty)
    assert run.bring(tmp_path / "out" / "gpu.json", results / "gpu.json") == 0
    assert json.loads((results / "gpu.json").read_text())["cells"].keys() == made["cells"].keys() | {"table2/other/0"}
    text = page.read_text()
    assert "| table2 | +1 in stage 1 | 153.0 | 9.00 | 1.73 | 91.83 | 0.10 | 3 |" in between(text, "gpu")
    assert "3 seeds; Kendall of gain and accuracy 1.00" in between(text, "papers")
    assert run.bring(tmp_path / "none" / "gpu.json", results / "gpu.json") == 1
