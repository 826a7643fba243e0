"""What a loaded model is: the module, how it is read, and where it came from."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked
from torch import nn

from convsmith.bounds import CLASSES, check_count, check_input
from convsmith.data import IMAGENET_MEAN, IMAGENET_STD
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.graph.capture import capture
from convsmith.graph.signature import Shape, Shapes, blank, each_shape
from convsmith.plan import Plan

Channels = tuple[float, ...]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Origin:
    """How to build a model again: its reference, what it was built with, and the files of the plans applied since.

    `input` is the shape of one image, and `inputs` are all shapes of a net that takes several tensors: by the names of
    forward's arguments, or in order. `classes` and `blocks_per_stage` are None where the reference's own were taken.
    `mean` and `std` are the image statistics the model reads with, None for ImageNet's. `class_names` are those of the
    data that it was trained on, where they are known. `trained` says that the weights are not a fresh start.
    """

    reference: str
    input: Shape
    classes: int | None = None
    blocks_per_stage: tuple[int, ...] | None = None
    mean: Channels | None = None
    std: Channels | None = None
    plans: tuple[str, ...] = ()
    trained: bool = False
    class_names: tuple[str, ...] | None = None
    inputs: dict[str, Shape] | tuple[Shape, ...] | None = None

    def __post_init__(self) -> None:
        """Raises ConvsmithError on an input that no convolution reads, and on one or a head too large to build."""
        alone = self.inputs is None
        for shape in each_shape(self.shapes):
            if min(shape, default=0) < 1 or (alone and not 2 <= len(shape) <= 4):
                told = ",".join(map(str, shape))
                raise ConvsmithError(f"input: got {told}; give channels and one, two or three sides, such as 3,32,32.")
            check_input(shape)
        check_count(self.classes, CLASSES, "classes")

    @property
    def shapes(self) -> Shapes:
        """What it is called with."""
        return self.inputs or self.input


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with where it came from.

    Attributes:
        model: The module.
        origin: The reference, input shape, classes and image statistics.
        plans: The plans that it went through.
        folder: Where it was read from; None for a reference.
        notes: Sentences for the user on how its weights were read.
    """

    model: nn.Module
    origin: Origin
    plans: tuple[Plan, ...] = ()
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in tables: the reference without its prefix."""
        return self.origin.reference.removeprefix("zoo:")

    def graph(self) -> Graph:
        """Captured on its own input shape, in the type of its weights."""
        kind = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        return capture(self.model, blank(self.origin.shapes, kind, "meta"), name=self.name)

    def after(self, model: nn.Module, *plans: Plan) -> "Loaded":
        """The same with another module in its place, which `plans` made of this one."""
        return replace(self, model=model, plans=(*self.plans, *plans))

    def trained_on(self, mean: Channels, std: Channels, class_names: tuple[str, ...] | None = None) -> "Loaded":
        """The same, its weights trained on images of these statistics, and classes of these names."""
        names = self.origin.class_names if class_names is None else tuple(class_names)
        told = replace(self.origin, trained=True, mean=tuple(mean), std=tuple(std), class_names=names)
        return replace(self, origin=told)

    def metadata(self) -> dict[str, str]:
        """What exported files tell of it: JSON texts by name; what is not known is left out."""
        origin, plan = self.origin, self.plans[-1] if self.plans else None
        known = {
            "model": self.name, "mean": origin.mean or IMAGENET_MEAN[: origin.input[0]],
            "std": origin.std or IMAGENET_STD[: origin.input[0]], "class_names": origin.class_names,
            "plan_fingerprint": plan and plan.fingerprint,
        }  # fmt: skip
        return {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in known.items()
            if value is not None
        }


@dataclass(frozen=True)
class Wish:
    """What the user asks of a reference; None takes the reference's own. `input` may be of several tensors."""

    input: Shapes | None = None
    classes: int | None = None
    blocks_per_stage: tuple[int, ...] | None = None
    mean: Channels | None = None
    std: Channels | None = None
