"""What a model is called with: the names, shapes and places of its tensors, in lists and dictionaries too."""

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import KeyEntry, MappingKey, SequenceKey, TreeSpec, tree_flatten_with_path, tree_unflatten

from convsmith.errors import CaptureError

Shape = tuple[int, ...]
Shapes = Shape | Mapping[str, Shape] | tuple[Shape, ...]  # of one image; or of several tensors, by name or in order


def each_shape(shapes: Shapes) -> tuple[Shape, ...]:
    """The shapes, of one or of several.

    >>> each_shape((3, 8, 8)), each_shape({"left": (3, 8, 8), "right": (1, 8, 8)})
    (((3, 8, 8),), ((3, 8, 8), (1, 8, 8)))
    """
    if isinstance(shapes, Mapping):
        return tuple(shapes.values())
    several = tuple(shape for shape in shapes if not isinstance(shape, int))
    return several or (tuple(size for size in shapes if isinstance(size, int)),)


def in_order(model: nn.Module, shapes: Shapes) -> Shapes:
    """Shapes by the names of forward's arguments, in their order; others as they are.

    >>> list(in_order(nn.Bilinear(3, 4, 5), {"input2": (4,), "input1": (3,)}))
    ['input1', 'input2']
    """
    names = inspect.signature(model.forward).parameters
    if isinstance(shapes, Mapping) and shapes.keys() <= names.keys():
        return {name: shapes[name] for name in names if name in shapes}
    return shapes


def blank(shapes: Shapes, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Any:
    """One image of zeros, or a dictionary or list of such tensors, as a model is called with.

    >>> {name: tuple(x.shape) for name, x in blank({"left": (3, 8, 8), "scale": (1,)}).items()}
    {'left': (1, 3, 8, 8), 'scale': (1, 1)}
    """
    made = [torch.zeros(1, *shape, dtype=dtype, device=device) for shape in each_shape(shapes)]
    if isinstance(shapes, Mapping):
        return dict(zip(shapes, made, strict=True))
    return made if len(made) > 1 else made[0]


@dataclass(frozen=True)
class Slot:
    """A tensor that a model is called with.

    `shape` is for one image: with the batch of 1 in front where `batched`, else as the tensor was given.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    batched: bool = True

    def sized(self, batch: int) -> tuple[int, ...]:
        """The shape for so many images."""
        return (batch, *self.shape[1:]) if self.batched else self.shape


@dataclass(frozen=True)
class Signature:
    """How a model is called: its tensors in order, other values as they are, and the containers around them.

    >>> net = nn.Bilinear(3, 4, 5)
    >>> signature = Signature.of(net, (torch.zeros(1, 3), torch.zeros(1, 4)))
    >>> [(slot.name, slot.shape) for slot in signature.slots]
    [('input1', (1, 3)), ('input2', (1, 4))]
    >>> args, named = signature.call(signature.tensors(batch=2))
    >>> net(*args, **named).shape
    torch.Size([2, 5])
    """

    leaves: tuple[Any, ...] = ()
    spec: TreeSpec | None = None

    @classmethod
    def of(cls, model: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any] | None = None) -> Self:
        """Of a call with these inputs. One tuple, list or dictionary stands for the arguments where forward takes so.

        Raises ConvsmithError where there is no tensor among them.
        """
        args, kwargs = _arguments(model, tuple(inputs), dict(named or {}))
        found, spec = tree_flatten_with_path((args, kwargs))
        if not any(isinstance(leaf, Tensor) for _, leaf in found):
            given = ", ".join(type(value).__name__ for value in (*args, *kwargs.values())) or "nothing"
            raise CaptureError(
                f"{type(model).__name__} is to be called with tensors, alone or in lists and dictionaries, but got "
                f"{given}; give torch.zeros(1, channels, height, width)."
            )
        names = _names(model, [path for path, leaf in found if isinstance(leaf, Tensor)])
        image = max((len(m.kernel_size) for m in model.modules() if isinstance(m, _ConvNd)), default=0) + 1
        leaves = [_slot(next(names), path, leaf, image) if isinstance(leaf, Tensor) else leaf for path, leaf in found]
        return cls(tuple(_with_batch(leaves)), spec)

    @classmethod
    def of_shapes(cls, model: nn.Module, shapes: Shapes) -> Self:
        """Of a call with tensors of these shapes, each for one image."""
        return cls.of(model, (blank(shapes, device="meta"),))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The tensors, in order."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, Slot))

    def tensors(self, batch: int = 1, device: torch.device | str | None = None) -> list[Tensor]:
        """Zeros for every tensor, for so many images."""
        return [torch.zeros(slot.sized(batch), dtype=slot.dtype, device=device) for slot in self.slots]

    def drawn(self, batch: int, generator: torch.Generator) -> list[Tensor]:
        """Random numbers for every tensor, for so many images: in float32, or ones where they are whole numbers."""
        return [
            torch.randn(slot.sized(batch), generator=generator)
            if slot.dtype.is_floating_point
            else torch.ones(slot.sized(batch), dtype=slot.dtype)
            for slot in self.slots
        ]

    def call(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments by position and by name, with these tensors (or others for them) in the places of the slots."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Slot) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.spec) if self.spec is not None else ((), {})
        return args, kwargs


def given(inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Tensor]:
    """The tensors of a call, in the order of its signature's slots."""
    return [leaf for _, leaf in tree_flatten_with_path((tuple(inputs), dict(named)))[0] if isinstance(leaf, Tensor)]


def _arguments(
    model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One tuple is forward's arguments where they fit, a list only where it alone does not; a dictionary by name."""
    if named or len(inputs) != 1 or isinstance(inputs[0], Tensor):
        return inputs, named
    (one,), forward = inputs, inspect.signature(model.forward)
    alone = _binds(forward, inputs)
    if isinstance(one, dict) and (one.keys() <= forward.parameters.keys() or not alone):
        return (), one
    first = next(iter(forward.parameters.values()), None)
    several = type(one) is tuple or not alone or (first is not None and first.kind == Parameter.VAR_POSITIONAL)
    return (tuple(one), {}) if isinstance(one, list | tuple) and several and _binds(forward, one) else (inputs, {})


def _binds(forward: inspect.Signature, args: Sequence[Any]) -> bool:
    try:
        forward.bind(*args)
    except TypeError:
        return False
    return True


def _names(model: nn.Module, paths: Sequence[Sequence[KeyEntry]]) -> Iterator[str]:
    """By forward's arguments, and by the keys and numbers of containers; no name twice."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken: Counter[str] = Counter()
    for _, argument, *inner in paths:
        place = argument.idx if isinstance(argument, SequenceKey) else -1
        if place < 0:
            name = str(argument.key) if isinstance(argument, MappingKey) else str(argument)
        else:
            name = plain[place] if place < len(plain) else f"input_{place}"
        for key in inner:
            name = key.key if isinstance(key, MappingKey) and isinstance(key.key, str) else f"{name}_{_told(key)}"
        taken[name] += 1
        yield name if taken[name] == 1 else f"{name}_{taken[name]}"


def _told(key: KeyEntry) -> str:
    return str(key.idx if isinstance(key, SequenceKey) else key).strip(".[]'")


def _slot(name: str, path: Sequence[KeyEntry], tensor: Tensor, image: int) -> Slot:
    """An image in a container comes without a batch where it has one dimension less than convolutions read."""
    alone = len(path) > 2 and tensor.dim() == image > 1
    return Slot(name, tuple(tensor.shape), tensor.dtype, tensor.dim() > 0 and not alone)


def _with_batch(leaves: Sequence[Any]) -> Iterator[Any]:
    """Batched is what has the first batched tensor's size in front; the others are taken as they are."""
    sizes = [leaf.shape[0] for leaf in leaves if isinstance(leaf, Slot) and leaf.batched]
    for leaf in leaves:
        if isinstance(leaf, Slot) and leaf.batched:
            alike = leaf.shape[0] == sizes[0]
            yield replace(leaf, shape=(1, *leaf.shape[1:])) if alike else replace(leaf, batched=False)
        else:
            yield leaf
