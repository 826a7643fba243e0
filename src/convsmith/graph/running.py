"""Which module of a model runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from warnings import catch_warnings, filterwarnings

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class Running:
    """The modules that run now, each inside the one before it; modules: by path.

    >>> net = nn.Sequential(nn.ReLU())
    >>> running = Running(dict(net.named_modules()))
    >>> with running.watched():
    ...     handle = net[0].register_forward_pre_hook(lambda *_: print(repr(running.path)))
    ...     made = net(nn.Parameter())
    '0'
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._paths = {id(module): path for path, module in modules.items()}
        self._stack = [""]

    @property
    def path(self) -> str:
        """Of the innermost; empty for the model itself."""
        return self._stack[-1]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Know at every call: by one hook for all, and behind hooks of a module's own by one more there."""
        hooked = [module for module in self._modules.values() if module._forward_hooks]
        apart = {id(module) for module in hooked}

        def entering(module: nn.Module, args: Any) -> None:
            if id(module) in self._paths:
                self._stack.append(self._paths[id(module)])

        def leaving(module: nn.Module, args: Any, out: Any) -> None:
            if id(module) in self._paths and id(module) not in apart:
                self._stack.pop()

        handles = [register_module_forward_pre_hook(entering), register_module_forward_hook(leaving)]
        handles += [module.register_forward_hook(self._left) for module in hooked]
        try:
            with catch_warnings():  # compiled parts warn of hooks that run twice, which does no harm here
                filterwarnings("ignore", "Using `torch.compile", UserWarning)
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _left(self, module: nn.Module, args: Any, out: Any) -> None:
        self._stack.pop()
