"""Ctrl-C is never lost: a library that swallows it, or a shell that had it ignored, does not make work go on."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """While entered, SIGINT raises KeyboardInterrupt, and `check` raises it again where that was swallowed.

    Python loses what is raised in a destructor or in a callback of C code. A shell starts what runs in the background
    with SIGINT ignored.
    """

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other can have a handler
            self._before = signal.signal(signal.SIGINT, self._raise)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before)
        self.check(error)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt

    def check(self, error: BaseException | None = None) -> None:
        """Raise KeyboardInterrupt where one came, whatever error a library made of it."""
        if self.came:
            raise KeyboardInterrupt from error
