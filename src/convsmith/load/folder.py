"""A model's folder: model.json tells how to build it, the plans what was changed, model.safetensors its weights."""

import re
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from convsmith.errors import FileError
from convsmith.files import is_marked, save_tensors, together
from convsmith.load.consent import KNOWN
from convsmith.load.records import Loaded, Origin
from convsmith.load.sources import is_built_in, source_of
from convsmith.load.weights import load_weights
from convsmith.locks import owned
from convsmith.plan import Plan
from convsmith.rewriting.apply import apply

MODEL, WEIGHTS, PLAN = "model.json", "model.safetensors", "plan.json"

PLANS = re.compile(r"plan(-\d+)?\.json")

_ORIGIN = TypeAdapter(Origin)


def save(loaded: Loaded, folder: Path) -> None:
    """Write a model into `folder`, for `load` to read back to the same weights: all of its files, or none.

    The last plan is plan.json, those before it plan-1.json and so on. Raises ConvsmithError when the folder cannot be
    written, and when it holds files of another program under these names.
    """
    names = [f"plan-{number}.json" for number in range(1, len(loaded.plans))] + [PLAN] * bool(loaded.plans)
    origin = replace(loaded.origin, plans=tuple(names))
    with owned(folder):
        check_own(folder)
        with together(*(folder / name for name in (WEIGHTS, *names, MODEL))) as (weights, *plans, model):
            save_tensors({key: tensor.detach().cpu().contiguous() for key, tensor in _state(loaded).items()}, weights)
            for draft, plan in zip(plans, loaded.plans, strict=True):
                draft.write_text(plan.to_json() + "\n", encoding="utf-8")
            model.write_text(_ORIGIN.dump_json(origin, indent=1).decode() + "\n", encoding="utf-8")


def check_own(folder: Path) -> None:
    """Refuse a folder where a model's files would replace those of another program."""
    is_ours = holds_model(folder) and bool(read_origin(folder))
    plans = [path for path in folder.glob("plan*.json") if PLANS.fullmatch(path.name)]
    for path in plans:
        read_plan(path)
    if (folder / WEIGHTS).exists() and not is_ours and not is_marked(folder / WEIGHTS):
        raise FileError(f"{folder / WEIGHTS}: is of another program; choose another folder, or remove it.")


def _state(loaded: Loaded) -> dict[str, Tensor]:
    """The state dict, each tensor a copy of its own: safetensors keeps no sharing between tied weights."""
    return {key: tensor.clone() for key, tensor in loaded.model.state_dict().items()}


def holds_model(folder: Path) -> bool:
    """Whether `save` has finished in this folder."""
    return (folder / MODEL).is_file()


def read_origin(folder: Path) -> Origin:
    """How the model in a folder is built; raises ConvsmithError where there is none or it cannot be read."""
    path = folder / MODEL
    if not path.is_file():
        inside = [child.name for child in sorted(folder.iterdir()) if holds_model(child)]
        hint = f"choose {' or '.join(str(folder / name) for name in inside)}" if inside else "choose another folder"
        raise FileError(f"{folder}: holds no {MODEL}; {hint}.")
    try:
        origin = _ORIGIN.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise FileError(f"{path}: cannot be read as a model's origin; write the folder anew.") from error
    if elsewhere := [name for name in origin.plans if Path(name).name != name]:
        raise FileError(f"{path}: the plan {elsewhere[0]!r} lies in another folder; write the folder anew.")
    return origin


def load_folder(folder: Path, *, trust: bool = False) -> Loaded:
    """Build the model in a folder: its origin, then its plans, then its weights.

    Args:
        folder: What `save` wrote.
        trust: Whether to follow its origin to any module and factory, which runs their code. Without it, only to the
        zoo,
            timm, torchvision, and code that the user has named before.

    Raises:
        ConvsmithError: Where a file is missing or unreadable, and on an origin in code that is not trusted.
    """
    origin = read_origin(folder)
    is_own_code = not is_built_in(origin.reference)
    if is_own_code and not trust and not KNOWN.holds(origin.reference):
        raise FileError(
            f"{folder}: its {MODEL} names {origin.reference!r}, which you have not named yourself before: "
            "loading the folder imports that module and runs its code; "
            "give --trust (in Python trust=True) if both are yours."
        )
    source, name = source_of(origin.reference)
    model = source.build(name, origin)
    if is_own_code:
        KNOWN.add(origin.reference)
    plans = [read_plan(folder / file) for file in origin.plans]
    for plan in plans:
        model = apply(model, plan, method="none")
    load_weights(model, folder / WEIGHTS)
    return Loaded(model, origin, tuple(plans), folder)


def read_plan(path: Path) -> Plan:
    """A plan from its file; raises ConvsmithError where it is missing or is no plan."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise FileError(f"{path}: cannot be read ({reason}); write a plan with `convsmith organize`.") from error
    return Plan.from_json(text, str(path))
