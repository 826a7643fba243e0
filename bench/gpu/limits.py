"""What a GPU can do at most: bytes copied and multiply-accumulates done in a second, and a clock that waits for it."""

from time import perf_counter

import torch

from convsmith.latency.interleaved import take_turns


def clock() -> float:
    """Seconds, once the GPU has done all it was given."""
    torch.cuda.synchronize()
    return perf_counter()


def copied() -> float:
    """Bytes a second, read and written each counted, of a copy too large for any cache."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    (times,) = take_turns({"copy": lambda: target.copy_(source)}, 0.5, 1, clock).values()
    return 2 * source.nbytes / float(sorted(times)[len(times) // 2])


def multiplied(dtype: torch.dtype) -> float:
    """Multiply-accumulates a second of a large matrix product; of float32 in tf32, as convolutions are by default."""
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    left, right = (torch.randn(8192, 8192, device="cuda").to(dtype) for _ in range(2))
    (times,) = take_turns({"product": lambda: left @ right}, 0.5, 1, clock).values()
    torch.backends.cuda.matmul.allow_tf32 = before
    return 8192**3 / float(sorted(times)[len(times) // 2])
