"""The Triton kernels of rolling pointwise convolution, in Triton's interpreter on the CPU and compiled for a GPU.

The interpreter is chosen when Triton is imported, so that a process of its own runs all cases: this file as a script.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from convsmith.kernels.rolling import dense_backward, dense_forward

CASES = (  # Cin, Cout, groups, overlap, stride
    (8, 5, 2, 0.5, 2),  # fewer channels than a block
    (12, 7, 4, 0.33, 1),
    (16, 3, 2, 0.33, 3),  # fewer outputs than windows
    (6, 4, 1, 0.5, 1),  # a pointwise convolution
    (6, 6, 6, 0.5, 1),  # windows of one channel
    (64, 24, 8, 0.75, 1),  # a lap of 32 outputs
    (64, 72, 4, 0.33, 1),  # laps that drift, more than one block of them
    (96, 70, 2, 0.25, 1),  # more than one block of channels
)
TYPES = {"float32": 1e-6, "bfloat16": 5e-3}  # largest relative error
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
RESULTS = ("y", "to x", "to weight", "to bias")
CELLS = [(case, dtype, layout) for case, dtype, layout in product(range(len(CASES)), TYPES, LAYOUTS)]

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton for this platform")


def errors() -> Iterator[list[float]]:
    """Relative errors against the dense way in float64, by cell and result."""
    from convsmith.kernels.rolling_triton import fused_backward, fused_forward

    for case, dtype, layout in CELLS:
        inputs, outputs, groups, overlap, stride = CASES[case]
        torch.manual_seed(case)
        x = torch.randn(2, inputs, 7, 6, dtype=torch.float64).contiguous(memory_format=LAYOUTS[layout])
        drawn = [x, torch.randn(outputs, inputs // groups), torch.randn(outputs)]
        x, weight, bias = (each.to(getattr(torch, dtype)) for each in drawn)
        y = fused_forward(x, weight, bias, groups, overlap, stride)
        assert y.is_contiguous(memory_format=LAYOUTS[layout])
        grad = torch.randn_like(y)
        found = (y, *fused_backward(grad, x, weight, groups, overlap, stride, [True] * 3))
        x, weight, bias, grad = (each.double() for each in (x, weight, bias, grad))
        wanted = (
            dense_forward(x, weight, bias, groups, overlap, stride),
            *dense_backward(grad, x, weight, groups, overlap, stride, [True] * 3),
        )
        yield [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]


@pytest.fixture(scope="module")
def measured() -> list[list[float]]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert not told.returncode, told.stderr
    found: list[list[float]] = json.loads(told.stdout)
    return found


@pytest.mark.parametrize(("case", "dtype", "layout"), CELLS)
def test_answers_what_the_dense_way_does(measured: list[list[float]], case: int, dtype: str, layout: str) -> None:
    row = measured[CELLS.index((case, dtype, layout))]
    assert {name: error for name, error in zip(RESULTS, row, strict=True) if not error < TYPES[dtype]} == {}


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from convsmith.kernels.rolling_triton import CHANNELS, LAPS, PIXELS, _forward, _to_input, _to_weight

HOPPER = GPUTarget("cuda", 90, 32)

def shared(kernel, options=None, **chosen):
    constants = {"PRECISION": "tf32", "LAPS": LAPS, "CHANNELS": CHANNELS, "xc": 1, "gc": 1, "yc": 1, "BIASED": True}
    constants = {name: value for name, value in (constants | chosen).items() if name in kernel.arg_names}
    pointers = {"x", "weight", "bias", "y", "grad", "grad_x", "parts", "bias_parts"}
    types = {name: "*fp32" if name in pointers else "i32" for name in kernel.arg_names}
    source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    return triton.compile(source, target=HOPPER, options=options).metadata.shared

print([
    shared(_forward, lap=8, LAP=8, PIXELS=64),
    shared(_forward, {"num_stages": 2}, lap=32, LAP=32, PIXELS=16),
    shared(_to_input, lap=8, PIXELS=PIXELS),
    shared(_to_weight, lap=8, PIXELS=PIXELS),
])
"""


def test_compiles_for_hopper_within_its_shared_memory(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    told = subprocess.run([sys.executable, "-c", COMPILE], env=os.environ | settings, capture_output=True, text=True)
    assert not told.returncode, told.stderr
    assert all(0 < each <= 227 * 1024 for each in json.loads(told.stdout)), told.stdout


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list(errors())))
