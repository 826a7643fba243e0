"""What a net is made for: the runtime that it is to be fast in, its threads and batch, and the device."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from convsmith.errors import ConvsmithError

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Target:
    """Where a net is to be fast; latency is measured there.

    Attributes:
        runtime: A name of `convsmith list targets`.
        threads: CPU threads.
        batch: Images at once; times are those of the whole batch.
        device: `cpu`, `cuda` or `cuda:1`.

    >>> Target.parse("onnxruntime:int8", threads=2)
    Target(runtime='onnxruntime:int8', threads=2, batch=1, device='cpu')
    """

    runtime: str
    threads: int = 1
    batch: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raises ConvsmithError on counts below 1 and on a device that is none."""
        if self.threads < 1 or self.batch < 1:
            raise ConvsmithError(
                f"target: got {self.threads} threads and a batch of {self.batch}; give 1 or more of each."
            )
        if self.device.partition(":")[0] not in DEVICES:
            raise ConvsmithError(f"target: unknown device {self.device!r}; give cpu or cuda.")

    @classmethod
    def parse(cls, text: "str | Target", threads: int = 1, batch: int = 1) -> Self:
        """Read a target: the name of a runtime, with a device behind a colon where that is no CPU.

        Args:
            text: As `onnxruntime`, `onnxruntime:int8` or `eager:cuda`; a target stays as it is.
            threads: CPU threads.
            batch: Images at once.

        Returns:
            The target; whether there is such a runtime is asked where it is used.

        Raises:
            ConvsmithError: On counts below 1.

        >>> str(Target.parse("eager:cuda", batch=8))
        'eager:cuda, batch 8'
        """
        if isinstance(text, cls):
            return text
        name, colon, device = str(text).partition(":")
        if colon and device.partition(":")[0] in DEVICES:
            return cls(name, threads, batch, device)
        return cls(str(text), threads, batch)

    def __str__(self) -> str:
        device = "" if self.device == "cpu" else f":{self.device}"
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        return f"{self.runtime}{device}{threads}{batch}"

    def to_dict(self) -> Mapping[str, Any]:
        """As plain JSON values."""
        return asdict(self)
