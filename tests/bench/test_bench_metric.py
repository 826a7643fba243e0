"""bench/metric.py: its nets are those of NAS-Bench-Macro, and its figures are what they are called."""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import convsmith as cs

BENCH = Path(__file__).parents[2] / "bench"
TABLE = BENCH.parents[1] / "shared" / "data" / "tables" / "nas-bench-macro_cifar10.json"


@pytest.fixture(scope="module", autouse=True)
def _bench_on_path():
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


# Parameters and FLOPs as the authors' table has them: each digit, alone and beside others, at strided places and not.
SIZES = [
    ("00000000", 387_882, 7_713_280),
    ("10000000", 396_298, 12_128_768),
    ("20000000", 409_834, 17_854_976),
    ("01000000", 415_082, 14_447_104),
    ("00100000", 419_050, 12_018_176),
    ("00000100", 507_562, 11_962_880),
    ("00000001", 791_594, 14_115_328),
    ("02012100", 890_666, 47_327_744),
    ("11111111", 1_588_874, 53_246_464),
    ("22222222", 2_932_586, 105_660_928),
]


@pytest.mark.parametrize(("digits", "params", "flops"), SIZES)
def test_the_nets_have_the_sizes_of_the_table(digits: str, params: int, flops: int) -> None:
    from macro_nets import macro_graph

    graph = macro_graph(digits)
    assert (graph.params, graph.macs, graph.unknown_ops) == (params, flops, {})
    wide = [max(node.call["weight"].shape[2:]) for node in graph.layers if node.kind == "conv"]
    assert [k for k in wide if k > 1] == [3, *(3 if digit == "1" else 5 for digit in digits if digit != "0")]


@pytest.mark.skipif(not TABLE.is_file(), reason=f"no table of NAS-Bench-Macro at {TABLE}")
def test_every_211th_net_has_the_sizes_of_the_table() -> None:
    from macro_nets import macro_graph, read_table

    trained = read_table(TABLE)
    assert len(trained.names) == 3**8
    assert trained.runs.shape == (3**8, 3)
    for place in range(0, 3**8, 211):
        graph = macro_graph(trained.names[place])
        assert (graph.params, graph.macs) == (trained.params[place], trained.flops[place])


def test_a_net_of_the_benchmark_runs_and_scores() -> None:
    from macro_nets import macro_graph, macro_net

    torch.manual_seed(0)
    assert macro_net("02012100", device="cpu")(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    one, deeper = (cs.score(macro_graph(digits)) for digits in ("11000000", "11100100"))
    assert deeper.value > one.value


VALUES = arrays(float, st.integers(3, 12), elements=st.integers(0, 6).map(float))


@given(VALUES, st.randoms())
@settings(max_examples=60, deadline=None)
def test_kendall_is_the_share_of_pairs_in_order_less_those_in_disorder(score: np.ndarray, random) -> None:
    from ranks_of_nets import kendall

    accuracy = np.array([random.randint(0, 6) for _ in score], float)
    pairs = [(np.sign(score[a] - score[b]), np.sign(accuracy[a] - accuracy[b])) for a, b in _pairs(len(score))]
    apart = [sum(bool(pair[i]) for pair in pairs) for i in (0, 1)]
    wanted = sum(x * y for x, y in pairs) / np.sqrt(apart[0] * apart[1]) if all(apart) else 0.0
    assert kendall(score, accuracy) == pytest.approx(wanted, abs=6e-4)


def _pairs(count: int) -> list[tuple[int, int]]:
    return list(combinations(range(count), 2))


def test_bins_hold_nets_of_like_macs_and_regret_is_what_the_pick_lacks() -> None:
    from ranks_of_nets import Ranked, equal_bins

    macs = np.array([5.0, 1.0, 4.0, 2.0, 6.0, 3.0])
    assert [sorted(macs[places]) for places in equal_bins(macs, 2)] == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    accuracy = np.array([80.0, 50.0, 90.0, 60.0, 70.0, 40.0])
    ranked = Ranked(accuracy, macs, np.array([1, 0, 1, 0, 1, 0]), bins=2)
    assert ranked.told(accuracy)["regret"] == 0
    assert ranked.told(-accuracy)["regret"] == 20.0  # 60 - 40 and 90 - 70
    assert ranked.told(macs)["regret"] == 20.0  # the dearest of each: 60 - 40 and 90 - 70
    assert ranked.regret(np.zeros(6)) == 10.0  # no pick: the best less the mean, in each
    assert ranked.told(accuracy)["kendall within bins"] == 1
    assert ranked.by_blocks(-accuracy) == {"0": -1.0, "1": -1.0}
    half = ranked.part(np.array([0, 2, 4]))
    assert (half.bins, half.accuracy.tolist()) == (1, [80.0, 90.0, 70.0])


def test_a_net_whose_relus_tell_images_apart_scores_higher() -> None:
    from naswot import naswot

    torch.manual_seed(0)
    images = torch.randn(6, 3, 8, 8)
    narrow, wide = (nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU()) for width in (2, 32))
    assert naswot(narrow, images) < naswot(wide, images)
    assert naswot(wide, images[:1].expand(6, -1, -1, -1)) == -float("inf")


def test_the_figures_of_a_few_nets_whose_accuracy_is_their_value() -> None:
    import metric as bench
    from macro_nets import Trained

    names = ("10000000", "01000010", "11010010", "20012000", "22222222", "11111111", "00200001", "21000000")
    raw = [bench.scored(name) for name in names]
    value = np.array([net["value"] for net in raw])
    sizes = tuple(net["params"] for net in raw), tuple(net["macs"] for net in raw)
    trained = Trained(names, np.stack([value] * 3, 1), *sizes, sha256="")
    drawn = np.arange(len(names))
    told = bench.macro(trained, raw, drawn, -value)
    assert told["scores"]["value"] == {"kendall": 1.0, "spearman": 1.0, "kendall within bins": 0.0, "regret": 0.0}
    assert told["run against run"] == [1.0, 1.0, 1.0]
    assert all(half["other half, the product's"]["kendall"] == half["kendall fitted"] == 1 for half in told["halves"])
    assert told["powers"]["0.25"] == told["scores"]["value"]
    assert told["exact powers"]["0.25"] == told["scores"]["exact value"]
    assert (told["forward pass"]["kendall"]["value"], told["forward pass"]["kendall"]["NASWOT"]) == (1, -1)
    assert told["nets by blocks"] == {str(n): count for n, count in enumerate((0, 1, 3, 1, 1, 0, 0, 0, 2))}
    smaller = Trained(names, trained.runs, (1, *sizes[0][1:]), sizes[1], sha256="")
    with pytest.raises(SystemExit, match="differ from the table's"):
        bench.macro(smaller, raw, drawn, -value)
