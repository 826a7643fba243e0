"""Limits are read alike everywhere: shares, absolute numbers, milliseconds, and a sentence for the rest."""

import pytest

from convsmith.errors import ConvsmithError
from convsmith.limits import read_limit, share_of

# What is written, of what, and what it comes to as a share of 400 million.
READ = [
    (0.5, "max_macs", 0.5), ("0.5", "max_macs", 0.5), ("0.5x", "max_macs", 0.5), ("50%", "max_macs", 0.5),
    ("200M", "max_macs", 0.5), ("200m", "max_macs", 0.5), ("0.2G", "max_macs", 0.5), ("200000k", "max_macs", 0.5),
    (200_000_000, "max_macs", 0.5), ("1.2x", "max_params", 1.2), (2, "max_params", 2.0), (" 50% ", "max_macs", 0.5),
    ("5ms", "max_latency", 5e-3 / 4e8), ("2s", "max_latency", 2 / 4e8), ("70us", "max_latency", 7e-5 / 4e8),
    ("0.5x", "max_latency", 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("limit", "name", "share"), READ)
def test_a_limit_is_a_share_of_the_base(limit: float | str, name: str, share: float) -> None:
    assert share_of(limit, 4e8, name) == pytest.approx(share)
    assert share_of(None, 4e8, name) is None


def test_an_exact_fit_is_never_refused_by_rounding() -> None:
    assert all(read_limit(str(macs)).of(macs) * macs >= macs for macs in range(1001, 5000, 7))


@pytest.mark.parametrize("name", ["max_macs", "max_latency"])
@pytest.mark.parametrize("text", ["", "x", "%", "much", "0", "-1", "0x", "nan", "inf", "1e999x", "5kg", "M"])
def test_what_is_no_limit_is_refused(text: str, name: str) -> None:
    with pytest.raises(ConvsmithError, match=rf"^{name}: '{text}' cannot be read; write a limit above 0, as 0.5x or "):
        read_limit(text, name)


@pytest.mark.parametrize(("text", "name"), [("5ms", "max_macs"), ("300M", "max_latency")])
def test_units_belong_to_what_is_limited(text: str, name: str) -> None:
    with pytest.raises(ConvsmithError, match="cannot be read"):
        read_limit(text, name)
