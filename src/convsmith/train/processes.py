"""The processes that share a training, and what they tell each other."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, distributed, nn

from convsmith.calibration.sharing import agree
from convsmith.errors import ConvsmithError
from convsmith.torchrun import count
from convsmith.train.place import lent, pick_device

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # how long one waits for another that still runs
LOST = re.compile("closed by peer|reset by peer|broken pipe|timed out|nccl|remote process|gloo", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Processes:
    """Those who share a training, this process among them, and the device it computes on."""

    accelerator: Accelerator
    device: torch.device

    @property
    def share(self) -> tuple[int, int]:
        """Which part of each batch is this process's: (its number from 0, how many there are)."""
        return self.accelerator.process_index, self.accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this is the one that reads and writes a run's folder."""
        return self.share[0] == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.share[1] > 1

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.several:
            distributed.all_reduce(tensor)
        return tensor

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all."""
        if not self.several:
            return make()
        held = [make() if self.first else None]
        distributed.broadcast_object_list(held, src=0, device=self.device)
        made: T = held[0]  # type: ignore[assignment]
        return made

    def agree(self, model: nn.Module) -> None:
        """Give all the first one's buffers: each has its own BatchNorm statistics after a step."""
        if self.several:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


def joined(name: str | None) -> Processes:
    """Join the processes that torchrun or `accelerate launch` started, with gloo on the CPU and nccl on GPUs.

    name: cpu or cuda, None for the GPUs where there are any. Alone, the process is the first of one.
    Raises ConvsmithError where there are more processes than GPUs on this machine.
    """
    device = pick_device(name)
    if count() == 1:
        return Processes(Accelerator(mixed_precision="no", device_placement=False), device)
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if device.type == "cuda" and here > gpus:
        raise ConvsmithError(f"device: {here} processes have {gpus} GPUs here; start one for each, or give cpu.")
    if device.type == "cuda" and device.index is not None:
        raise ConvsmithError(f"device: {name!r} is one GPU, and there are {count()} processes; give cuda.")
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision="no", device_placement=False,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )  # fmt: skip
    return Processes(accelerator, accelerator.device)


def leave() -> None:
    """Leave the others, at the end of all work."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def together() -> Iterator[None]:
    """Tell in a sentence that another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if count() > 1 and LOST.search(str(error)):
            raise ConvsmithError(
                "Another process of this run has ended; once its cause is mended, give the same command again, "
                "which goes on where it can."
            ) from error
        raise


@contextmanager
def at_work(model: nn.Module, name: str | None) -> Iterator[None]:
    """Have a model on a device, together with the other processes that torchrun started, where there are any.

    name: cpu or cuda, None for the GPUs where there are any.
    """
    device = joined(name).device if count() > 1 else pick_device(name)
    with together(), lent(model, device):
        agree(model)  # a net without weights is another in each process
        yield
