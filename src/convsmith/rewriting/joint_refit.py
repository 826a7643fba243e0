"""All weights of a fitted net refitted together, a few steps of gradients towards the original's answers."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import cos, isfinite, pi

import torch
from torch import Tensor, nn

from convsmith.calibration.matching import Distance, Pair, matching
from convsmith.calibration.pictures import Pictures, Several
from convsmith.calibration.sharing import agree
from convsmith.calibration.variations import varied
from convsmith.graph import Graph
from convsmith.progress import Progress, silent
from convsmith.structure.stages import find_stages
from convsmith.structure.units import calls_inside, find_units

# One in so many of the calibration images is not fitted to: they judge.
HELD_OUT = 8
BATCH, RATE, EVERY = 64, 5e-4, 25
OUTPUT = "the net"


@dataclass(frozen=True)
class Refit:
    """What a joint refit came to, on images that it did not see.

    Attributes:
        before: The distance of outputs and units from the original's, squared and relative, before the first step.
        after: The same of the weights that were kept.
        kept: The step that they are of; 0 where none was better than what was there.
        steps: How many were taken.
    """

    before: float
    after: float
    kept: int
    steps: int

    @property
    def line(self) -> str:
        """What it came to, in a sentence."""
        if not self.kept:
            return f"joint refit: none of {self.steps} steps was better on images held out, so weights stay as fitted"
        before, after = (100 * value**0.5 for value in (self.before, self.after))
        return (
            f"joint refit: {before:.3g} % away from the original on images held out before, {after:.3g} % after step "
            f"{self.kept} of {self.steps}"
        )


def parted(images: Pictures) -> tuple[Pictures, Pictures]:
    """The images that weights are fitted to, and the last eighth, which judges; all are both where there is one."""
    held = max(1, len(images) // HELD_OUT)
    return (images[:-held], images[-held:]) if len(images) > 1 else (images, images)


def pairs_of(graph: Graph, narrowed: Graph, original: nn.Module, model: nn.Module) -> list[Pair]:
    """What can be matched: the two nets, and of each unit the module that ends it, where its shape stayed.

    graph, narrowed: of the original, and of the model before blocks were put into it.
    """
    stages, shapes = find_units(graph, find_stages(graph, graph.reaches()))[0], narrowed.shapes
    ends = {unit.modules[-1]: calls_inside(graph, unit.modules)[-1] for units in stages for unit in units}
    paths = [path for path, node in ends.items() if shapes.get(node.name) == node.call.out]
    return [(OUTPUT, model, original), *((p, model.get_submodule(p), original.get_submodule(p)) for p in paths)]


def refit_jointly(
    pairs: Sequence[Pair],
    images: Pictures,
    judging: Pictures,
    steps: int,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Refit:
    """Refit all weights of a net in place, by Adam, to answer as the original does; labels are not needed.

    The loss is the mean relative squared distance of outputs and of what units answer. Images are moved and mirrored
    at random, so that a few hundred last for hundreds of steps. BatchNorms keep their statistics. The rate falls to
    zero in a half cosine, and the weights stay that `judging` finds best, those of the start among them.

    pairs: what is to be matched, the net and its original first; images: (n, c, h, w) to fit to.
    """
    _, model, original = pairs[0]
    left = {*model.modules()}  # units may be gone
    pairs = [pair for pair in pairs if pair[1] in left]
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as held:
        held.enter_context(_free(model))
        held.enter_context(torch.enable_grad())
        distance = held.enter_context(
            matching(model, original, [each for each in pairs if each[1] in {*model.modules()}])
        )
        best, kept = _state(model), 0
        errors = [_judged(distance, judging, model)]
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.99))
        for step, rows in zip(range(steps), _rows(len(images), generator), strict=False):
            progress("refitting all layers", step, steps)
            optimizer.param_groups[0]["lr"] = RATE * (1 + cos(pi * step / steps)) / 2
            loss = distance(varied(images, rows, generator).to(next(model.parameters())))
            if not isfinite(loss.item()):
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if (step + 1) % EVERY == 0 or step + 1 == steps:
                errors.append(_judged(distance, judging, model))
                if errors[-1] < min(errors[:-1]):
                    best, kept = _state(model), step + 1
        model.load_state_dict(best)
    agree(model)
    return Refit(errors[0], min(errors), kept, steps)


def _rows(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches over and over, each image once a pass."""
    while True:
        yield from torch.split(torch.randperm(count, generator=generator), BATCH)


def _judged(distance: Distance, judging: Pictures, model: nn.Module) -> float:
    """The mean distance on the images that judge."""
    like, total = next(model.parameters()), 0.0
    with torch.no_grad():
        for start in range(0, len(judging), BATCH):
            part: Tensor | Several = judging[start : start + BATCH].to(like)
            total += float(distance(part)) * min(BATCH, len(judging) - start)
    return total / len(judging)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@contextmanager
def _free(model: nn.Module) -> Iterator[None]:
    """Have all weights learn, in evaluation; in the end what was frozen is, and modes are as they were."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    training = [module for module in model.modules() if module.training]
    try:
        model.eval().requires_grad_(True)
        yield
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module in training:
            module.training = True
