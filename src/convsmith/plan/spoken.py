"""Records of pydantic's that tell in a sentence what they cannot be made of."""

from functools import wraps
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from convsmith.errors import PlanError

STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")


def spoken(record: type[T]) -> type[T]:
    """Have a record of pydantic's tell in a sentence what it cannot be made of."""
    begin = record.__init__

    @wraps(begin)
    def init(self: T, *args: Any, **values: Any) -> None:
        try:
            begin(self, *args, **values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            got = f"{where}: got {first['input']!r:.60}, of type {type(first['input']).__name__}"
            raise PlanError(f"{record.__name__}: {got}; {first['msg']}.") from None

    record.__init__ = init  # type: ignore[method-assign, assignment]
    return record
