"""Narrow every convolutional net of timm and torchvision at random: `python bench/width.py [--resume] [--peer]
[PATTERN ...]` writes bench/results/width.json.

Every group of channels of a net gets a random width (seed 0). Where weights read channels that are to go they are set
to zero, so the narrowed net's outputs must be the net's; its multiply-accumulates must be those that were told, and
those of torch's counter. `--peer` has Torch-Pruning halve every layer of some families in the same run: its count is of
nets that it prunes to another cost and that run afterwards.
"""

import gc
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.rewriting.narrowing import narrow_all
from convsmith.structure.channel_groups import ChannelGroup
from convsmith.structure.widths import NOTHING, Widths
from coverage import CONVOLUTIONS, OutOfTimeError, Subject, subjects, within

RESULT = Path(__file__).parent / "results" / "width.json"
LIMIT = 60  # seconds a net
LARGEST = 60_000_000  # parameters; larger nets are of the same families
SIDES = (64, 96, 128, 224)  # of the input, the smallest that a net takes
CLOSE = 1e-3  # of the largest output, in single precision
PEERS = (
    "timm/resnet18", "timm/resnext50_32x4d", "timm/regnety_002", "timm/vgg11_bn", "timm/densenet121",
    "timm/mobilenetv2_100", "timm/mobilenetv3_small_100", "timm/efficientnet_b0", "timm/efficientnet_lite0",
    "timm/tf_efficientnet_b0", "torchvision/shufflenet_v2_x0_5", "timm/ghostnet_100", "timm/res2net50_26w_4s",
    "timm/skresnet18", "timm/ecaresnet26t", "timm/cspresnet50", "timm/cspdarknet53", "timm/dla34",
    "timm/hrnet_w18_small", "timm/inception_v3", "timm/resnest14d", "timm/rexnet_100", "timm/xception41",
    "timm/convnext_atto", "timm/repvgg_a0", "torchvision/googlenet",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What came of a net: narrowed (and proved), without a group, refused with a reason, wrong, or failed."""

    name: str
    outcome: str
    reason: str = ""
    side: int = 0
    groups: int = 0
    hidden: int = 0
    layers: int = 0
    narrowed: int = 0
    macs: int = 0
    new_macs: int = 0
    difference: float = 0.0
    seconds: float = 0.0


def main(arguments: list[str]) -> None:
    patterns = [argument for argument in arguments if argument[:2] != "--"]
    before = json.loads(RESULT.read_text()) if RESULT.exists() and (patterns or "--resume" in arguments) else {}
    kept = {net["name"]: net for net in before.get("nets", [])}
    peers = before.get("peer", {"nets": {}})
    for subject in subjects():
        wanted = any(fnmatch(subject.name, pattern) for pattern in patterns)
        if subject.name not in kept and (wanted or not patterns):
            kept[subject.name] = asdict(examine(subject))
            print({k: v for k, v in kept[subject.name].items() if v}, flush=True)
        if "--peer" in arguments and subject.name in PEERS and subject.name not in peers["nets"]:
            peers["nets"][subject.name] = pruned_by_peer(subject)
            print(subject.name, peers["nets"][subject.name], flush=True)
        save(list(kept.values()), peers)


def examine(subject: Subject) -> Finding:
    began = perf_counter()
    try:
        with within(LIMIT):
            finding = narrowed(subject)
    except OutOfTimeError:
        finding = Finding(subject.name, "not run", f"longer than {LIMIT} s")
    except cs.ConvsmithError as error:
        finding = Finding(subject.name, "refused", str(error)[:600])
    except Exception as error:  # a net that fails is what is looked for; the run goes on
        finding = Finding(subject.name, "failed", f"{type(error).__name__}: {error}"[:600])
    gc.collect()
    return Finding(**asdict(finding) | {"seconds": round(perf_counter() - began, 2)})


def narrowed(subject: Subject) -> Finding:
    with torch.device("meta"):
        try:
            size = sum(p.numel() for p in subject.build().parameters())
        except (NotImplementedError, RuntimeError):
            size = 0
    if size > LARGEST:
        return Finding(subject.name, "not run", f"{size / 1e6:.0f}M parameters")
    torch.manual_seed(0)
    model = subject.build().eval().requires_grad_(False)
    if sum(isinstance(module, _ConvNd) for module in model.modules()) < CONVOLUTIONS:
        return Finding(subject.name, "not convolutional")
    x, graph = captured(subject, model)
    widths, rng = Widths.of(graph), Random(0)
    kept = {group.name: some(group, rng) for group in widths.groups}
    if not kept:
        reasons = Counter(refusal.reason for refusal in widths.refusals)
        return Finding(subject.name, "no group", "; ".join(reason for reason, _ in reasons.most_common(2)), x.shape[-1])
    return compared(subject.name, model, x, widths, kept)


def captured(subject: Subject, model: nn.Module) -> tuple[Tensor, cs.Graph]:
    shape = subject.input or tuple(model.default_cfg["input_size"])
    for side in SIDES:
        x = torch.randn(1, shape[0], *shape[1:-2], side, side)
        try:
            return x, cs.capture(model, x)
        except cs.CaptureError:
            continue
    x = torch.randn(1, *shape)
    return x, cs.capture(model, x)


def some(group: ChannelGroup, rng: Random) -> list[int]:
    """A random part of a group's channels, at least one set of them."""
    atoms = list(group.atoms)
    rng.shuffle(atoms)
    free = {channel for atom in atoms for channel in atom}
    stays = [channel for channel in range(group.width) if channel not in free]
    return stays + [channel for atom in atoms[: rng.randint(1, len(atoms))] for channel in atom]


def compared(name: str, model: nn.Module, x: Tensor, widths: Widths, kept: dict[tuple[str, ...], list[int]]) -> Finding:
    gone = NOTHING
    for group in widths.groups:
        gone = widths.without(group, kept[group.name], gone)
        for part in group.consumers:
            unread = [i for i, c in enumerate(part.channels) if c >= 0 and c not in set(kept[group.name])]
            model.get_parameter(part.tensor).index_fill_(part.dim, torch.tensor(unread, dtype=torch.long), 0)
    with torch.no_grad():
        before = answers(model(x))
    new = narrow_all(model, widths, kept)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        after = answers(model(x))
    told = widths.graph.macs + sum(widths.macs(n, gone) - n.macs for n in widths.graph.nodes)
    apart = max(float((a - b).abs().max() / (b.abs().max() + 1e-12)) for a, b in zip(after, before, strict=True))
    equal = told == new.macs == counter.get_total_flops() // 2
    reason = "" if equal else f"told {told}, captured {new.macs}, counted {counter.get_total_flops() // 2}"
    hidden = sum(group.hidden for group in widths.groups)
    makers = {path for group in widths.groups for path in (part.module for part in group.producers)}
    layers = sum(node.kind in ("conv", "linear") for node in widths.graph.nodes)
    outcome = "narrowed" if equal and apart < CLOSE else "wrong"
    return Finding(
        name, outcome, reason, x.shape[-1], len(widths.groups), hidden, layers,
        len(makers), widths.graph.macs, new.macs, apart,
    )  # fmt: skip


def answers(out: Any) -> list[Tensor]:
    """The tensors of a model's answer."""
    return [each for each in torch.utils._pytree.tree_leaves(out) if isinstance(each, Tensor)]


def pruned_by_peer(subject: Subject) -> str:
    """What comes of a net that Torch-Pruning halves: `pruned`, or why not."""
    import torch_pruning

    torch.manual_seed(0)
    model = subject.build().eval()
    x, graph = captured(subject, model)
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    try:
        with within(LIMIT):
            pruner = torch_pruning.pruner.BasePruner(
                model, x, torch_pruning.importance.GroupMagnitudeImportance(), pruning_ratio=0.5,
                ignored_layers=[last],
            )  # fmt: skip
            pruner.step()
            with torch.no_grad():
                model(x)
            return "pruned" if cs.capture(model, x).macs < graph.macs else "left as it was"
    except OutOfTimeError:
        return f"longer than {LIMIT} s"
    except Exception as error:  # what the peer raises is what is looked for
        return f"{type(error).__name__}: {error}"[:300]


def save(nets: list[dict[str, Any]], peers: dict[str, Any]) -> None:
    nets = [net for net in nets if net["outcome"] != "not convolutional"]
    outcomes = Counter(net["outcome"] for net in nets)
    told = [net for net in nets if net["outcome"] == "narrowed"]
    ours = {net["name"]: net["outcome"] for net in nets}
    common = [name for name in peers["nets"] if name in ours]
    totals = {
        "nets": len(nets), **outcomes,
        "largest difference of outputs": max((net["difference"] for net in told), default=0.0),
        "groups": sum(net["groups"] for net in told),
        "of common nets": len(common),
        "narrowed of these": sum(ours[name] == "narrowed" for name in common),
        "pruned of these by Torch-Pruning": sum(peers["nets"][name] == "pruned" for name in common),
    }  # fmt: skip
    record = {
        "what": "every group of channels of each net narrowed at random: outputs, shapes and MACs proved",
        "totals": totals, **environment(), "peer": peers, "nets": nets,
    }  # fmt: skip
    write_text(RESULT, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
