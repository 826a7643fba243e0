"""Prices of blocks kept in a file as they come, so that planning that was stopped goes on where it was."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convsmith.calibration.pictures import Bytes, Pictures, tensors_of
from convsmith.calibration.sharing import of_first, share
from convsmith.errors import FileError

# Squared relative errors: of the layer's responses, and of the net's output; None where others lose less for less.
Price = tuple[float, float | None]


class Prices:
    """What blocks do in the place of layers; each is worked out once, and kept as a line of `path` where there is one.

    Of several processes the first alone reads and writes the file. Its first line says what the prices are of. A file
    of something else is begun anew, and a last line that was cut off is taken out.
    """

    def __init__(self, path: Path | None = None, of: str = "") -> None:
        self._path = path
        self._known: dict[tuple[str, str], Price] = {}
        if path is not None:
            self._known = of_first(lambda: self._begun(path, of))

    def _begun(self, path: Path, of: str) -> dict[tuple[str, str], Price]:
        first, *kept = _lines(path) or [{}]
        if first != {"of": of}:
            first, kept = {"of": of}, []
        self._write("".join(json.dumps(line) + "\n" for line in (first, *kept)), "w")
        return {(line["layer"], line["block"]): (line["here"], line["output"]) for line in kept}

    def known(self, layer: str, block: str) -> Price | None:
        """The price of a block in a layer's place, where it was worked out before."""
        return self._known.get((layer, block))

    def keep(self, layer: str, block: str, price: Price) -> None:
        """Add a price; of several processes the first writes it."""
        here, output = self._known[layer, block] = price
        if self._path is not None and share()[0] == 0:
            self._write(json.dumps({"layer": layer, "block": block, "here": here, "output": output}) + "\n", "a")

    def output(self, name: str, change: str, price: Callable[[], tuple[float, float]]) -> float:
        """The output's error of a change, worked out by `price` where it is not known yet."""
        known = self.known(name, change)
        if known is None or known[1] is None:
            known = price()
            self.keep(name, change, known)
        here, output = known
        return here if output is None else output

    def _write(self, text: str, mode: str) -> None:
        assert self._path is not None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise FileError(f"{self._path}: prices cannot be kept ({error.strerror}); choose another place.") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file up to the first that is no record; none where there is no file."""
    records: list[dict[str, Any]] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            records.append(json.loads(line))
    except (OSError, ValueError):
        return records
    return records


def digest(model: nn.Module, images: Pictures | None, *settings: object) -> str:
    """What prices depend on, in few letters: the weights, the images, and what else was asked for."""
    hashed = hashlib.sha256(repr(settings).encode())
    for tensor in (*model.state_dict().values(), *_pixels(images)):
        hashed.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        hashed.update(tensor.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return hashed.hexdigest()[:16]


def _pixels(images: Pictures | None) -> list[Tensor]:
    if images is None:
        return []
    return [images.pixels] if isinstance(images, Bytes) else [*tensors_of(images)]
