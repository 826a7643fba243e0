"""What others wrap models in, and how to come to the model itself."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from convsmith.errors import CaptureError

# By class: the attribute of the model that was wrapped, whose calls are the same.
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of DataParallel, torch.compile and their like.

    Raises ConvsmithError on TorchScript and exported programs, which hide their calls.

    >>> unwrapped(nn.DataParallel(nn.ReLU()))
    ReLU()
    """
    while attribute := next(filter(None, map(_held, type(model).__mro__)), None):
        model = model.get_submodule(attribute)
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"{type(model).__name__}: {path}" if path else type(model).__name__
            raise CaptureError(
                f"{where} is TorchScript, which hides its calls; give the model it was made from, in a wrapper "
                "model.module."
            )
    return model


def _held(kind: type) -> str | None:
    return WRAPPERS.get(f"{kind.__module__}.{kind.__qualname__}")


def uninitialized(model: nn.Module) -> list[str]:
    """The lazy modules that have not run yet, so that their weights have no shape."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    waiting = [name for name, tensor in tensors if is_lazy(tensor)]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in waiting))
