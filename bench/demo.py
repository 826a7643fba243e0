"""Run the README's main job and keep its numbers: `python bench/demo.py [FOLDER]` writes bench/results/demo.json
and the README's table.

FOLDER, if given, is where the run goes (or went: a finished run is read, not repeated).
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from convsmith.files import write_text
from convsmith.optimize import Settings, run
from convsmith.report import read_run
from convsmith.report.tables import before_after_rows

RESULT = Path(__file__).parent / "results" / "demo.json"
README = Path(__file__).parent.parent / "README.md"
SETTINGS = Settings("vgg16", "digits")


def main() -> None:
    with TemporaryDirectory() as scratch:
        out = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        began = perf_counter()
        run(SETTINGS, out)
        records = read_run(out)
        told = {
            "what": "convsmith optimize vgg16 --data digits",
            "columns": ["", "baseline", "optimized", "change"],
            "rows": before_after_rows(records),
            "seconds": round(perf_counter() - began, 1),
            **records.environment,
        }
    write_text(RESULT, json.dumps(told, indent=1) + "\n")
    before, _, rest = README.read_text().partition("<!-- demo -->\n")
    write_text(README, f"{before}<!-- demo -->\n{markdown(told)}{rest[rest.index('<!-- /demo -->') :]}")


def markdown(told: dict[str, Any]) -> str:
    rows = [told["columns"], ["---", "---:", "---:", "---:"], *told["rows"]]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
