"""What writes a file says in a sentence that the disk is full, and leaves nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Beyond this many bytes a file is too large: the system refuses it as it does on a full disk, at the same calls.
LIMITED = """
import json, resource, sys
from typer.testing import CliRunner
from convsmith.cli.app import app
limit, *args = json.loads(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
result = CliRunner().invoke(app, args)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(json.dumps({"status": result.exit_code, "error": repr(result.exception), "told": result.stderr}))
"""
NET = ["own_net:make", "--input", "3,32,32"]
DIGITS = ["--data", "digits"]
WRITERS = {
    "a model": (8_000, ["apply", *NET[:1], "PLAN", *NET[1:], "--classes", "10", "--out", "OUT"]),
    "a plan": (500, ["decompose", *NET, "--block", "dw-pw", "-o", "OUT/plan.json"]),
    "a page": (8_000, ["analyze", *NET, "--html", "OUT/page.html"]),
    "a program": (8_000, ["export", *NET, "--format", "pt2", "--out", "OUT"]),
    "a program, at its end": (60_000, ["export", *NET, "--format", "pt2", "--out", "OUT"]),
    "better stages": (100, ["organize", "resnet20", "--max-macs", "1.2x", "-o", "OUT/plan.json"]),
    "blocks": (100, ["search", "8", "8", "--map", "8", "--json", "OUT/blocks.json"]),
    "a deeper net's plan": (100, ["expand", *NET, "-o", "OUT/plan.json"]),
    "norms": (8_000, ["train", *NET, *DIGITS, "--recover", "bn", "--out", "OUT"]),
    "a graph": (8_000, ["export", *NET, "--format", "onnx", "--out", "OUT"]),
    "a checkpoint": (8_000, ["train", *NET, *DIGITS, "--epochs", "1", "--out", "OUT"]),
    "statistics": (
        8_000,
        ["apply", *NET[:1], "PLAN", *NET[1:], *DIGITS, "--stats", "OUT/s.safetensors", "--out", "OUT"],
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize(("limit", "args"), WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path, limit: int, args: list[str]) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    if "PLAN" in args:
        command = [
            *_python("from convsmith.cli import main; main()"),
            "decompose",
            *NET,
            "--block",
            "dw-pw",
            "-o",
            plan,
        ]
        subprocess.run(command, check=True, cwd=Path(__file__).parent, capture_output=True)
    filled = [arg.replace("OUT", str(out)).replace("PLAN", str(plan)) for arg in args]
    child = subprocess.run(
        [*_python(LIMITED), json.dumps([limit, *filled])], cwd=Path(__file__).parent, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert child.returncode == 0, f"it was aborted: {child.stderr[-300:]}"
    told = json.loads(child.stdout.splitlines()[-1])
    assert (told["status"], told["error"]) == (1, "SystemExit(1)"), told
    sentence = told["told"].strip().splitlines()[-1]
    assert sentence.startswith("convsmith: ")
    assert "cannot be written (File too large); choose another folder." in sentence
    assert not [path for path in tmp_path.rglob("*") if path != plan], "files or folders are left"


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]
