"""The cells that the driver walks through, in order of worth: nets trained alike, routes, speeds and kernels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, product
from typing import Any

import torch
from torch import nn

import convsmith as cs
import kernels
import plain
from convsmith.planning.expand import restore
from convsmith.train import Recipe
from convsmith.zoo import NETS
from convsmith.zoo.builder import assemble
from loop import Lab, Run, fit, paced, pictures_of, sgd

Settings = dict[str, Any]
Work = Callable[[Lab, str, Settings], dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """What is measured at once: known by `key` (table/row/seed), redone where its settings are others."""

    key: str
    settings: Settings
    work: Work
    needs: str = "convolution"  # the check that must have passed

    @property
    def kind(self) -> str:
        """What takes as long as it: the same row of another seed."""
        return self.key.rpartition("/")[0]


@dataclass(frozen=True)
class Scale:
    """How large the trained cells are: recipe, seeds, share of the nets' widths, and how many training images."""

    recipe: Recipe
    seeds: tuple[int, ...] = (0, 1, 2)
    width: float = 1.0
    images: int | None = None
    finetune: int = 12
    fitted: int = 2048

    def settings(self, **own: Any) -> Settings:
        """What a cell's result depends on."""
        told = asdict(self.recipe)
        recipe = {name: told[name] for name in ("epochs", "batch_size", "lr", "precision", "label_smoothing")}
        return own | {"width": self.width, "images": self.images, "recipe": recipe}


# How the published tables were trained is not told in full; this is one recipe for all, on 50,000 images.
GPU = Scale(Recipe(epochs=30, batch_size=256, lr=0.1, precision="bf16"))
# For a CPU core beside other work: half the widths, a fifth of the images.
SMALL = Scale(Recipe(epochs=10, batch_size=64, lr=0.05, precision="bf16"), width=0.5, images=10_000)
TINY = Scale(Recipe(epochs=2, batch_size=16, lr=0.05), (0,), 1 / 8, 64, 1, 8)

VGG11 = (1, 1, 2, 2, 2)
TABLE2 = {"base": VGG11} | {f"+1 in stage {i + 1}": (*VGG11[:i], VGG11[i] + 1, *VGG11[i + 1 :]) for i in range(5)}
# Published structures: baseline and optimized, in the order of what they cost.
TABLE3: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "vgg16": ((2, 2, 3, 3, 3), (5, 4, 2, 1, 1)), "mobilenet": ((1, 2, 2, 6, 2), (4, 4, 2, 2, 1)),
    "vgg19": ((2, 2, 4, 4, 4), (6, 4, 3, 2, 1)), "resnet50": ((3, 4, 6, 3), (5, 5, 4, 2)),
}  # fmt: skip
TABLE6_NET = (4, 3, 2, 3, 1)
TABLE6 = {
    "DW+RPW g=4 o=0.5": "dw-rpw:g=4,o=0.5", "DW+GPW g=4": "dw-gpw:g=4", "DW+RPW g=8 o=0.5": "dw-rpw:g=8,o=0.5",
    "DW+GPW g=8": "dw-gpw:g=8", "DW+PW": "dw-pw",
}  # fmt: skip
TABLE6_REST = {
    "3x3": None, "DW+RPW g=4 o=0.33": "dw-rpw:g=4,o=0.33", "DW+RPW g=8 o=0.33": "dw-rpw:g=8,o=0.33",
    "DW+GPW g=2": "dw-gpw:g=2", "DW+RPW g=2 o=0.33": "dw-rpw:g=2,o=0.33", "DW+RPW g=2 o=0.5": "dw-rpw:g=2,o=0.5",
}  # fmt: skip


def zoo_net(lab: Lab, net: str, blocks: tuple[int, ...] | None, width: float) -> nn.Module:
    """The small form of a net of the zoo, its stages at a share of their widths."""
    record = NETS[net].small
    stages = tuple(replace(stage, width=int(stage.width * width)) for stage in record.stages)
    depths = blocks or record.blocks_per_stage
    return assemble(replace(record, stages=stages), lab.data.shape[0], len(lab.data.classes), depths)


def example(lab: Lab) -> torch.Tensor:
    """An image without values."""
    return torch.zeros(1, *lab.data.shape)


def trained(scale: Scale, lab: Lab, key: str, what: Settings) -> dict[str, Any]:
    """A net from fresh weights of its seed: cost, gain and test accuracy."""
    torch.manual_seed(what["seed"])
    blocks = what["blocks"] and tuple(what["blocks"])
    model = zoo_net(lab, what["net"], blocks, scale.width)
    if what["block"]:
        plan = cs.decompose(cs.capture(model, example(lab)), block=what["block"])
        model = cs.apply(model, plan, method="none")
    recipe = replace(scale.recipe, seed=what["seed"])
    return costs(lab, model) | fit(lab, model, pictures_of(lab, scale.images), recipe, key)


def costs(lab: Lab, model: nn.Module) -> dict[str, Any]:
    """Parameters, multiply-accumulates and published gain."""
    scores = cs.score(cs.capture(model, example(lab)))
    return {"params": scores.params, "macs": scores.macs, "gain": scores.gain}


def expanded(scale: Scale, lab: Lab, key: str, what: Settings) -> dict[str, Any]:
    """The route of He et al. (2019): trained as standard convolutions, decomposed to the old cost, fine-tuned.

    Beside it, in a cell of its own, stands the net as it is, trained for all these epochs.
    """
    torch.manual_seed(what["seed"])
    model = zoo_net(lab, what["net"], None, scale.width)
    merged = cs.expand(cs.capture(model, example(lab)))
    wide = cs.apply(model, merged, method="none")
    pictures = pictures_of(lab, scale.images)
    recipe = replace(scale.recipe, seed=what["seed"])
    told = {"expanded": costs(lab, wide) | fit(lab, wide, pictures, recipe, f"{key} wide", then=scale.finetune)}
    back = restore(cs.capture(wide.cpu(), example(lab)), merged)
    fitted: dict[str, Any] = {"data": lab.data, "images": scale.fitted, "seed": what["seed"]}
    narrow = cs.apply(wide.to(lab.device), back, method="als", **fitted)
    told["before"] = top1(lab, narrow)
    gentle = replace(recipe, epochs=scale.finetune)
    return told | costs(lab, narrow.cpu()) | fit(lab, narrow, pictures, gentle, f"{key} narrow")


def recovered(scale: Scale, lab: Lab, key: str, what: Settings) -> dict[str, Any]:
    """A trained net decomposed and trained on with itself as the teacher; the control, itself trained on alike."""
    torch.manual_seed(what["seed"])
    base = zoo_net(lab, what["net"], None, scale.width)
    pictures = pictures_of(lab, scale.images)
    recipe = replace(scale.recipe, seed=what["seed"])
    told: dict[str, Any] = {"base": fit(lab, base, pictures, recipe, f"{key} base", then=2 * what["recovery"])}
    plan = cs.decompose(cs.capture(base.cpu(), example(lab)), block=what["block"])
    new = cs.apply(base.to(lab.device), plan, data=lab.data, images=scale.fitted, seed=what["seed"])
    again = replace(recipe, epochs=what["recovery"], lr=what["lr"])
    told |= {"before": top1(lab, new)} | costs(lab, new.cpu())
    base.eval().to(lab.device)
    told |= fit(lab, new, pictures, again, f"{key} new", teacher=base)
    control = zoo_net(lab, what["net"], None, scale.width)
    control.load_state_dict(base.state_dict())
    return told | {"control": fit(lab, control, pictures, again, f"{key} control", teacher=base)}


def top1(lab: Lab, model: nn.Module) -> float:
    """Test accuracy."""
    return cs.evaluate(model, lab.data.test, device=str(lab.device), batch_size=500).top1


def speed(scale: Scale, lab: Lab, key: str, what: Settings) -> dict[str, Any]:
    """Images a second of the tuned loop, and of the usual one with few and with all cores as workers."""
    model, recipe = zoo_net(lab, what["net"], None, scale.width).to(lab.device), scale.recipe
    pictures = pictures_of(lab, scale.images)
    usual = {str(workers): plain.images_per_second(lab, model, workers, what["steps"]) for workers in what["workers"]}
    model.to(memory_format=torch.channels_last)
    _, pace = paced(lab, Run(model, sgd(model, recipe, lab.device)), pictures, recipe, None, 0)
    ratios = {workers: pace["images_s"] / usual[workers] for workers in usual}
    return {"tuned": pace, "usual_images_s": usual, "usual_batch": plain.BATCH, "ratio": ratios}


def table2(scale: Scale) -> Iterator[Cell]:
    """VGG11 with one convolution more in each stage: does accuracy follow the gain? Wang et al., Table 2."""
    for seed, (row, blocks) in product(scale.seeds, TABLE2.items()):
        yield of_net("table2", row, seed, scale, "vgg11", blocks)


def table3(scale: Scale) -> Iterator[Cell]:
    """Nets as they are and organized, on CIFAR-10. Wang et al., Table 3."""
    for (net, pair), seed, place in product(TABLE3.items(), scale.seeds, (0, 1)):
        yield of_net("table3", f"{net} {('base', 'organized')[place]}", seed, scale, net, pair[place])


def table6(scale: Scale, rows: Mapping[str, str | None] = TABLE6) -> Iterator[Cell]:
    """VGG16 with a block in every convolution's place. Wang et al., Table 6."""
    for seed, (row, block) in product(scale.seeds, rows.items()):
        cell = of_net("table6", row, seed, scale, "vgg16", TABLE6_NET, block)
        yield replace(cell, needs="rolling") if "RPW" in row else cell


def of_net(
    table: str, row: str, seed: int, scale: Scale, net: str, blocks: tuple[int, ...] | None, block: str | None = None
) -> Cell:
    """A net trained from fresh weights."""
    what = scale.settings(net=net, blocks=list(blocks) if blocks else None, block=block, seed=seed)
    return Cell(f"{table}/{row}/{seed}", what, partial(trained, scale))


def expand_cells(scale: Scale, nets: tuple[str, ...]) -> Iterator[Cell]:
    """The "+2 points" of He et al. (2019): the route beside the net trained as it is, for as many epochs."""
    longer = replace(scale, recipe=replace(scale.recipe, epochs=scale.recipe.epochs + scale.finetune))
    for net, seed in product(nets, scale.seeds):
        yield of_net("expand", f"{net} base", seed, longer, net, None)
        what = scale.settings(net=net, finetune=scale.finetune, fitted=scale.fitted, seed=seed)
        yield Cell(f"expand/{net} expanded/{seed}", what, partial(expanded, scale))


def recovery_cells(scale: Scale, net: str = "resnet20", block: str = "dw-pw:r=2") -> Iterator[Cell]:
    """What training gives a decomposed net, and its original trained alike."""
    epochs = min(3, scale.recipe.epochs)
    for seed in scale.seeds:
        what = scale.settings(net=net, block=block, recovery=epochs, lr=0.01, fitted=scale.fitted, seed=seed)
        yield Cell(f"recovery/{net}/{seed}", what, partial(recovered, scale))


def speed_cells(scale: Scale, steps: int, workers: tuple[int, ...]) -> Iterator[Cell]:
    """How fast the loop is."""
    for net in ("vgg16", "mobilenet"):
        what = scale.settings(net=net, steps=steps, workers=list(workers))
        yield Cell(f"speed/{net}/0", what, partial(speed, scale))


def kernel_cells(name: str, needs: str, measure: Any, whats: Iterator[Settings], seconds: float) -> Iterator[Cell]:
    """Kernels, a shape in a cell."""
    for what in whats:
        row = ", ".join(f"{key} {value}" for key, value in what.items())
        yield Cell(f"{name}/{row}", what, partial(kernel, measure, seconds), needs)


def kernel(measure: Any, seconds: float, lab: Lab, key: str, what: Settings) -> dict[str, Any]:
    """One shape."""
    torch.manual_seed(0)
    return dict(measure(lab, what, seconds))


def gpu() -> Iterator[Cell]:
    """All that a GPU is wanted for."""
    yield from kernel_cells("rpw", "rolling", kernels.rolling, kernels.rolling_cells(256), 0.1)
    yield from kernel_cells("shift", "convolution", kernels.shift, kernels.shift_cells(), 0.1)
    yield from speed_cells(GPU, 150, (2, 16))
    yield from table2(GPU)
    yield from table3(GPU)
    yield from table6(GPU)
    yield from expand_cells(GPU, ("shufflenetv2-1.0", "shufflenetv2-0.5", "mobilenet"))
    yield from recovery_cells(GPU)
    yield from table6(GPU, TABLE6_REST)


def small() -> Iterator[Cell]:
    """What a CPU can do beside other work: small forms of Tables 2 and 6."""
    for seed in SMALL.seeds:
        one = replace(SMALL, seeds=(seed,))
        yield from table2(one)
        yield from table6(one)


def tiny() -> Iterator[Cell]:
    """A cell of every kind, for a test."""
    rolling, shift = kernels.rolling_cells(1, ((16, 2),)), kernels.shift_cells(((1, 48, 2),))
    yield from kernel_cells("rpw", "rolling", kernels.rolling, islice(rolling, 2), 0.001)
    yield from kernel_cells("shift", "convolution", kernels.shift, islice(shift, 2), 0.001)
    yield from speed_cells(TINY, 2, (0,))
    yield from islice(table2(TINY), 3)
    yield from islice(table6(TINY), 2)
    yield from expand_cells(TINY, ("shufflenetv2-0.5",))
    yield from recovery_cells(TINY)


SETS: Mapping[str, Callable[[], Iterator[Cell]]] = {"gpu": gpu, "small": small, "tiny": tiny}
