"""Translations of ops that enlarge or shrink a map between its pixels."""

from convsmith.graph.call import Operand
from convsmith.graph.onnx.op import Declined, Emit, Op, translates

_LINEAR = {1: "linear1d", 2: "bilinear2d", 3: "trilinear3d"}
_CENTERED = ("half_pixel", "pytorch_half_pixel")


@translates("Resize", "Upsample")
def resize(op: Op, emit: Emit) -> Operand:
    """Where torch's interpolation takes the same pixels; over the map's axes alone."""
    x, n = op[0], len(op.out) - 2
    if op.out[:2] != x.shape[:2] or op.attributes.get("antialias", 0) or not 1 <= n <= 3:
        raise Declined
    if op.out == x.shape:
        return x
    size = {"output_size": list(op.out[2:]), "scale_factors": _factors(op)}
    if op.attributes.get("mode", "nearest") == "nearest":
        _require_nearest(op)
        return emit(f"aten.upsample_nearest{n}d.vec", op.out, input=x, **size)
    name = {"linear": _LINEAR[n], "cubic": "bicubic2d"}.get(op.attributes["mode"])
    where = "asymmetric" if op.type == "Upsample" else op.attributes.get("coordinate_transformation_mode", "half_pixel")
    if name is None or (name == "bicubic2d" and n != 2) or where not in (*_CENTERED, "align_corners"):
        raise Declined
    return emit(f"aten.upsample_{name}.vec", op.out, input=x, align_corners=where == "align_corners", **size)


def _factors(op: Op) -> list[float] | None:
    """What the map's axes are scaled by, where that is given and not the size."""
    scales = op.value(1 if op.type == "Upsample" else 2)
    return None if scales is None or not scales.size else [float(scale) for scale in scales[2:]]


def _require_nearest(op: Op) -> None:
    """Torch takes the floor of the place over the scale; by a whole factor every reading but aligned corners agrees."""
    whole = all(out % size == 0 for out, size in zip(op.out[2:], op[0].shape[2:], strict=True))
    where = op.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = op.attributes.get("nearest_mode", "round_prefer_floor")
    floored = op.type == "Upsample" or (where == "asymmetric" and rounding == "floor")
    if not floored and not (whole and where in _CENTERED and rounding.startswith("round")):
        raise Declined
