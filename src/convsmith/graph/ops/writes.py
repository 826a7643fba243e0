"""What a view holds after a write into a part of its memory through another view."""

import numpy as np

from convsmith.graph.call import Answer, Call, Seen, joining
from convsmith.graph.lattice import Box
from convsmith.reach import Reach
from convsmith.reach.unions import union
from convsmith.reach.windows import Taps

OVERWRITTEN = "convsmith.overwritten.default"


@joining(OVERWRITTEN)
def overwritten(call: Call, seen: Seen) -> Answer:
    """`part` where it was written, what stood there before elsewhere; `view` and `written` are boxes in one owner."""
    before, now = seen
    view, written = call["view"], call["written"]
    parts = [] if now is None else [_placed(_boxed(now, written), view, written)]
    if before is not None:
        parts += _left(_boxed(before, view), view, written)
    seen_by = parts or [x.nothing(view.count) for x in (before, now) if x is not None]
    return _viewed(union(seen_by, view.count), view)


def _boxed(x: Reach, box: Box) -> Reach:
    """A view's reach with the dimensions of its box."""
    x = x.reshape(box.pieces)
    x = x.permute(sorted(range(len(box.order)), key=box.order.__getitem__))
    for dim in range(len(box.count)):
        x = x if dim in box.order else x.insert(dim)
    return x


def _viewed(x: Reach, box: Box) -> Reach:
    """The reach of a box with the dimensions of its view."""
    for dim in reversed(range(len(box.count))):
        x = x if dim in box.order else x.drop(dim)
    inner = sorted(box.order)
    return x.permute([inner.index(dim) for dim in box.order]).reshape(box.shape)


def _placed(x: Reach, view: Box, written: Box) -> Reach:
    """What was written, on the view's box: nothing where it lies beside."""
    for dim in range(len(view.count)):
        ahead, pace = view.ahead(written, dim), view.pace(written, dim)
        taps = Taps(view.places(written, dim)[:, None], ahead, ahead, pace)
        x = x if taps.identity and x.shape[dim] == view.count[dim] else x.select(dim, taps)
    return x


def _left(x: Reach, view: Box, written: Box) -> list[Reach]:
    """What was there before, outside of what was written: dimension by dimension, as the rest of a box is none."""
    rest = []
    for dim, count in enumerate(view.count):
        outside = view.places(written, dim) < 0
        if outside.any():
            rest.append(x.select(dim, Taps(np.where(outside, np.arange(count), -1)[:, None])))
    return rest
