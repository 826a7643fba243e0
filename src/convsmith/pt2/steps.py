"""The calls of a .pt2 graph, made ready to be run one by one."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch._ops import OpOverload

from convsmith.pt2.operators import PARTS, operator_of
from convsmith.pt2.values import Part, Ref, value_of

Values = dict[str, Any]
Call = Callable[["Step", Sequence[Any], Mapping[str, Any]], Any]

KEYWORD = 2  # the kind of an argument that is given by name
AGAIN = re.compile(r"@\d+")  # how often a module has run before, behind its name


@dataclass(frozen=True)
class Step:
    """One call: in which module, of what, with what; the names of what it makes, and what nothing reads afterwards."""

    path: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    slots: tuple[int, ...]  # the arguments that hold references
    keywords: tuple[str, ...]  # and those by name
    outputs: tuple[Any, ...]
    done: tuple[str, ...]


@dataclass(frozen=True)
class Body:
    """A graph inside the graph."""

    inputs: tuple[Any, ...]
    steps: tuple[Step, ...]
    answers: tuple[Any, ...]
    single: bool


def steps_of(graph: Mapping[str, Any], answers: Sequence[Any]) -> Iterator[Step]:
    """A graph's calls; answers: what is read behind the last of them."""
    made = [_step(node) for node in graph["nodes"]]
    last: dict[str, int] = {}
    for place, step in enumerate(made):
        for name in (*_names(step.args), *_names([*step.kwargs.values()]), *_names(step.outputs)):
            last[name] = place
    kept = set(_names(answers))
    done: dict[int, list[str]] = {}
    for name, place in last.items():
        if name not in kept:
            done.setdefault(place, []).append(name)
    for place, step in enumerate(made):
        yield replace(step, done=tuple(done.get(place, ())))


def _step(node: Mapping[str, Any]) -> Step:
    function = operator_of(node["target"])
    by_name = (
        {a.name for a in function._schema.arguments if a.kwarg_only} if isinstance(function, OpOverload) else set()
    )
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for entry in node["inputs"]:
        value = _ready(value_of(entry["arg"]))
        if entry.get("kind") == KEYWORD or (entry.get("kind") is None and entry["name"] in by_name):
            kwargs[str(entry["name"])] = value
        else:
            args.append(value)
    outputs = tuple(value_of(output) for output in node["outputs"])
    slots = tuple(place for place, value in enumerate(args) if _refers(value))
    keywords = tuple(name for name, value in kwargs.items() if _refers(value))
    return Step(_path(node["metadata"]), function, tuple(args), kwargs, slots, keywords, outputs, ())


def _ready(value: Any) -> Any:
    if not isinstance(value, Part):
        return value
    graph = value.graph
    inputs, answers = ([value_of(each) for each in graph[key]] for key in ("inputs", "outputs"))
    single = bool(graph["is_single_tensor_return"])
    return Body(tuple(inputs), tuple(steps_of(graph, answers)), tuple(answers), single)


def _path(metadata: Mapping[str, str]) -> str:
    """The innermost module of `key,path,type;key,path,type`; the net itself where none is told."""
    stack = metadata.get("nn_module_stack", "")
    parts = stack.rpartition(";")[2].split(",", 2)
    return AGAIN.sub("", parts[1]) if len(parts) == 3 else ""


def _refers(value: Any) -> bool:
    return isinstance(value, Ref | Body) or (isinstance(value, list) and any(map(_refers, value)))


def _names(values: Sequence[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Ref):
            yield value.name
        elif isinstance(value, list | tuple):
            yield from _names(value)


def run(steps: Sequence[Step], values: Values, call: Call) -> None:
    """Run calls in order, each by `call`; `values` has what they read, and gets what is read behind the last."""
    for step in steps:
        args, kwargs = step.args, step.kwargs
        if step.slots:
            filled_args = list(args)
            for place in step.slots:
                filled_args[place] = filled(args[place], values, call)
            args = tuple(filled_args)
        if step.keywords:
            kwargs = {**kwargs, **{name: filled(kwargs[name], values, call) for name in step.keywords}}
        _keep(step, call(step, args, kwargs), values)
        for name in step.done:
            values.pop(name, None)


def filled(value: Any, values: Values, call: Call) -> Any:
    """A value with what its references stand for."""
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, Body):
        return partial(_run_body, value, call)
    return [filled(item, values, call) for item in value] if isinstance(value, list) else value


def _run_body(body: Body, call: Call, *args: Any) -> Any:
    values: Values = {}
    _assign(list(body.inputs), args, values)
    run(body.steps, values, call)
    answers = [filled(answer, values, call) for answer in body.answers]
    return answers[0] if body.single else answers


def _keep(step: Step, made: Any, values: Values) -> None:
    """Name what a call made: one value, or each of several."""
    several = len(step.outputs) != 1 or (step.function in PARTS.values() and isinstance(made, list | tuple))
    if several:
        _assign(list(step.outputs), made, values)
    else:
        _assign(step.outputs[0], made, values)


def _assign(target: Any, made: Any, values: Values) -> None:
    if isinstance(target, Ref):
        values[target.name] = made
    elif isinstance(target, list) and target:
        for each, value in zip(target, made, strict=True):
            _assign(each, value, values)
