"""Timing in turns: what else the machine does strikes all alike."""

from collections.abc import Callable, Mapping
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 21  # readings of each run, taken in turn; fewer where a single run is slow
# Two equal models with noisy times got a verdict in 3.6 % of 1000 draws of 9 rounds, in 8.4 % of 7: the bounds that a
# bootstrap finds from fewer are too tight.
FEWEST = 9

SINGLE = 60  # single runs of each, where they are read one by one

Run = Callable[[], Any]
Times = NDArray[np.float64]  # seconds per run, a reading each


def clock_for(threads: int, device: str = "cpu") -> Callable[[], float]:
    """What tells the time: the processor's own on one thread, which other processes do not lengthen.

    On a busy machine the wall clock tells of a run of 3 ms that it takes 7: it is put aside once for others.
    """
    return process_time if threads == 1 and device == "cpu" else perf_counter


def take_turns(
    runs: Mapping[str, Run], seconds: float, threads: int, clock: Callable[[], float] = perf_counter
) -> dict[str, Times]:
    """Seconds per run of every subject in each round; the order turns round from one round to the next.

    Every reading starts with an untimed run, as the caches hold another subject. It is the median over half its share
    of the time, or one run. After FEWEST rounds, no more are begun once `seconds` per subject are over.
    """
    from torch.utils.benchmark import Timer  # importing it warns where there is a CUDA toolkit, but no GPU

    timers = {
        name: Timer("run()", globals={"run": run}, num_threads=threads, timer=clock) for name, run in runs.items()
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = clock() + seconds * len(runs)
    for number in range(ROUNDS):
        if number >= FEWEST and clock() >= end:
            break
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(timers[name].blocked_autorange(min_run_time=seconds / ROUNDS / 2).median)
    return {name: np.array(values) for name, values in times.items()}


def take_single_turns(
    runs: Mapping[str, Run], evict: Mapping[str, int], seconds: float, clock: Callable[[], float] = perf_counter
) -> dict[str, Times]:
    """Seconds of single runs in turn, each as it is in a net: behind a pass over `evict` bytes of other weights.

    A convolution run over and over finds its weights in the nearest cache, in a net it does not: VGG16's last ones
    take 2.3 times as long there. What evicts nothing is run untimed first, as the caches hold another subject. After
    FEWEST rounds, no more are begun once `seconds` per subject are over.
    """
    others = np.ones(max(evict.values(), default=0) // 4 + 1, np.float32)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = perf_counter() + seconds * len(runs)
    for number in range(SINGLE):
        if number >= FEWEST and perf_counter() >= end:
            break
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            if size := evict.get(name, 0):
                others[: size // 4].sum()
            else:
                runs[name]()
            begin = clock()
            runs[name]()
            times[name].append(clock() - begin)
    return {name: np.array(values) for name, values in times.items()}
