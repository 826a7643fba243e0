"""How far long work is, on stderr: a bar with the time to go on a terminal, elsewhere a line every few seconds."""

from dataclasses import dataclass
from threading import Event, Lock, Thread
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

EVERY = 10.0  # seconds between lines where there is no terminal
LOOK = 0.5  # seconds between looks at whether a line is due


@dataclass(frozen=True)
class Phase:
    """Work of one kind: what is being done, how many steps of how many are over, and when and where it began."""

    what: str
    done: int
    total: int
    began: float
    first: int

    def to_go(self, now: float) -> float | None:
        """Seconds to go, if the rest is as fast as what is over; None before a step is over."""
        over = self.done - self.first
        return (now - self.began) / over * (self.total - self.done) if over > 0 else None

    def line(self, now: float) -> str:
        """The same in words."""
        place = f" ({min(self.done + 1, self.total)}/{self.total})" if self.total > 1 else ""
        left = self.to_go(now)
        return f"{self.what}{place}, " + (f"{clock(now - self.began)} so far" if left is None else told(left))


def told(seconds: float) -> str:
    """A time to go.

    >>> told(75), told(0.2)
    ('about 1:15 to go', 'about 0:00 to go')
    """
    return f"about {clock(seconds)} to go"


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(75), clock(3725)
    ('1:15', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Teller:
    """Says how far work is, from a thread of its own: also while a single step takes long."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: dict[tuple[str, int], Phase] = {}
        self._now: Phase | None = None
        self._said = monotonic()
        self._lock, self._over = Lock(), Event()
        self._bar: Progress | None = None
        self._thread: Thread | None = None

    def tell(self, what: str, done: int, total: int) -> None:
        """Work is at this step; what begins with another word, or has another number of steps, is other work."""
        kind, now = (what.partition(" ")[0], total), monotonic()
        with self._lock:
            before = self._phases.get(kind)
            fresh = before is None or done < before.done or total <= 1
            began, first = (now, done) if fresh or before is None else (before.began, before.first)
            self._now = self._phases[kind] = Phase(what, done, total, began, first)
        if self._console.quiet:
            return
        if self._console.is_terminal:
            self._draw(now)
        else:
            self._watch()
            self._print(now)

    def said(self) -> None:
        """Something else was printed."""
        self._said = monotonic()

    def close(self) -> None:
        """No work is left to tell of."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._now = None

    def _draw(self, now: float) -> None:
        assert self._now is not None
        if self._bar is None:
            columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn()
            self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console, transient=True,
                                 refresh_per_second=4)  # fmt: skip
            self._bar.add_task("", left="")
            self._bar.start()
        phase, task = self._now, self._bar.tasks[0]
        if task.fields.get("began") != phase.began:
            self._bar.reset(task.id, began=phase.began, left="")
        left = phase.to_go(now)
        self._bar.update(
            task.id, description=phase.what, completed=phase.done, total=phase.total if phase.total > 1 else None,
            left="" if left is None else told(left),
        )  # fmt: skip

    def _watch(self) -> None:
        """Begin to look, if nobody does yet."""
        if self._thread is None:
            self._over.clear()
            self._thread = Thread(target=self._look, daemon=True)
            self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK):
            self._print(monotonic())

    def _print(self, now: float) -> None:
        """A line, if one is due."""
        with self._lock:
            phase = self._now
            if phase is None or now - self._said < EVERY:
                return
            self._said = now
        self._console.print(phase.line(now), style="dim", soft_wrap=True, markup=False)
