"""What a net's own code raises while a command runs it, told in a sentence."""

import re
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

from convsmith.errors import ConvsmithError, reason_of

OURS = Path(__file__).parents[1]
INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
# What torch says of it, and the library of its convolutions.
NO_MEMORY = re.compile(
    "can't allocate memory|cannot allocate memory|out of memory|bad_alloc|not create a primitive$", re.IGNORECASE
)


class OwnCode:
    """Tells what a user's code raises, `sys.exit` in a forward among it; errors of ours go through.

    So do Ctrl-C, and want of memory, which is told by itself.
    """

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell an error of the user's as one sentence."""
        if error is None or isinstance(error, KeyboardInterrupt | ConvsmithError | MemoryError):
            return
        place, reason = _place(trace), reason_of(error)
        if place is not None and not NO_MEMORY.search(reason):
            raise ConvsmithError(f"The net's own code ({place}) raised {reason}; mend it there.") from error


def _place(trace: TracebackType | None) -> str | None:
    """Where the user's code raised, or what it called of a library; None where ours did."""
    for frame in reversed(traceback.extract_tb(trace)[2:]):  # behind the command itself
        path = Path(frame.filename)
        if path.is_relative_to(OURS):
            return None
        if path.suffix == ".py" and not any(path.is_relative_to(folder) for folder in INSTALLED):
            return f"{path.name}, line {frame.lineno}, in {frame.name}"
    return None
