"""What is asked of a fit: one record that blocks hand through to the algebra."""

from dataclasses import dataclass

from convsmith.algebra.second_moments import Rows, Statistics


@dataclass(frozen=True, eq=False)
class FitRequest:
    """How a trained weight is to be fitted.

    method: a name in METHODS; None for the best that knows the form: `als`, else `gsvd`, with statistics; `svd`, else
    `als`, without. statistics: moments of the layer's patches against the responses wanted; without them the weight is
    all that is fitted. rows: patches and responses on which the last factor is refitted for the ReLU behind it; they
    need statistics. draft: descend a fifth as far, enough to compare ranks and layers by.
    """

    method: str | None = None
    statistics: Statistics | None = None
    rows: Rows | None = None
    draft: bool = False


WEIGHT_ALONE = FitRequest()  # by the best method, without data
