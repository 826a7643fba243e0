"""Where models come from: the project's zoo, timm, torchvision, and a user's own code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from inspect import signature
from typing import Any

from torch import nn

from convsmith.errors import ConvsmithError, UnknownNameError
from convsmith.graph.signature import Shape, each_shape
from convsmith.load.own import own_model
from convsmith.load.records import Origin, Wish
from convsmith.registry import Registry
from convsmith.zoo import IMAGENET, build, default_input

# Whose code came with the installation, and which a folder's model.json may therefore name without being asked about.
BUILT_IN = ("zoo", "timm", "torchvision")


@dataclass(frozen=True)
class Source:
    """A family of references: `origin` fills a wish's gaps for one of its names, `build` makes the fresh module."""

    origin: Callable[[str, Wish], Origin]
    build: Callable[[str, Origin], nn.Module]


SOURCES: Registry[Source] = Registry("kind of model")


def _plain(reference: str, wish: Wish, input: Shape) -> Origin:
    asked = wish.input or input
    first, *others = each_shape(asked)
    several = None if not others else dict(asked) if isinstance(asked, Mapping) else (first, *others)
    return Origin(
        reference, first, wish.classes, wish.blocks_per_stage, wish.mean, wish.std, inputs=several
    )  # fmt: skip


def _no_depths(origin: Origin) -> None:
    if origin.blocks_per_stage is not None:
        raise ConvsmithError(
            f"{origin.reference}: --blocks-per-stage is for zoo nets; use `convsmith organize` for others."
        )


def _zoo_origin(name: str, wish: Wish) -> Origin:
    return _plain(f"zoo:{name}", wish, default_input(name))


def _zoo_build(name: str, origin: Origin) -> nn.Module:
    if len(origin.input) != 3 or origin.inputs:
        told = " and ".join(",".join(map(str, shape)) for shape in each_shape(origin.shapes))
        raise ConvsmithError(f"{name}: got an input of {told}; it reads images of channels, height, width, as 3,32,32.")
    channels, height, width = origin.input
    return build(
        name, input=(channels, height, width), classes=origin.classes, blocks_per_stage=origin.blocks_per_stage
    )


def _timm_origin(name: str, wish: Wish) -> Origin:
    import timm  # a second of import time that only its users pay

    if not timm.is_model(name):
        raise _unknown("timm model", name, timm.list_models())
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return _plain(f"timm:{name}", wish, IMAGENET)
    channels, height, width = config.input_size
    origin = _plain(f"timm:{name}", wish, (channels, height, width))
    return replace(origin, mean=wish.mean or tuple(config.mean), std=wish.std or tuple(config.std))


def _timm_build(name: str, origin: Origin) -> nn.Module:
    import timm

    if not timm.is_model(name):  # timm's own function also takes names of files, and of what is to be downloaded
        raise _unknown("timm model", name, timm.list_models())
    _no_depths(origin)
    head: dict[str, Any] = {} if origin.classes is None else {"num_classes": origin.classes}
    model: nn.Module = timm.create_model(name, pretrained=False, in_chans=origin.input[0], **head)
    return model


def _torchvision_origin(name: str, wish: Wish) -> Origin:
    from torchvision import models

    if name not in models.list_models():
        raise _unknown("torchvision model", name, models.list_models())
    side = 299 if name == "inception_v3" else 224
    return _plain(f"torchvision:{name}", wish, (3, side, side))


def _torchvision_build(name: str, origin: Origin) -> nn.Module:
    from torchvision import models

    if name not in models.list_models():
        raise _unknown("torchvision model", name, models.list_models())
    _no_depths(origin)
    takes = signature(models.get_model_builder(name)).parameters
    options: dict[str, Any] = {} if origin.classes is None else {"num_classes": origin.classes}
    if "weights_backbone" in takes:  # would be downloaded otherwise
        options["weights_backbone"] = None
    if "init_weights" in takes or name in ("googlenet", "inception_v3"):  # slow, and warned about when left unsaid
        options["init_weights"] = True
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


SOURCES.add("zoo", Source(_zoo_origin, _zoo_build))
SOURCES.add("timm", Source(_timm_origin, _timm_build))
SOURCES.add("torchvision", Source(_torchvision_origin, _torchvision_build))


def _own_origin(path: str, wish: Wish) -> Origin:
    return _plain(path, wish, IMAGENET)


def _own_build(path: str, origin: Origin) -> nn.Module:
    _no_depths(origin)
    return own_model(path)


OWN = Source(_own_origin, _own_build)


def source_of(reference: str) -> tuple[Source, str]:
    """The source of a reference and the name under it; a bare name is one of the zoo's."""
    kind, colon, name = reference.partition(":")
    if not colon:
        return SOURCES["zoo"], reference
    if kind in SOURCES:
        return SOURCES[kind], name
    return OWN, reference


def is_built_in(reference: str) -> bool:
    """Whether following a reference runs the code of the project, timm or torchvision alone.

    >>> is_built_in("resnet20"), is_built_in("timm:resnet18"), is_built_in("os:abort")
    (True, True, False)
    """
    kind, colon, _ = reference.partition(":")
    return not colon or kind in BUILT_IN


def _unknown(kind: str, name: str, known: list[str]) -> ConvsmithError:
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return UnknownNameError(f"Unknown {kind} {name!r}; did you mean {', '.join(near) or ', '.join(known[:5])}?")
