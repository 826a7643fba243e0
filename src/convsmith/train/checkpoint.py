"""A run's state between epochs: tensors as safetensors, the rest as JSON, for a resumed run to take the same steps."""

from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from convsmith.errors import FileError
from convsmith.files import is_marked, save_tensors, whole, write_text
from convsmith.train.records import Epoch, Evaluation, Recipe

FOLDER, STATE, HISTORY = "checkpoint", "state.json", "history.jsonl"
RECORDS = (FOLDER, HISTORY)  # what a run leaves beside a net


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class State:
    """The run that a checkpoint belongs to, its epochs so far, and the file of its tensors.

    `start` names the weights it began with, where that is known. `lr` is its largest rate, `before` how its start was
    judged. `best` is the epoch that is to be kept, 0 for the start, where the recipe asks for that. Every epoch draws
    its randomness from (seed, epoch), so no generator has a state to keep.
    """

    recipe: Recipe
    data: str
    teacher: bool
    responses: tuple[str, ...] = ()
    start: str = ""
    epochs: tuple[Epoch, ...] = ()
    tensors: str = ""
    lr: float | None = None
    before: Evaluation | None = None
    best: int | None = None

    def judged(self, images: int) -> Evaluation | None:
        """The evaluation of what is to be kept, on so many test images; None where nothing was judged."""
        place = len(self.epochs) if self.best is None else self.best
        return self.epochs[place - 1].evaluation(images) if place else self.before


@dataclass(frozen=True, eq=False)
class Parts:
    """What a step changes: the model, the optimizer's momentum, and the averaged weights (None without).

    `best` are the weights to go back to, where the last are not the best.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def kept(self) -> nn.Module:
        """The net whose weights the run is judged by and leaves: the average where there is one."""
        return self.average.module if self.average is not None else self.model

    def remember(self) -> None:
        """Take the weights as they are for the best."""
        self.best.clear()
        self.best.update(copied(self.kept.state_dict()))

    def bests(self) -> dict[str, Tensor]:
        """The best weights, under names for `restore`."""
        return {f"best.{name}": tensor for name, tensor in self.best.items()}

    def result(self) -> dict[str, Tensor]:
        """The state that the run leaves."""
        return self.best or self.kept.state_dict()

    def update_average(self) -> None:
        """Take the model's weights into the average, if there is one."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def tensors(self) -> dict[str, Tensor]:
        """Copy everything to contiguous tensors on the CPU, under names that tell where they belong."""
        named = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            named |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if (buffer := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                named[f"momentum.{name}"] = buffer
        return copied(named)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over tensors that `tensors` gave, in the memory layout of the parameters."""
        self.model.load_state_dict(_under("model.", tensors))
        if self.average is not None:
            self.average.load_state_dict(_under("average.", tensors))
        momentum = _under("momentum.", tensors)
        for name, parameter in self.model.named_parameters():
            if name in momentum:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum[name])
        self.best.update(_under("best.", tensors))


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to contiguous ones on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def write(out: Path, state: State, parts: Parts) -> None:
    """Write a run's checkpoint and history into `out`.

    The checkpoint's JSON comes after the tensors it names, so that an interruption at any point leaves a whole one.
    """
    folder = out / FOLDER
    state = replace(state, tensors=f"epoch-{len(state.epochs)}.safetensors")
    with whole(folder / state.tensors) as draft:
        save_tensors(parts.tensors() | (parts.bests() if state.best not in (None, len(state.epochs)) else {}), draft)
    write_text(folder / STATE, TypeAdapter(State).dump_json(state, indent=1).decode() + "\n")
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != state.tensors:
            old.unlink()
    _write_history(out, state)


def resumed(out: Path | None, fresh: State, parts: Parts, resume: bool) -> State:
    """Give the state to go on from: that of the checkpoint in `out`, which goes into `parts`, or `fresh` without one.

    Without `resume` a checkpoint is removed, lest a later call goes on with it.

    Raises ConvsmithError when the checkpoint cannot be read, or is of another recipe, data set or net.
    """
    if out is None:
        return fresh
    check_own(out)
    if not (out / FOLDER / STATE).is_file():
        return fresh
    if not resume:
        (out / FOLDER / STATE).unlink()
        return fresh
    state = _read_state(out / FOLDER)
    _check_same_run(out, state, fresh)
    tensors = _read_tensors(out / FOLDER / state.tensors)
    _check_same_net(out, _under("model.", tensors), parts.model)
    parts.restore(tensors)
    _write_history(out, state)
    return replace(state, recipe=fresh.recipe, start=fresh.start or state.start)


def check_own(out: Path) -> None:
    """Refuse a folder where a run's records would replace those of another program."""
    folder, history = out / FOLDER, out / HISTORY
    is_ours = (folder / STATE).is_file() and bool(_read_state(folder))
    foreign = [path for path in folder.glob("epoch-*.safetensors") if not is_ours and not is_marked(path)]
    if history.is_file() and not _is_history(history):
        foreign.append(history)
    if foreign:
        raise FileError(f"{foreign[0]}: is of another program; choose another folder, or remove it.")


def _is_history(path: Path) -> bool:
    try:
        return all(TypeAdapter(Epoch).validate_json(line) for line in path.read_bytes().splitlines())
    except (ValidationError, OSError):
        return False


def _write_history(out: Path, state: State) -> None:
    write_text(out / HISTORY, "".join(dumps(asdict(epoch)) + "\n" for epoch in state.epochs))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _read_state(folder: Path) -> State:
    try:
        return TypeAdapter(State).validate_json((folder / STATE).read_bytes())
    except (ValidationError, OSError) as error:
        raise FileError(
            f"{folder / STATE}: not a checkpoint of this version; remove the folder to start over."
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: not readable ({error}); remove the folder to start over.") from error


def _check_same_run(folder: Path, old: State, new: State) -> None:
    """Compare everything but the device, which a run may change."""
    before, now = _facts(old), _facts(new)
    if old.start and new.start:
        before["starting weights"], now["starting weights"] = old.start, new.start
    for name in before:
        if before[name] != now[name]:
            change = f"{name} = {before[name]!r}, not {now[name]!r}"
            raise FileError(f"{folder}: is of a run with {change}; repeat that, write elsewhere, or do not resume.")


def _facts(state: State) -> dict[str, Any]:
    matched = {"data": state.data, "teacher": state.teacher, "responses": ", ".join(state.responses)}
    return asdict(replace(state.recipe, device=None)) | matched


def digest(model: nn.Module) -> str:
    """A short name for a net's weights: the same for the same weights, another for others."""
    hashed = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(name.encode())
        hashed.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()[:12]


def _check_same_net(folder: Path, tensors: dict[str, Tensor], model: nn.Module) -> None:
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            change = f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
            raise FileError(f"{folder}: is of another net ({change}); write elsewhere, or do not resume.")
