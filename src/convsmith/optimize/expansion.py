"""The paper's route for separable nets: merge their pairs, train that, decompose it to the old cost, fine-tune.

He et al., "Depth-wise Decomposition for Accelerating Separable Convolutions in Efficient CNNs" (2019).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from convsmith.calibration.calibrate import IMAGES
from convsmith.data import Data
from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.load import Loaded, Wish, holds_model, load_folder, load_with_data
from convsmith.optimize.steps import SCORES, Watch, claim, finish, write
from convsmith.plan import Plan
from convsmith.planning.expand import expand, restore
from convsmith.rewriting.apply import Applied, rewrite
from convsmith.score.metric import score
from convsmith.train import Recipe, lent, pick_device, recipe_for

BASELINE, EXPANDED, DECOMPOSED = "baseline", "expanded", "decomposed"  # folders, and names in tables
EXPAND, DECOMPOSE = "expand.json", "decompose.json"


@dataclass(frozen=True)
class Expansion:
    """What decides such a run's result: one folder holds one of them.

    `epochs` train the expanded net, `finetune` the decomposed one (None: what suits the data, and half of that); the
    baseline gets their sum. `lr` is the largest learning rate (None: what suits the data, found for trained weights),
    `finetune_lr` that of the decomposed net (None: `lr`, or found). `images` are what the decomposition is fitted to.
    With `teacher` the decomposed net learns from the expanded one too; the baseline has no such help.
    """

    model: str
    data: str
    weights: str | None = None
    wish: Wish = field(default_factory=Wish)
    epochs: int | None = None
    finetune: int | None = None
    lr: float | None = None
    finetune_lr: float | None = None
    batch_size: int | None = None
    images: int = IMAGES
    teacher: bool = False
    seed: int = 0


def expansion(
    settings: Expansion,
    out: Path,
    *,
    watch: Watch | None = None,
    device: str | None = None,
    trust: bool = False,
    command: str = "",
) -> Path:
    """Train a separable net by way of its expanded form, beside itself; the same call goes on with a stopped run.

    `out` gets three folders: `baseline` as it is, `expanded`, and `decomposed`, of the baseline's cost. Trained weights
    are where the first two start from, where there are any. trust: see `load`.
    Raises ConvsmithError on a net without a pair to merge, and when `out` holds a run of other settings.
    """
    watch = watch or Watch()
    watch.step(f"loading {settings.model} and {settings.data}")
    torch.manual_seed(settings.seed)
    weights = Path(settings.weights) if settings.weights else None
    base, data = load_with_data(settings.model, settings.data, settings.wish, weights=weights, trust=trust)
    watch.step(data.summary)
    for note in base.notes:
        watch.step(f"note: {note}")
    with claim(settings, out, command):
        _run(base, data, settings, out, watch, device)
    return out


def _run(base: Loaded, data: Data, settings: Expansion, out: Path, watch: Watch, device: str | None) -> None:
    """The steps, in a folder that is this run's alone."""
    recipe = _recipe(data, settings, base.origin.trained, device)
    finetune = max(1, recipe.epochs // 2) if settings.finetune is None else settings.finetune
    watch.step("planning")
    plan = _plan(base, out)
    wide = _after(base, rewrite(base.model, plan, method=None if base.origin.trained else "none"), out / EXPANDED)
    finish(base, data, replace(recipe, epochs=recipe.epochs + finetune), None, out / BASELINE, watch)
    wide = finish(wide, data, recipe, None, out / EXPANDED, watch)
    narrow = _decomposed(wide, plan, data, settings, out, watch, device)
    teacher = wide.model if settings.teacher else None
    gentle = replace(recipe, epochs=finetune, lr=settings.finetune_lr or settings.lr, keep_best=True)
    finish(narrow, data, gentle, teacher, out / DECOMPOSED, watch)


def _recipe(data: Data, settings: Expansion, trained: bool, device: str | None) -> Recipe:
    given: dict[str, Any] = {"epochs": settings.epochs, "lr": settings.lr, "batch_size": settings.batch_size}
    changes = {name: value for name, value in given.items() if value is not None}
    suits: dict[str, Any] = {"lr": None, "keep_best": True} if trained else {}
    return recipe_for(data, seed=settings.seed, device=device, **(suits | changes))


def _plan(base: Loaded, out: Path) -> Plan:
    graph = base.graph()
    plan = expand(graph)
    if not plan.edits:
        reason = f"{plan.refusals[0].layer}: {plan.refusals[0].reason}" if plan.refusals else "none is depthwise"
        raise ConvsmithError(f"{base.name} has no separable pair to expand ({reason}); choose a net that has.")
    write(out / BASELINE / SCORES, score(graph).to_dict())
    write_text(out / EXPAND, plan.to_json() + "\n")
    return plan


def _after(net: Loaded, applied: Applied, folder: Path) -> Loaded:
    """What was made of a net, its scores kept in its folder."""
    after = net.after(applied.model, applied.plan)
    write(folder / SCORES, score(after.graph()).to_dict())
    return after


def _decomposed(
    wide: Loaded, merged: Plan, data: Data, settings: Expansion, out: Path, watch: Watch, device: str | None
) -> Loaded:
    """The trained net with its merged pairs as depthwise and pointwise again, fitted in order on the device."""
    if holds_model(out / DECOMPOSED):
        return load_folder(out / DECOMPOSED)
    watch.step("decomposing")
    plan, home = restore(wide.graph(), merged), next(wide.model.parameters()).device
    with lent(wide.model, pick_device(device)):
        applied = rewrite(
            wide.model, plan, method="als", data=data, images=settings.images, seed=settings.seed,
            progress=watch.progress,
        )  # fmt: skip
    applied.model.to(home)
    write_text(out / DECOMPOSE, applied.plan.to_json() + "\n")
    return _after(wide, applied, out / DECOMPOSED)
