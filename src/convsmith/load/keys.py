"""Which tensors of a checkpoint are a model's: the dictionary and the prefix under which most of its keys are found."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convsmith.load.checkpoint import SHOWN
from convsmith.load.reparametrized import plain_weights

# Averaged weights are those that their tools evaluate and ship; where both fit, they are taken, and that is told.
AVERAGED = ("ema", "swa", "averaged")
COUNTERS = ("total_ops", "total_params", "n_averaged", "num_batches_tracked")  # thop's, torch's AveragedModel's


@dataclass(frozen=True)
class Found:
    """A model's tensors by its own keys, and what there is to tell about where they lay and what was left out."""

    state: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fit:
    """A dictionary of a checkpoint, the prefix its keys have and the model's have not, or the other way round."""

    name: str
    tensors: Mapping[str, Tensor]
    others: tuple[str, ...]  # keys of what is no tensor
    notes: tuple[str, ...]
    extra: str  # before the file's keys
    lacking: str  # before the model's keys
    hits: int

    def own(self) -> dict[str, Tensor]:
        """The tensors under the prefix, by the model's keys."""
        return {
            self.lacking + key.removeprefix(self.extra): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(self.extra)
        }


def find_state(candidates: Collection[tuple[str, Mapping[Any, Any]]], wanted: Collection[str]) -> Found | None:
    """The dictionary whose keys are most of the `wanted` ones, once a common prefix is taken off or put before them.

    candidates: dictionaries that hold tensors, with their names; None where none of them has names for its tensors.
    """
    fits = [_fit(name, mapping, frozenset(wanted)) for name, mapping in candidates if _named(mapping)]
    if not fits:
        return None
    best = max(fits, key=lambda fit: (fit.hits, _averaged(fit.name)))
    tensors = best.own()
    left = [key for key in tensors if key not in wanted and _aside(key, tensors[key])]
    elsewhere = [key for key in best.tensors if not key.startswith(best.extra)]
    kept = {key: tensor for key, tensor in tensors.items() if key not in left}
    return Found(kept, (*_where(best, fits), *best.notes, *_left_out([*best.others, *elsewhere, *left])))


def _named(mapping: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key, value in mapping.items() if isinstance(value, Tensor))


def _fit(name: str, mapping: Mapping[Any, Any], wanted: frozenset[str]) -> _Fit:
    given = {key: value for key, value in mapping.items() if isinstance(value, Tensor)}
    tensors, notes = plain_weights(given, wanted)
    others = tuple(str(key) for key, value in mapping.items() if not isinstance(value, Tensor | Mapping))
    hits = Counter({("", ""): len(wanted & tensors.keys())})
    hits.update((prefix, "") for key in tensors for prefix, rest in _splits(key) if rest in wanted)
    hits.update(("", prefix) for key in wanted for prefix, rest in _splits(key) if rest in tensors)
    (extra, lacking), best = max(hits.items(), key=lambda item: (item[1], -len(item[0][0]) - len(item[0][1])))
    if 2 * best < len(wanted):  # another net, which has keys of such names somewhere
        (extra, lacking), best = ("", ""), hits["", ""]
    return _Fit(name, tensors, others, notes, extra, lacking, best)


def _splits(key: str) -> Iterator[tuple[str, str]]:
    """Every way to part a key behind a dot."""
    for place, letter in enumerate(key):
        if letter == ".":
            yield key[: place + 1], key[place + 1 :]


def _averaged(name: str) -> bool:
    return any(word in name.lower() for word in AVERAGED)


def _aside(key: str, tensor: Tensor) -> bool:
    """Whether a tensor that the model lacks is a tool's counter and no weight."""
    name = key.rpartition(".")[2]
    return name in COUNTERS or (tensor.ndim == 0 and name == key)


def _where(best: _Fit, fits: Collection[_Fit]) -> Iterator[str]:
    rivals = [fit.name or "the file itself" for fit in fits if fit is not best and fit.hits == best.hits]
    if rivals:
        yield f"weights of {best.name or 'the file itself'}, not of {', '.join(rivals)}"


def _left_out(keys: list[str]) -> Iterator[str]:
    if keys:
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        yield f"left out of the weights: {', '.join(sorted(keys)[:SHOWN])}{more}"
