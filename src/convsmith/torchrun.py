"""Which of the processes that torchrun started this is; told without torch, which takes seconds to import."""

import os

from convsmith.errors import ConvsmithError


def rank() -> int:
    """The number of this process among those that torchrun started, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes torchrun started, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_alone(command: str) -> None:
    """Refuse to do the same work in each of several processes."""
    if count() > 1:
        raise ConvsmithError(
            f"{command}: does not share its work among {count()} processes; start it without torchrun, "
            "which speeds up `convsmith train` and `evaluate`, and `decompose` and `apply` with --data."
        )
