"""Limits as a user writes them: a share of the model's own, or an absolute number of MACs, parameters or seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite

from convsmith.errors import BudgetError

# Plain numbers up to here are shares: nobody allows a net to grow a thousandfold.
LARGEST_SHARE = 1000.0
SHARES = {"x": 1.0, "%": 0.01}
COUNTS = {"k": 1e3, "m": 1e6, "g": 1e9}
SECONDS = {"ms": 1e-3, "us": 1e-6, "s": 1.0}


@dataclass(frozen=True)
class Limit:
    """A limit as it was written: a `share` of the base's own value, or `absolute` in the unit of what it limits."""

    share: float | None
    absolute: float | None

    def of(self, base: float) -> float:
        """As a multiple of the base's value; a hair above it, so that rounding never refuses an exact fit."""
        return self.share if self.share is not None else (self.absolute or 0.0) / base * (1 + 1e-12)


def read_limit(limit: float | str, name: str = "max_macs") -> Limit:
    """Read a limit: `0.5`, `"0.5x"` and `"50%"` are shares; `"300M"`, `"1.5G"`, `"250k"` and `"5ms"` absolute.

    Args:
        limit: a number, or text as above. Numbers over 1000 are absolute.
        name: what is limited; `max_latency` takes milliseconds (`ms`, `us`, `s`), everything else `k`, `M` and `G`.

    Raises:
        ConvsmithError: where it cannot be read, or is not above 0.

    >>> read_limit("50%"), read_limit("300M").absolute, read_limit("5ms", "max_latency").absolute
    (Limit(share=0.5, absolute=None), 300000000.0, 0.005)
    """
    units, example = (SECONDS, "5ms") if "latency" in name else (COUNTS, "300M")
    try:
        return _read(limit, units)
    except ValueError:
        raise BudgetError(f"{name}: {limit!r} cannot be read; write a limit above 0, as 0.5x or {example}.") from None


def share_of(limit: float | str | None, base: float, name: str = "max_macs") -> float | None:
    """A limit as a multiple of the base's value; None where there is none."""
    return None if limit is None else read_limit(limit, name).of(base)


def _read(limit: float | str, units: Mapping[str, float]) -> Limit:
    if limit == inf:  # from Python: none at all
        return Limit(inf, None)
    text = str(limit).strip().lower()
    for suffix, scale in SHARES.items():
        if text.endswith(suffix):
            return Limit(_positive(text.removesuffix(suffix)) * scale, None)
    for suffix, scale in units.items():
        if text.endswith(suffix):
            return Limit(None, _positive(text.removesuffix(suffix)) * scale)
    number = _positive(text)
    return Limit(number, None) if number <= LARGEST_SHARE else Limit(None, number)


def _positive(text: str) -> float:
    number = float(text)
    if not (isfinite(number) and number > 0):
        raise ValueError
    return number
