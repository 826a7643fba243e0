"""Read the net in a .pt2 file without running code that the file holds or names."""

import struct
import zlib
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

from convsmith.errors import ConvsmithError
from convsmith.graph.capture import FORWARD_ERRORS
from convsmith.pt2.archive import CONSTANTS, WEIGHTS, Archive, UnsafeError
from convsmith.pt2.program import Program

# What a broken file is seen to raise.
PT2_ERRORS: tuple[type[Exception], ...] = (
    *FORWARD_ERRORS, OSError, EOFError, MemoryError, BadZipFile, struct.error, zlib.error, UnpicklingError,
)  # fmt: skip


def read_program(path: Path) -> Program:
    """The net in a .pt2 file of torch.export, on the CPU.

    Its graph is JSON and its weights are bytes; its sample inputs, guards and expressions are not looked at. What the
    file holds beyond that, and calls of anything but listed operators, would need torch.export.load, which runs code.
    Raises ConvsmithError where the file is broken, and where it needs that.
    """
    try:
        with Archive(path) as archive:
            name, record = archive.program()
            tensors = archive.tensors(WEIGHTS, name) | archive.tensors(CONSTANTS, name)
        return Program(record, tensors)
    except UnsafeError as error:
        raise ConvsmithError(
            f"{path}: holds {error}, which is not read as plain data; give --trust (in Python trust=True) if the file "
            "is yours: torch.export.load then reads it, and runs any code in it."
        ) from error
    except PT2_ERRORS as error:
        lines = (line.strip() for line in str(error).splitlines())
        why = f"{type(error).__name__}: {next(filter(None, lines), 'no reason told')}".rstrip(".:")
        raise ConvsmithError(f"{path}: cannot be read ({why[:200]}); export it again.") from error
