"""What layers see and should answer while a net changes layer by layer: two runs side by side on the same images."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from convsmith.algebra.second_moments import Statistics
from convsmith.calibration.calibrate import BATCH, REFIT_ROWS_PER_TAP, ROWS_PER_TAP, Sampler, captured, spec_of
from convsmith.calibration.joins import Behind, affine, undone
from convsmith.calibration.pictures import Pictures, tensors_of
from convsmith.calibration.sharing import agree, share
from convsmith.errors import ConvsmithError
from convsmith.graph.replay import Replay, Tensors
from convsmith.structure.units import detour


class Calibration:
    """Two runs side by side on the same images: of a trained net, and of a copy that changes layer by layer.

    What a layer is fitted to is what it will see, in the changed net, against what the original answered there
    ("asymmetric" in He et al., 2019). Errors of earlier layers are made good by later ones. A layer whose response goes
    into a sum is fitted to the original's sum without the shortcut as it is now. So it mends that too. Both runs go
    through each call once, however many layers change. Activations alive at the present call are kept for all images.

    original, changed: two copies of one net, the latter perhaps with channels cut out. images: (n, c, h, w), run in
    batches of one size, at most `batch`, so that a few may be left out. seed: draws the output positions. removed:
    units that the changed net does without.
    """

    def __init__(
        self,
        original: nn.Module,
        changed: nn.Module,
        images: Pictures,
        *,
        batch: int = BATCH,
        seed: int = 0,
        removed: Sequence[tuple[str, ...]] = (),
    ) -> None:
        like = next(original.parameters())
        size = len(images) // -(-len(images) // batch)
        graph = captured(original, images[:1].to(like), size)
        self.graph = graph
        detours = [detour(graph, unit) for unit in removed]
        gone = {name for each in detours for name in each.inside}
        convs = {place: node for place, node in enumerate(graph.nodes) if node.conv_spec() is not None}
        self._places = {node.module: place for place, node in convs.items() if node.name not in gone}
        # The same calls, perhaps on fewer channels.
        self._changed = graph if changed is original else captured(changed, images[:1].to(like), size)
        self._runs = [Replay(original, graph), Replay(changed, self._changed, detours)]
        self._pictures, self._like, self._alive = images, like, list[list[Tensors]]()
        self._parts = [slice(start, start + size) for start in range(0, len(images) - size + 1, size)]
        self._at, self._images = [0, 0], size * len(self._parts)
        self._blocks: dict[str, nn.Module] = {}
        self._state = original.state_dict()
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def order(self) -> list[str]:
        """The convolution modules in order of execution, without those of removed units."""
        return list(self._places)

    def statistics(self, layer: str) -> Statistics:
        """The moments of a layer. Raises ConvsmithError on one that runs before a layer asked for earlier."""
        return self.sample(layer).statistics()

    def sample(self, layer: str, rows: int = 0) -> "Sampler":
        """What a layer sees and should answer, with about `rows` rows kept. Raises ConvsmithError as `statistics`."""
        return self._sampled(layer, rows, 0)[0]

    def halves(self, layer: str, rows: int = 0) -> "list[Sampler]":
        """The same of three quarters of the images, and of those held out; of all, where they are too few."""
        return self._sampled(layer, rows, self._parts[0].stop // 4)

    def _sampled(self, layer: str, rows: int, held_out: int) -> list["Sampler"]:
        """Samplers of the first and, where there are any, of the last `held_out` images of each batch."""
        place = self._places[layer]
        node = self.graph.nodes[place]
        if place < self._at[1]:
            raise ConvsmithError(f"{layer} runs before a layer that was calibrated already; take layers in order.")
        behind = Behind.of(self.graph, node)
        factor, term = (None, None) if behind.norm is None else affine(self._state, behind.norm)
        size = node.call.out[0]
        shares = [size - held_out, held_out] if held_out else [size]
        samplers = [
            Sampler(
                spec_of(self._changed.nodes[place]), node.call.out, share * len(self._parts), self._generator, rows,
                factor, term, REFIT_ROWS_PER_TAP if held_out else ROWS_PER_TAP,
            )
            for at, share in enumerate(shares)
        ]  # fmt: skip
        for first, second in self._states(samplers, shares):
            self._runs[0].run(first, self._at[0], place + 1)
            self._runs[1].run(second, self._at[1], place, self._blocks)
            wanted, maps = first[node.name], [second[node.call.input.name]]
            if behind.shortcut is not None:
                was = self._runs[0].ahead(first, behind.shortcut)
                shortcut = self._runs[1].ahead(second, behind.shortcut, self._blocks)
                wanted, maps = wanted + undone(was - shortcut, factor), [*maps, shortcut]
            inputs, *others = maps
            parts = (torch.split(x, shares) for x in (inputs, wanted, *others))
            for sampler, *part in zip(samplers, *parts, strict=True):
                sampler.add(*part)
        self._at = [place + 1, place]
        return samplers

    def _states(self, samplers: Sequence[Sampler], shares: Sequence[int]) -> Iterator[list[Tensors]]:
        """What is alive of each batch in both runs; the images of a batch are read when it is first run.

        Of several processes each has every N-th batch, and samplers pass over their shares of the others.
        """
        rank, count = share()
        for place, part in enumerate(self._parts):
            if place % count != rank:
                for sampler, images in zip(samplers, shares, strict=True):
                    sampler.skip(images, self._like.device)
                continue
            if place // count == len(self._alive):  # a copy for each run: a forward may write into its input
                self._alive.append(
                    [run.start(*tensors_of(self._pictures[part].to(self._like, copy=True))) for run in self._runs]
                )
            yield self._alive[place // count]

    def put(self, layer: str, block: nn.Module) -> None:
        """From here on the changed run has `block` in the layer's place, alike in all processes."""
        agree(block)
        self._blocks[self.graph.nodes[self._places[layer]].name] = block
