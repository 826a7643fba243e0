"""Ops that normalize: what their statistics are taken over is mixed."""

from convsmith.graph.call import Answer, Call, Seen, dim_of, in_numel, joining, unary
from convsmith.reach import Reach
from convsmith.reach.unions import union


def _ptflops(call: Call) -> int:
    return 2 * in_numel(call)


@unary("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default", ptflops=_ptflops)
def batch_norm(call: Call, x: Reach) -> Answer:
    """In evaluation a scale and a shift per channel: nothing moves. With the map's own statistics, all of it mixes."""
    of_batch = call.args.get("training", False) or call["running_mean"] is None
    x = x.mix(*range(2, len(x.shape))) if of_batch else x
    return x if len(call.outs) == 1 else (x, *(x.nothing(shape) for shape in call.outs[1:]))


@unary("aten.layer_norm.default", "aten.rms_norm.default")
def layer_norm(call: Call, x: Reach) -> Reach:
    """The statistics mix the normalized dimensions."""
    return x.mix(*range(len(x.shape) - len(call["normalized_shape"]), len(x.shape)))


@unary("aten.group_norm.default")
def group_norm(call: Call, x: Reach) -> Reach:
    """The statistics mix each group's channels, and the whole map."""
    batch, channels, *sizes = call.input.shape
    groups = call["num_groups"]
    x = x.mix(*range(2, len(x.shape))).as_units(1)
    return x.reshape((batch, groups, channels // groups, *sizes)).mix(2).reshape(call.out)


@unary("aten.instance_norm.default", ptflops=_ptflops)
def instance_norm(call: Call, x: Reach) -> Reach:
    """The statistics mix the whole map of each channel, unless running ones are used."""
    return x.mix(*range(2, len(x.shape))) if call["use_input_stats"] else x


@unary("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default",
       "aten.argsort.default", "aten.argsort.stable")  # fmt: skip
def softmax(call: Call, x: Reach) -> Reach:
    """One dimension mixes."""
    return x.mix(dim_of(call, call["dim"]))


@joining("aten.cosine_similarity.default")
def cosine_similarity(call: Call, seen: Seen) -> Answer:
    """Both operands are summed along one dimension."""
    shape = list(call.operands[0].shape)
    dim = call["dim"] % len(shape)
    mixed = union([x for x in seen if x is not None], shape).reduce(dim)
    return mixed.drop(dim)
