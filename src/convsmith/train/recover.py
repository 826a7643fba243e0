"""A net recovered by its teacher's answers alone: any outputs, no labels, the best epoch kept."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from convsmith.calibration.calibrate import Images, take_images
from convsmith.calibration.matching import Distance, matching
from convsmith.calibration.pictures import alone
from convsmith.data import epoch_seed
from convsmith.errors import ConvsmithError, DataError
from convsmith.graph.answers import answered
from convsmith.progress import Progress, silent
from convsmith.train.place import lent, pick_device
from convsmith.train.records import Recipe
from convsmith.train.responses import module_of
from convsmith.train.tasks import Outcome, Task, Told, fit

HELD_OUT = 5  # one in so many of the images judges
COUNT = 5000
CLIP = 1.0  # of the loss's gradients: with norms that keep their statistics nothing else holds a step back
OUTPUT = ""  # the path of the net itself: what it answers


def recover(
    model: nn.Module,
    teacher: nn.Module,
    images: Images,
    recipe: Recipe | None = None,
    *,
    match: Sequence[str] = (OUTPUT,),
    count: int = COUNT,
    told: Told | None = None,
    steps: Progress = silent,
) -> Outcome:
    """Train `model` in place to answer as its teacher does, whatever they answer; labels are not needed.

    Both run in evaluation, as they are used: norms keep their statistics, and detectors ask for no targets. The loss is
    the mean, over all tensors of floats that the matched modules answer (in lists, dictionaries, dataclasses), of
    |model - teacher|^2 / |teacher - its mean over the images|^2; its gradients are clipped. One in five images judges:
    the best epoch is kept, and never one worse than the start.

    Args:
        model: The module to recover, changed in place.
        teacher: The net whose answers it learns, as it was before it was made cheaper.
        images: Unlabelled images (a tensor, a data set, or batches).
        recipe: How to train; by default 10 epochs of batches of 32, at a learning rate that is found.
        match: Paths of the modules whose answers are matched, in both nets; "" is the net itself. Where shapes of what
            it answers depend on the image (boxes that were kept), name what stands in front.
        count: How many images are taken.
        told: Called when a learning rate was found.
        steps: Called after each step.

    Returns:
        The distance on the images that judge: at the start, after each epoch, and of what was kept.

    Raises:
        ConvsmithError: Where the two answer other shapes, or shapes that depend on the image, or no floats.

    >>> import convsmith as cs
    >>> net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.rand(20, 3, 8, 8)
    >>> teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> found = cs.recover(net, teacher, x, cs.Recipe(epochs=3, lr=0.05, device="cpu"))
    >>> found.final <= found.start, len(found.judged)
    (True, 3)
    """
    usual = Recipe(epochs=10, batch_size=32, lr=None, weight_decay=0.0)
    recipe = replace(recipe or usual, keep_best=True)
    taken = take_images(images, count, recipe.seed)
    if len(taken) < 2:
        raise DataError(f"recover: got {len(taken)} image; give at least two, as one of them judges.")
    place = pick_device(recipe.device)
    like = next(model.parameters())
    order = torch.randperm(len(taken), generator=torch.Generator().manual_seed(recipe.seed))
    held = max(1, len(taken) // HELD_OUT)
    judging, training = order[:held], order[held:]
    steps_each = -(-len(training) // recipe.batch_size)

    def parts(rows: Tensor) -> Iterator[Tensor]:
        for part in torch.split(rows, recipe.batch_size):
            yield torch.cat([alone(taken[int(i) : int(i) + 1]) for i in part]).to(place, like.dtype)

    def batches(epoch: int) -> Iterator[Tensor]:
        drawn = torch.Generator().manual_seed(epoch_seed(recipe.seed, epoch))
        return parts(training[torch.randperm(len(training), generator=drawn)])

    pairs = [(path, module_of(model, path), module_of(teacher, path)) for path in match]
    with lent(teacher, place), lent(model, place), matching(model.eval(), teacher.eval(), pairs) as distance:
        _check(distance, teacher, next(parts(judging)), match)

        def judge() -> float:
            model.eval()
            with torch.no_grad():
                return sum(float(distance(part)) * len(part) for part in parts(judging)) / held

        task = Task(batches, steps_each, distance, judge, training=False, clip=CLIP, held=judge)
        return fit(model, recipe, task, told, steps)


def _check(distance: Distance, teacher: nn.Module, images: Tensor, match: Sequence[str]) -> None:
    """Raise ConvsmithError where nothing can be matched: shapes that are no pair, or that follow what images show."""
    with torch.no_grad():
        distance(images)
        if OUTPUT in match:
            seen = [[tuple(x.shape) for x in answered(teacher(each))] for each in (images, torch.zeros_like(images))]
            if seen[0] != seen[1]:
                raise ConvsmithError(
                    "The net answers shapes that depend on what images show; match what stands in front of that, "
                    "as match=('head',)."
                )
