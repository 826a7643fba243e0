"""What a claim is, and how measured differences are judged: paired by seed, with a 95 % interval."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

REPRODUCED, CONTRADICTED, IN_PART, NOT_MEASURED = "reproduced", "contradicted", "in part", "not measured"
WORDS = (REPRODUCED, CONTRADICTED, IN_PART, NOT_MEASURED)
FEWEST = 2  # seeds: one has no spread

WANG = "Wang et al., CIKM 2021"
HE = "He et al., 2019"
ZHONG = "Zhong et al., WACV 2019"
OURS = "ours"

Found = Mapping[str, Any]
Told = tuple[str, str]  # one of WORDS, and what came out


@dataclass(frozen=True)
class Claim:
    """A sentence that is true or not, where it is from, what measures it, where that is kept, and who judges it.

    `result` is a file of bench/results. Without it, or with no such file, the claim is not measured.
    """

    text: str
    source: str
    script: str
    result: str
    judge: Callable[[Found], Told]


CLAIMS: list[Claim] = []  # in the order of the page


def claim(text: str, source: str, script: str = "", result: str = "") -> Callable[[Callable[[Found], Told]], None]:
    """Register the judge below as that of a claim."""

    def add(judge: Callable[[Found], Told]) -> None:
        CLAIMS.append(Claim(text, source, script, result, judge))

    return add


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t; raises ValueError on fewer than two values.

    >>> [round(bound, 3) for bound in interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    if len(values) < FEWEST:
        raise ValueError(f"{len(values)} values have no spread")
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean(values) - half, mean(values) + half


def verdict(differences: Sequence[float], printed: float = 0.0) -> str:
    """What differences, one a seed and wanted above 0, say of a claim that prints one.

    Reproduced where the interval lies above 0 and the mean is at least half of what is printed. Contradicted where it
    lies below 0. Else in part. Without a spread it is not measured.

    >>> verdict([3.0, 3.5, 4.0], 3.5), verdict([0.5, 0.6, 0.7], 3.5), verdict([-1.0, -1.1, -0.9]), verdict([1.0])
    ('reproduced', 'in part', 'contradicted', 'not measured')
    """
    if len(differences) < FEWEST:
        return NOT_MEASURED
    low, high = interval(differences)
    if high < 0:
        return CONTRADICTED
    return REPRODUCED if low > 0 and mean(differences) >= printed / 2 else IN_PART


def share(hits: Iterable[bool]) -> tuple[str, int, int]:
    """The word for a claim of many cases, how many of them hold, and how many there are.

    >>> share([True, True]), share([True, False]), share([False, False])
    (('reproduced', 2, 2), ('in part', 1, 2), ('contradicted', 0, 2))
    """
    held = list(hits)
    word = REPRODUCED if all(held) else IN_PART if any(held) else CONTRADICTED
    return word, sum(held), len(held)


def points(differences: Sequence[float]) -> str:
    """A mean of differences in points, with its interval where there is one, and the number of seeds.

    >>> points([1.0]), points([1.0, 2.0, 3.0])
    ('+1.00 points, 1 seed', '+2.00 points (95 %: -0.48 to +4.48), 3 seeds')
    """
    if len(differences) < FEWEST:
        return f"{mean(differences):+.2f} points, 1 seed"
    low, high = interval(differences)
    return f"{mean(differences):+.2f} points (95 %: {low:+.2f} to {high:+.2f}), {len(differences)} seeds"


def where(found: Found) -> str:
    """The processor of a result file."""
    return str(found.get("hardware", found.get("environment", {}).get("hardware", {})).get("cpu", ""))
