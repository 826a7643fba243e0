"""The search: what it finds again, that all it finds is sound, that its shortcuts lose nothing, and what it refuses."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from math import prod
from time import process_time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from typer.testing import CliRunner

import convsmith as cs
from convsmith.blocks import Kernel, KernelSequence, channels, parse_block
from convsmith.cli.app import app
from convsmith.kernels.spec import ConvSpec
from convsmith.plan import Replace
from convsmith.planning.by_cost import SEPARABLE
from convsmith.planning.candidates import try_block
from convsmith.planning.ladder import RUNG
from convsmith.planning.search.mixing import OVERLAPS, Mixing, mixings, repeated
from convsmith.planning.search.sequences import Found, cheapest_by_form, find_sequences, merged
from convsmith.testing.oracles import gradient_support, torch_macs, transparent

Bools = NDArray[np.bool_]


@cache
def found_for(conv: ConvSpec, window: int = 1, size: tuple[int, int] = (16, 16)) -> dict[str, Found]:
    return {str(each.block): each for each in cs.search_blocks(conv, window, size=size)}


# --- what is known is found again ---

# Wang et al., CIKM 2021: kernels, and multiply-accumulates per pixel at C = N = 64, K = 9
KNOWN = [
    ("dw-pw", 9 * 64 + 64 * 64, 0.127),
    ("pw-dw", 9 * 64 + 64 * 64, 0.127),
    ("seq:dw,gpw(g=2),shuffle(g=2),gpw(g=2)", 9 * 64 + 2 * 64 * 64 // 2, 0.127),
    ("seq:gpw(g=2),shuffle(g=2),dw,gpw(g=2)", 9 * 64 + 2 * 64 * 64 // 2, 0.127),
    ("seq:dw,rpw(g=2,o=0.5),rpw(g=2,o=0.5)", 9 * 64 + 2 * 64 * 64 // 2, 0.127),
    ("seq:dw,gpw(g=4),shuffle(g=4),gpw(g=4)", 9 * 64 + 2 * 64 * 64 // 4, 0.071),
    ("seq:gpw(g=4),shuffle(g=4),dw,gpw(g=4)", 9 * 64 + 2 * 64 * 64 // 4, 0.071),
    ("seq:dw,rpw(g=4,o=0.5),rpw(g=4,o=0.5)", 9 * 64 + 2 * 64 * 64 // 4, 0.071),
    ("seq:dw,gpw(g=8),shuffle(g=8),gpw(g=8)", 9 * 64 + 2 * 64 * 64 // 8, 0.043),
    ("seq:dw,rpw(g=8,o=0.5),rpw(g=8,o=0.5),rpw(g=8,o=0.5)", 9 * 64 + 3 * 64 * 64 // 8, 0.057),
    ("seq:gc(g=8),shuffle(g=8),gpw(g=8)", 9 * 64 * 64 // 8 + 64 * 64 // 8, 0.139),
    ("seq:gc1x3(g=1),gc3x1(g=1)", 6 * 64 * 64, 0.667),
]


@pytest.mark.parametrize(("block", "per_pixel", "cost"), KNOWN)
def test_known_blocks_are_found_at_their_costs(block: str, per_pixel: int, cost: float) -> None:
    found = found_for(ConvSpec(64, 64))[block]
    assert (found.params, found.macs, round(found.cost, 3)) == (per_pixel, per_pixel * 16 * 16, cost)
    assert str(parse_block(str(found.block))) == block


@pytest.mark.parametrize(
    "block",
    ["seq:dw,gpw(g=2)", "seq:dw,rpw(g=2,o=0.5)", "seq:dw,gpw(g=2),gpw(g=2)", "seq:dw,rpw(g=8,o=0.5),rpw(g=8,o=0.5)",
     "seq:dw,rpw(g=8,o=0.75),rpw(g=8,o=0.75),rpw(g=8,o=0.75)", "seq:dw,pw,pw"],
)  # fmt: skip
def test_what_misses_quality_or_compact_is_not_found(block: str) -> None:
    trial = try_block(parse_block(block), ConvSpec(64, 64), (16, 16))
    assert not (trial.quality and trial.compact)
    assert block not in found_for(ConvSpec(64, 64))


def test_cheapest_first_and_cheaper_than_the_convolution() -> None:
    found = list(found_for(ConvSpec(24, 24)).values())
    assert [each.macs for each in found] == sorted(each.macs for each in found)
    assert found[-1].cost < 1
    by_params = cs.search_blocks(nn.Conv2d(24, 24, 3, padding=1, bias=False), size=(16, 16), rank="params")
    assert [each.params for each in by_params] == sorted(each.params for each in found)
    assert len({each.form for each in cheapest_by_form(found)}) == len(cheapest_by_form(found)) < len(found)


def test_wide_convolutions_take_under_a_second() -> None:
    find_sequences.cache_clear()
    mixings.cache_clear()
    begin = process_time()
    assert len(cs.search_blocks(ConvSpec(512, 512), size=(14, 14))) == 7623
    assert process_time() - begin < 2.5  # 0.4 s on a machine with nothing else to do


# --- all that is found is sound ---


def volume_by_gradient(net: nn.Module, shape: tuple[int, ...], outputs: int) -> float:
    """Mean number of channels times the window, at the middle of the map; 0 where the net leaves another map."""
    try:
        answer = net(torch.rand(1, *shape, dtype=torch.float64))
    except (RuntimeError, cs.ConvsmithError):
        return 0.0
    if answer.shape[1] != outputs:
        return 0.0
    middle = [(0, channel, answer.shape[2] // 2, answer.shape[3] // 2) for channel in range(outputs)]
    seen = gradient_support(net, shape, middle, draws=1)
    reached = float(np.mean([each.any((1, 2)).sum() for each in seen]))
    places = np.argwhere(np.any(seen, axis=(0, 1)))
    return reached * float(prod(places.max(0) - places.min(0) + 1))


SMALL = [
    (ConvSpec(4, 4), (7, 7)),
    (ConvSpec(4, 8, bias=True), (7, 7)),
    (ConvSpec(8, 4, stride=(2, 2)), (9, 9)),
    (ConvSpec(6, 6, (5, 5), padding=(2, 2)), (9, 9)),
    (ConvSpec(4, 4, (3, 3), padding=(2, 2), dilation=(2, 2)), (9, 9)),
    (ConvSpec(4, 4, (2, 3), padding=(0, 0)), (7, 7)),
]


@pytest.mark.parametrize(("conv", "size"), SMALL, ids=str)
def test_every_result_has_quality_and_is_compact_by_gradients(conv: ConvSpec, size: tuple[int, int]) -> None:
    shape = (conv.in_channels, *size)
    standard = nn.Conv2d(*list(vars(conv).values())[:6], bias=conv.bias)
    whole = volume_by_gradient(transparent(standard), shape, conv.out_channels)
    assert whole == conv.in_channels * prod(d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel, strict=True))
    found = list(found_for(conv, 1, size).values())
    assert len(found) > 20
    for each in found[:: max(1, len(found) // 60)]:
        built = transparent(each.block.build(conv))
        assert isinstance(built, nn.Sequential)
        assert (sum(p.numel() for p in built.parameters()), torch_macs(built, torch.zeros(1, *shape).double())) == (
            each.params, each.macs,
        )  # fmt: skip
        assert volume_by_gradient(built, shape, conv.out_channels) == whole, each.block
        for i in range(len(built)):
            rest = nn.Sequential(*(kernel for j, kernel in enumerate(built) if j != i))
            assert volume_by_gradient(rest, shape, conv.out_channels) < whole, (each.block, i)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        *SMALL,
        (ConvSpec(16, 32, stride=(2, 2)), (7, 9)),
        (ConvSpec(8, 8), (2, 3)),
        (ConvSpec(8, 8, (7, 7), padding=(3, 3)), (4, 5)),
    ],
    ids=str,
)
def test_the_arithmetic_agrees_with_the_exact_reach_of_the_built_module(conv: ConvSpec, size: tuple[int, int]) -> None:
    found = list(found_for(conv, 1, size).values())
    for each in found[:: max(1, len(found) // 40)]:
        trial = try_block(each.block, conv, size)
        assert (trial.quality, trial.compact, trial.params, trial.macs) == (True, True, each.params, each.macs)


def test_nothing_is_found_where_a_window_widens_nothing() -> None:
    assert found_for(ConvSpec(8, 8), 1, (1, 1)) == {}


# --- nothing is lost: against all sequences there are, on small widths ---


def matrix(kernel: Kernel, inputs: int, outputs: int) -> Bools:
    """(outputs, inputs): who reads whom."""
    found = np.zeros((outputs, inputs), np.bool_)
    np.put_along_axis(found, kernel.reads(inputs, outputs).numpy(), True, axis=1)
    return found


def reached(kernels: Sequence[Kernel], widths: Sequence[tuple[int, int]]) -> Bools | None:
    """(outputs, inputs) of a chain; None where it does not fit together."""
    if any(a[1] != b[0] for a, b in pairwise(widths)):
        return None
    total = np.eye(widths[0][0], dtype=np.bool_) if widths else np.ones((0, 0), np.bool_)
    for kernel, (inputs, outputs) in zip(kernels, widths, strict=True):
        total = matrix(kernel, inputs, outputs).astype(int) @ total.astype(int) > 0
    return total


def every_mixer(inputs: int, outputs: int) -> list[Kernel]:
    divisors = [g for g in range(2, max(inputs, outputs)) if inputs % g == 0 or outputs % g == 0]
    rolling = [Kernel("rpw", g=g, o=o) for g in divisors for o in OVERLAPS]
    grouped = [Kernel(kind, g=g) for g in divisors for kind in ("gpw", "shuffle")]
    return [Kernel("pw"), *grouped, *rolling]


def brute_force(inputs: int, outputs: int) -> Iterator[tuple[Kernel, ...]]:
    """All words of up to three kernels that mix all channels and need each kernel, as boolean products."""
    conv = ConvSpec(inputs, outputs)
    for length in (1, 2, 3):
        for word in product(every_mixer(inputs, outputs), repeat=length):
            widths = channels(word, conv)
            misfit = any(
                kernel.undivided(*width) or kernel.g >= width[0] for kernel, width in zip(word, widths, strict=True)
            )
            if misfit or not any(k.mixes for k in word):
                continue
            whole = reached(word, widths)
            if whole is None or whole.shape != (outputs, inputs) or not whole.all():
                continue
            if all(needs(word, widths, i, outputs) for i in range(length)):
                yield word


def needs(word: Sequence[Kernel], widths: Sequence[tuple[int, int]], i: int, outputs: int) -> bool:
    rest = [k for j, k in enumerate(word) if j != i]
    if not rest:
        return True
    left = reached(rest, [w for j, w in enumerate(widths) if j != i])
    return left is None or len(left) != outputs or not left.all() or left.shape[1] != widths[0][0]


def signature(word: Sequence[Kernel], conv: ConvSpec) -> tuple[bytes, ...]:
    """What a word is, whatever its overlaps are called: two that round to one step are the same kernel."""
    pairs = zip(word, channels(word, conv), strict=True)
    return tuple(k.kind.encode() + k.reads(*width).numpy().tobytes() for k, width in pairs)


def in_the_space(word: Sequence[Kernel]) -> bool:
    """What the search takes up: shuffles with the groups of a grouped kernel before them, three of one group number."""
    if "shuffle" in [k.kind for k in word]:
        return len(word) == 3 and word[0].kind == "gpw" and word[1].kind == "shuffle" and word[1].g == word[0].g
    return len(word) < 3 or len({k.g for k in word}) == 1


@pytest.mark.parametrize(
    ("inputs", "outputs"), [(4, 4), (6, 6), (8, 8), (9, 9), (4, 8), (8, 4), (6, 9), (9, 6), (8, 12)]
)
def test_words_are_those_of_brute_force(inputs: int, outputs: int) -> None:
    conv = ConvSpec(inputs, outputs)
    words = list(brute_force(inputs, outputs))
    expected = {signature(word, conv) for word in words if in_the_space(word)}
    found = [mixing.kernels for mixing in mixings(inputs, outputs) if all(mixing.needed)]
    assert {signature(word, conv) for word in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 6), (8, 8), (9, 9), (4, 8), (8, 4), (8, 12)])
def test_no_other_shuffle_mixes_where_that_of_the_groups_before_it_does_not(inputs: int, outputs: int) -> None:
    shuffled = [
        w for w in brute_force(inputs, outputs) if len(w) == 3 and w[1].kind == "shuffle" and w[0].kind == "gpw"
    ]
    ends = {(word[0], word[2]) for word in shuffled}
    assert ends == {(word[0], word[2]) for word in shuffled if in_the_space(word)}


def test_needed_says_which_kernels_can_be_left_out() -> None:
    conv = ConvSpec(8, 8)
    assert any(not all(mixing.needed) for mixing in mixings(8, 8))
    for mixing in mixings(8, 8):
        widths = channels(mixing.kernels, conv)
        assert mixing.needed == tuple(needs(mixing.kernels, widths, i, 8) for i in range(len(widths))), mixing


def test_orders_and_windows_are_those_of_brute_force() -> None:
    """At 4 channels all sequences of four kernels out of fourteen can be tried, each for its windows and channels."""
    conv = ConvSpec(4, 4)
    sizes = (None, (1, 3), (3, 1))
    spatial = [Kernel("dw", size) for size in sizes] + [Kernel("gc", size, g) for size in sizes for g in (1, 2)]
    rolling = [Kernel("rpw", g=2, o=o) for o in (0.25, 0.5)]
    alphabet = [*spatial, Kernel("pw"), Kernel("gpw", g=2), Kernel("shuffle", g=2), *rolling]
    expected = set()
    for length in (1, 2, 3, 4):
        for kernels in product(alphabet, repeat=length):
            moved = [k.window(conv) for k in kernels if k.spatial]
            if moved not in ([(3, 3)], [(1, 3), (3, 1)]) or not sound(kernels, conv):
                continue
            word = [Kernel("gpw" if k.kind == "gc" else k.kind, g=k.g, o=k.o) for k in kernels if k.kind != "dw"]
            if len(word) <= 3 and in_the_space(word) and cheaper(kernels, conv):
                expected.add(f"seq:{','.join(map(str, kernels))}")
    found = {f"seq:{','.join(map(str, each.kernels))}" for each in find_sequences(conv, (8, 8))}
    assert found == expected


def sound(kernels: Sequence[Kernel], conv: ConvSpec) -> bool:
    """Quality and Compact on a map where no border clips a window."""
    widths = channels(kernels, conv)

    def sees(at: Sequence[int]) -> tuple[bool, int]:
        whole = reached([kernels[i] for i in at], [widths[i] for i in at])
        rows, columns = (1 + sum(kernels[i].window(conv)[axis] - 1 for i in at) for axis in (0, 1))
        return whole is not None and bool(whole.size and whole.all()), rows * columns

    places = range(len(kernels))
    rests = [[j for j in places if j != i] for i in places]
    return sees(places) == (True, 9) and all(not rest or sees(rest) != (True, 9) for rest in rests)


def cheaper(kernels: Sequence[Kernel], conv: ConvSpec) -> bool:
    pairs = zip(kernels, channels(kernels, conv), strict=True)
    own = sum(n * k.width(c) * prod(k.window(conv)) for k, (c, n) in pairs if k.kind != "shuffle")
    return own < 9 * conv.in_channels * conv.out_channels


def test_a_mixing_is_a_record() -> None:
    assert mixings(4, 4)[0] == Mixing((Kernel("pw"),), (True,))


# --- several convolutions in a row ---


@pytest.mark.parametrize("window", [2, 3])
def test_a_window_sees_what_the_convolutions_see(window: int) -> None:
    conv, size = ConvSpec(8, 8), (13, 13)
    with torch.device("meta"):
        row = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(window)))
    graph = cs.capture(row, torch.zeros(1, 8, *size, device="meta"))
    whole = graph.reaches()[graph.outputs[0]].extent()
    found = found_for(conv, window, size)
    small = ",".join(["dw3x3"] * window)
    assert {"dw-pw", f"seq:{small},pw", f"seq:pw,{small}"} <= found.keys()
    assert found["dw-pw"].macs == (8 * (2 * window + 1) ** 2 + 64) * 169
    assert found["dw-pw"].cost == found["dw-pw"].macs / graph.macs
    assert found["dw-pw"].conv == merged(conv, window)
    for each in [each for each in found.values() if each.copies == 1][:: len(found) // 12]:
        built = each.block.build(each.conv)
        seen = cs.capture(built, torch.zeros(1, 8, *size))
        assert seen.reaches()[seen.outputs[0]].extent() == whole
        assert try_block(each.block, each.conv, size).compact


# Wang et al., CIKM 2021: groups and overlap of rolling blocks at 64 channels, how many in a row, and their cost
REPEATED = [
    (2, 0.5, 2, 0.071), (4, 0.25, 2, 0.043), (4, 0.33, 2, 0.043), (4, 0.5, 2, 0.043), (4, 0.75, 2, 0.043),
    (8, 0.25, 3, 0.030), (8, 0.5, 3, 0.030), (8, 0.75, 4, 0.030),
]  # fmt: skip


@pytest.mark.parametrize(("g", "o", "window", "cost"), REPEATED)
def test_a_rolling_block_in_each_place_is_found_where_it_takes_so_many(
    g: int, o: float, window: int, cost: float
) -> None:
    name = f"dw-rpw:g={g},o={o}"
    at = [length for length in (1, 2, 3, 4) if name in found_for(ConvSpec(64, 64), length)]
    assert at == [window]
    found = found_for(ConvSpec(64, 64), window)[name]
    assert (found.copies, found.conv, round(found.cost, 3)) == (window, ConvSpec(64, 64), round(cost, 3))
    assert (found.label, found.form) == (f"{window} x {name}", f"{window} x (DW + RPW)")
    own = try_block(parse_block(name), found.conv, (16, 16))
    assert (found.params, found.macs) == (window * own.params, window * own.macs)


@pytest.mark.parametrize("window", [2, 3, 4])
def test_a_grouped_block_in_each_place_is_never_found(window: int) -> None:
    repeated = [each for each in found_for(ConvSpec(64, 64), window).values() if each.copies > 1]
    assert {kernel.kind for each in repeated for kernel in each.kernels} == {"dw", "rpw"}
    assert {len(each.kernels) for each in repeated} == {2, 3}  # depthwise whole, and as 1x3 and 3x1


@pytest.mark.parametrize("channels", [4, 6, 8, 9, 12, 16, 24])
@pytest.mark.parametrize("times", [2, 3, 4])
def test_repeated_kernels_are_those_of_boolean_products(channels: int, times: int) -> None:
    expected = set()
    for kernel in (k for k in every_mixer(channels, channels) if k.kind != "shuffle" and k.g > 1):
        once = matrix(kernel, channels, channels).astype(int)
        full = [bool(np.linalg.matrix_power(once, n).all()) for n in (times - 1, times)]
        if full == [False, True]:
            expected.add(signature([kernel], ConvSpec(channels, channels)))
    found = [mixing.kernels for mixing in repeated(channels, times)]
    assert {signature(word, ConvSpec(channels, channels)) for word in found} == expected
    assert len(found) == len(expected)


# --- pointwise convolutions ---

ONES = [
    (ConvSpec(8, 8, (1, 1), padding=(0, 0)), (5, 5)),
    (ConvSpec(8, 16, (1, 1), padding=(0, 0), bias=True), (5, 5)),
    (ConvSpec(16, 8, (1, 1), (2, 2), (0, 0)), (5, 6)),
]


@pytest.mark.parametrize(("conv", "size"), ONES, ids=str)
def test_what_is_found_for_a_pointwise_one_has_quality_and_is_compact(conv: ConvSpec, size: tuple[int, int]) -> None:
    found = found_for(conv, 1, size)
    assert found
    for each in found.values():
        trial = try_block(each.block, conv, size)
        assert (trial.quality, trial.compact, trial.params, trial.macs) == (True, True, each.params, each.macs)
        assert trial.macs < conv.macs((size[0] if conv.stride[0] == 1 else 3, size[1] if conv.stride[0] == 1 else 3))
        assert not any(kernel.spatial for kernel in each.kernels)


def test_the_shuffled_pair_is_found_for_a_pointwise_one() -> None:
    found = found_for(ConvSpec(64, 64, (1, 1), padding=(0, 0)))
    assert "seq:gpw(g=2),shuffle(g=2),gpw(g=2)" not in found  # costs as much
    assert found["seq:gpw(g=4),shuffle(g=4),gpw(g=4)"].cost == 0.5
    assert found["seq:gpw(g=8),shuffle(g=8),gpw(g=8)"].cost == 0.25
    assert found["seq:rpw(g=4,o=0.5),rpw(g=4,o=0.5)"].cost == 0.5


def test_a_pointwise_one_is_carried_into_its_sequence() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 1, stride=2)
    block = parse_block("seq:gpw(4),shuffle(4),rpw(2,.5)")
    built = block.build(ConvSpec.of(conv))
    carried = block.carry(conv, built)
    x = torch.randn(4, 8, 32, 32)
    with torch.no_grad():
        wanted, got = (each(x) - conv.bias.view(-1, 1, 1) for each in (conv, built))
    assert carried.error is not None
    assert carried.error < 0.9
    assert ((wanted - got).norm() / wanted.norm()).item() == pytest.approx(carried.error, abs=0.05)


# --- latency ---


def test_latency_is_measured_for_the_first_forms_and_puts_them_in_order() -> None:
    found = cs.search_blocks(ConvSpec(8, 8), size=(6, 6), rank="latency", measured=2, seconds=0.01)
    times = [each.latency for each in found]
    assert times[2:] == [None] * (len(times) - 2)
    assert times[0] is not None
    assert times[1] is not None
    assert 0 < times[0] <= times[1]
    assert {replace(each, latency=None) for each in found} == set(cs.search_blocks(ConvSpec(8, 8), size=(6, 6)))


# --- refusals ---

REFUSED = [
    ((ConvSpec(3, 64),), {}, "it is a stem with 3 input channels"),
    ((ConvSpec(8, 8, (1, 1)),), {}, "a 1x1 kernel that pads or has two strides is not taken apart"),
    ((ConvSpec(8, 8, (1, 1), (2, 1), (0, 0)),), {}, "a 1x1 kernel that pads or has two strides is not taken apart"),
    ((ConvSpec(8, 8, (1, 1), padding=(0, 0), groups=2),), {}, r"it is grouped already \(groups=2\)"),
    ((ConvSpec(8, 8, groups=2),), {}, r"it is grouped already \(groups=2\)"),
    ((nn.Conv2d(8, 8, 3, groups=8),), {}, "it is already depthwise"),
    ((ConvSpec(8, 8, padding_mode="reflect"),), {}, "what reflect padding lets it see is not known"),
    ((ConvSpec(8, 8, (5, 5), padding=(0, 0)),), {"size": (4, 9)}, "its kernel does not fit a map of 4x9"),
    ((ConvSpec(8, 8), 0), {}, "at least one convolution is to be replaced, got 0"),
    ((ConvSpec(8, 16), 2), {}, "only convolutions of equal width, odd kernel and stride 1 are taken together"),
    ((ConvSpec(8, 8, stride=(2, 2)), 2), {}, "only convolutions of equal width, odd kernel and stride 1"),
    ((ConvSpec(8, 8, (5, 5), padding=(1, 1)), 2), {}, "only convolutions that pad by half their kernel"),
    ((ConvSpec(8, 8),), {"rank": "speed"}, "rank must be macs, params or latency, got 'speed'"),
]


@pytest.mark.parametrize(("given", "options", "sentence"), REFUSED)
def test_refusals(given: tuple, options: dict, sentence: str) -> None:
    with pytest.raises(cs.ConvsmithError, match=sentence):
        cs.search_blocks(*given, **options)


# --- auto under a budget ---


def replaced(plan: cs.Plan) -> list[Replace]:
    return [edit for edit in plan.edits if isinstance(edit, Replace)]


def test_auto_under_a_tight_budget_takes_what_the_search_finds() -> None:
    net = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
    graph = cs.capture(net, torch.zeros(1, 16, 12, 12))
    separable = sum(
        min(try_block(parse_block(b), ConvSpec(*w), (12, 12)).macs for b in SEPARABLE) for w in ((16, 32), (32, 32))
    )
    plan = cs.decompose(graph, max_macs=0.8 * separable / graph.macs)
    assert plan.new.macs <= 0.8 * separable
    edits = replaced(plan)
    assert any(edit.block.startswith("seq:") for edit in edits)
    for edit, widths in zip(edits, ((16, 32), (32, 32)), strict=True):
        found = found_for(ConvSpec(*widths, bias=True), 1, (12, 12))
        if edit.block.startswith("seq:"):
            assert edit.macs[1] == found[edit.block].macs
            assert "within the limit; sees as much as the convolution" in edit.reason
        assert edit.quality
        assert edit.compact
    new = cs.apply(net, cs.Plan.from_json(plan.to_json()))
    assert torch_macs(new, torch.zeros(1, 16, 12, 12)) == plan.new.macs
    assert sum(p.numel() for p in new.parameters()) == plan.new.params


@pytest.mark.parametrize("limit", [0.2, 0.05])
def test_auto_on_a_net(limit: float) -> None:
    with torch.device("meta"):
        net = cs.build("vgg16", input=(3, 32, 32), classes=10)
    graph = cs.capture(net, torch.zeros(1, 3, 32, 32, device="meta"))
    plan = cs.decompose(graph, max_macs=limit)
    assert limit * RUNG**2 < plan.new.macs / plan.base.macs <= limit
    assert all(edit.quality and edit.compact for edit in replaced(plan))
    assert any(edit.block.startswith("seq:") for edit in replaced(plan)) == (limit < 0.1)


def test_a_sequence_can_be_forced_and_a_missing_quality_is_flagged() -> None:
    graph = cs.capture(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1)), torch.zeros(1, 16, 8, 8))
    whole, part = (
        replaced(cs.decompose(graph, block=b))[0] for b in ("seq:dw,rpw(2,.5),rpw(2,.5)", "seq:dw,rpw(2,.5)")
    )
    assert (whole.block, whole.quality, whole.compact) == ("seq:dw,rpw(g=2,o=0.5),rpw(g=2,o=0.5)", True, True)
    assert "sees 50 % of what the convolution saw" in part.reason


def bottlenecks() -> nn.Sequential:
    """Mostly pointwise, as ResNet-50; one of them on a single pixel."""
    own = [nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.ReLU()]
    return nn.Sequential(*own, nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 64, 1))


@pytest.mark.parametrize("limit", [0.7, 0.3])
def test_pointwise_ones_give_way_only_where_the_others_are_not_enough(limit: float) -> None:
    net = bottlenecks()
    plan = cs.decompose(cs.capture(net, torch.zeros(1, 16, 12, 12)), max_macs=limit)
    ones = [edit.layer for edit in replaced(plan) if edit.layer != "2"]
    assert ones == ([] if limit == 0.7 else ["0", "4"])
    assert plan.new.macs <= limit * plan.base.macs
    assert torch_macs(cs.apply(net, plan), torch.zeros(1, 16, 12, 12)) == plan.new.macs
    assert all(edit.quality and edit.compact for edit in replaced(plan))
    assert plan.asked is not None
    fitted = cs.apply(net, plan, data=torch.rand(16, 16, 12, 12))
    assert torch_macs(fitted, torch.zeros(1, 16, 12, 12)) == plan.new.macs


def row(*widths: int) -> nn.Sequential:
    layers = [(nn.Conv2d(c, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU()) for c, n in pairwise(widths)]
    return nn.Sequential(*(each for layer in layers for each in layer))


@pytest.mark.parametrize("widths", [(64,) * 4, (64,) * 6])
def test_auto_takes_windows_only_where_blocks_that_see_as_much_alone_are_not_enough(widths: tuple[int, ...]) -> None:
    net = row(*widths)
    graph = cs.capture(net, torch.zeros(1, 64, 12, 12))
    alone = sum(
        min(each.macs for each in found_for(ConvSpec(*pair, bias=True), 1, (12, 12)).values())
        for pair in pairwise(widths)
    )
    loose = cs.decompose(graph, max_macs=1.2 * alone / graph.macs)
    assert all(edit.quality and not edit.window for edit in replaced(loose))
    least = least_of(graph)
    assert least < 0.9 * alone
    tight = cs.decompose(graph, max_macs=least / graph.macs)
    taken = [edit for edit in replaced(tight) if edit.window]
    assert taken
    for edit in taken:
        assert edit.layer in edit.window
        assert set(edit.window) <= {other.layer for other in taken if other.block == edit.block}
        assert (edit.quality, edit.compact, edit.block.partition(":")[0]) == (False, True, "dw-rpw")
        assert f"{len(edit.window)} of them in a row see all of it" in edit.reason
    assert all(edit.quality for edit in replaced(tight) if not edit.window)
    assert torch_macs(cs.apply(net, cs.Plan.from_json(tight.to_json())), torch.zeros(1, 64, 12, 12)) == tight.new.macs


def least_of(graph: cs.Graph) -> int:
    """The fewest multiply-accumulates that a refusal tells."""
    with pytest.raises(cs.ConvsmithError) as refused:
        cs.decompose(graph, max_macs=1e-9)
    share = float(str(refused.value).partition(" has ")[2].split()[0])
    return round((share + 0.0005) * graph.macs)


# --- the block ---


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seq", r"seq: give 1 to 4 kernels, as seq:dw,pw; got 0"),
        ("seq:dw,pw,pw,pw,pw", r"seq: give 1 to 4 kernels, as seq:dw,pw; got 5"),
        ("seq:dw,pe", r"seq: 'pe' is no kernel; write dw, gc\(g=\.\.\), pw"),
        ("seq:dw,pw3x3", r"seq: 'pw3x3' is no kernel"),
        ("seq:dw,gpw", r"seq: 'gpw' must be gpw\(g=\.\.\)"),
        ("seq:dw,gpw(h=2)", r"seq: 'gpw\(h=2\)' must be gpw\(g=\.\.\)"),
        ("seq:dw,gpw(g=x)", r"seq: 'gpw\(g=x\)' must be gpw"),
        ("seq:dw,rpw(g=2,o=1)", r"must be rpw\(g=\.\.,o=\.\.\), with g of at least 1 and 0 <= o < 1"),
        ("seq:dw,rpw(2,.5,1)", r"must be rpw\(g=\.\.,o=\.\.\)"),
        ("seq:dw,gpw(0)", "with g of at least 1"),
    ],
)
def test_a_mistake_in_a_sequence(text: str, told: str) -> None:
    with pytest.raises(cs.ConvsmithError, match=told):
        parse_block(text)


@pytest.mark.parametrize(
    ("text", "conv", "reason"),
    [
        ("seq:dw", ConvSpec(8, 8), "none of its kernels mixes channels"),
        ("seq:dw,gpw(2),shuffle(2)", ConvSpec(8, 8), "a shuffle at its end mixes nothing"),
        ("seq:dw,gpw(3)", ConvSpec(8, 8), "gpw(g=3) does not divide 8 input and 8 output channels"),
        ("seq:pw", ConvSpec(8, 8), "its kernels see 1x1, not 3x3"),
        ("seq:dw,dw,pw", ConvSpec(8, 8), "its kernels see 5x5, not 3x3"),
        ("seq:dw3x3,dw3x3,pw", ConvSpec(8, 8, (5, 5)), "a padding of 1 cannot be shared by kernels of [3, 3]"),
        ("seq:dw,pw", ConvSpec(8, 8, groups=2), "it is grouped already (groups=2)"),
        ("seq:dw,pw", ConvSpec(8, 8, (1, 1), padding=(0, 0)), "a 1x1 kernel is already pointwise"),
        ("seq:gpw(2),shuffle(2),gpw(2)", ConvSpec(8, 8, (1, 1), padding=(0, 0)), None),
        ("seq:gpw(2),pw", ConvSpec(8, 8, (1, 1)), "a 1x1 kernel that pads or has two strides is not taken apart"),
        ("seq:dw,rpw(2,.5),gpw(4)", ConvSpec(8, 12), None),
    ],
)  # fmt: skip
def test_what_a_sequence_refuses(text: str, conv: ConvSpec, reason: str | None) -> None:
    assert parse_block(text).refuses(conv) == reason


CARRIED = [
    "seq:dw,rpw(2,.5),rpw(2,.5)", "seq:gpw(2),shuffle(2),dw,gpw(2)", "seq:dw1x3,pw,dw3x1", "seq:gc1x3(1),gc3x1(1)",
    "seq:gc(4),shuffle(4),gpw(2)", "seq:pw,rpw(2,.25),dw",
]  # fmt: skip


@pytest.mark.parametrize("text", CARRIED)
@pytest.mark.parametrize("conv", [ConvSpec(8, 12, bias=True), ConvSpec(8, 8, stride=(2, 1)), ConvSpec(16, 8)], ids=str)
def test_the_error_told_is_the_error_made(text: str, conv: ConvSpec) -> None:
    torch.manual_seed(0)
    standard = nn.Conv2d(*list(vars(conv).values())[:6], bias=conv.bias)
    block = parse_block(text)
    built = block.build(conv)
    carried = block.carry(standard, built)
    assert carried.error is not None
    assert carried.error < 0.97
    if conv.bias:
        torch.testing.assert_close(list(built.children())[-1].get_parameter("bias"), standard.bias)
    pixels = torch.eye(conv.in_channels * 9).view(-1, conv.in_channels, 3, 3)
    crop = [
        nn.Conv2d(*list(vars(conv).values())[:3], bias=False),
        block.build(replace(conv, padding=(0, 0), stride=(1, 1), bias=False)),
    ]
    weights = [{k: v for k, v in each.state_dict().items() if not k.endswith("bias")} for each in (standard, built)]
    for each, state in zip(crop, weights, strict=True):
        each.load_state_dict(state)
    with torch.no_grad():
        wanted, got = (each(pixels) for each in crop)
    assert ((wanted - got).norm() / wanted.norm()).item() == pytest.approx(carried.error, abs=1e-4)


def test_a_sequence_comes_near_the_closed_form() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(12, 16, 3, padding=1)
    spec = ConvSpec.of(conv)
    closed, descended = (
        block.carry(conv, block.build(spec)).error for block in map(parse_block, ("dw-pw", "seq:dw,pw"))
    )
    assert closed is not None
    assert descended is not None
    assert closed - 1e-6 <= descended < closed + 0.01


def test_a_convolution_that_is_a_sequence_comes_back_nearly_whole() -> None:
    torch.manual_seed(0)
    block = KernelSequence((Kernel("gpw", g=2), Kernel("shuffle", g=2), Kernel("dw"), Kernel("gpw", g=2)))
    spec = ConvSpec(8, 8)
    made = block.build(replace(spec, padding=(0, 0)))
    conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    with torch.no_grad():
        answers = made(torch.eye(72).view(72, 8, 3, 3))
        conv.weight.copy_(answers.view(8, 3, 3, 8).permute(3, 0, 1, 2))
    assert (block.carry(conv, block.build(spec)).error or 0.0) < 0.35


# --- the command ---


def test_the_command_lists_blocks() -> None:
    told = CliRunner().invoke(app, ["search", "64", "64", "--map", "16", "--first", "3"]).stdout
    assert "64 to 64 channels, 3x3: 2720 found, 3 shown" in told
    assert "seq:gpw(g=8),shuffle(g=8),gpw(g=8),dw" in told
    record = json.loads(
        CliRunner().invoke(app, ["search", "8", "8", "--in-a-row", "2", "--every", "--json", "-"]).stdout
    )
    assert record["found"] == len(found_for(ConvSpec(8, 8), 2, (32, 32)))
    assert record["blocks"][0]["block"] == str(cs.search_blocks(ConvSpec(8, 8), 2)[0].block)
    told = CliRunner().invoke(app, ["search", "64", "64", "--in-a-row", "3"]).stdout
    assert "3 x dw-rpw:g=8,o=0.5" in told
    refused = CliRunner().invoke(app, ["search", "3", "64"])
    assert (refused.exit_code, refused.stdout) == (1, "")
