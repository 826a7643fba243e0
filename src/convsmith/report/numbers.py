"""Numbers as people read them."""

from convsmith.text import times

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """Three or four figures and a unit.

    >>> count(14_728_266), count(313_201_664), count(36_928), count(640)
    ('14.73 M', '313.2 M', '36.93 k', '640')
    """
    for size, unit in UNITS:
        if abs(value) >= size * 0.99995:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g}"


def side(values: tuple[int, ...]) -> str:
    """A map or window: one number where all sides are alike.

    >>> side((32, 32)), side((20, 30)), side(())
    ('32', '20x30', '')
    """
    return times(values[:1] if len(set(values)) == 1 else values)


def percent(part: float) -> str:
    """An accuracy.

    >>> percent(0.9128)
    '91.28 %'
    """
    return f"{100 * part:.2f} %"


def share(part: float, whole: float) -> str:
    """How much of a whole.

    >>> share(1, 3), share(0, 0)
    ('33.3 %', '')
    """
    return f"{100 * part / whole:.1f} %" if whole else ""


def change(before: float, after: float) -> str:
    """What `after` is of `before`.

    >>> change(200, 50), change(0, 3)
    ('0.250x', '')
    """
    return f"{after / before:.3f}x" if before else ""


def milliseconds(value: float) -> str:
    """A latency.

    >>> milliseconds(0.1234), milliseconds(123.4)
    ('0.123 ms', '123 ms')
    """
    return f"{value:#.3g}".rstrip(".") + " ms"
