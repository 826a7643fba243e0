"""Layers whose weight is made of parts: planned and edited as the weight they make, or refused when planning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import convsmith as cs
from convsmith.graph.plain import copied, parts_of, plain

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

X = torch.zeros(1, 3, 16, 16)


def net(how: Callable[[nn.Module], Any] = lambda layer: None) -> nn.Sequential:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    how(model[2])
    model.train()(torch.randn(2, 3, 16, 16))  # spectral_norm's vectors are settled by training
    return model.eval()


def twice(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.3)
    prune.random_unstructured(layer, "weight", 0.2)


MADE_PLAIN: dict[str, Callable[[nn.Module], Any]] = {
    "weight_norm": weight_norm,
    "weight_norm over all": lambda layer: weight_norm(layer, dim=None),
    "spectral_norm": spectral_norm,
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruning of channels": lambda layer: prune.ln_structured(layer, "weight", 0.5, 2, dim=0),
    "pruning twice": twice,
    "pruning of the bias": lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
    "weight_norm as parametrization": parametrizations.weight_norm,
    "spectral_norm as parametrization": parametrizations.spectral_norm,
    "orthogonal as parametrization": lambda layer: parametrizations.orthogonal(layer),
    "pruning beside weight_norm": lambda layer: prune.l1_unstructured(parametrizations.weight_norm(layer), "bias", 0.5),
    "pruning by a mask": lambda layer: prune.custom_from_mask(layer, "weight", torch.ones(16, 16, 3, 3).tril()),
}


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MADE_PLAIN)
def test_a_layer_is_planned_and_edited_as_the_weight_it_makes(name: str) -> None:
    model, x = net(MADE_PLAIN[name]), images()
    want, before = model(x), model.state_dict()
    graph = cs.capture(model, X)
    assert "2" in graph.convolutions
    assert (
        graph.params == sum(p.numel() for p in plain(model).parameters()) == sum(p.numel() for p in net().parameters())
    )
    full = cs.apply(model, cs.decompose(graph, block="dw-pw:r=9"))  # of full rank, so of the weight as it is
    assert not parts_of(full)
    torch.testing.assert_close(full(x), want, rtol=1e-3, atol=1e-4)
    assert torch.equal(model(x), want), "the model itself is as it was"
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize("name", ["weight_norm", "pruning", "spectral_norm as parametrization"])
def test_ranks_are_chosen_and_fitted_by_data_for_it_too(name: str) -> None:
    model, x = net(MADE_PLAIN[name]), images()
    for given in (model, nn.DataParallel(model)):
        graph = cs.capture(given, X)
        assert "2" in cs.calibrate(given, x)
        plans = cs.decompose(graph, block="dw-pw:r=2", max_macs=0.6), cs.decompose(
            graph, model=given, data=x, max_macs=0.9
        )  # fmt: skip
        for plan in plans:
            assert cs.apply(given, plan, data=x)(x).shape == (4, 10)


@pytest.mark.parametrize("name", MADE_PLAIN)
def test_edits_elsewhere_leave_what_the_layer_computes(name: str) -> None:
    model, x = net(MADE_PLAIN[name]), images()
    plan = cs.decompose(cs.capture(model, X), block="dw-pw", keep=["0", "2"])
    assert [edit.layer for edit in plan.edits] == ["4"]
    new, want = cs.apply(model, plan), model[:4](x)
    torch.testing.assert_close(new[:4](x), want)


@pytest.mark.parametrize("name", MADE_PLAIN)
def test_such_models_are_copied_exported_and_measured(tmp_path: Path, name: str) -> None:
    model, x = net(MADE_PLAIN[name]), images()
    torch.testing.assert_close(plain(model)(x), model(x))
    assert torch.equal(copied(model)(x), model(x))
    assert cs.export(model, tmp_path / "net.onnx", input=(3, 16, 16)).max_rel_error < 1e-4
    assert cs.measure_latency(model, cs.capture(model, X), seconds=0.01).total > 0


def scaled(layer: nn.Module) -> None:
    """A hook of the user's own that makes the weight before every run."""
    layer.raw = nn.Parameter(layer.weight.detach().clone())
    del layer._parameters["weight"]
    layer.weight = layer.raw * 2
    layer.register_forward_pre_hook(lambda module, args: setattr(module, "weight", module.raw * 2))


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


REFUSED: dict[str, Callable[[nn.Module], Any]] = {
    "a hook of one's own": scaled,
    "a parametrization of one's own": lambda layer: nn.utils.parametrize.register_parametrization(
        layer, "weight", Halved()
    ),
    "one of one's own beside torch's": lambda layer: nn.utils.parametrize.register_parametrization(
        parametrizations.weight_norm(layer), "weight", Halved()
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_weights_made_anew_are_refused_when_planning_and_the_rest_is_edited(name: str) -> None:
    model, x = net(REFUSED[name]), images()
    plan = cs.decompose(cs.capture(model, X), block="dw-pw")
    assert "2" not in [edit.layer for edit in plan.edits]
    assert "2" in [refusal.layer for refusal in plan.refusals]
    new = cs.apply(model, plan)
    assert new(x).shape == model(x).shape
    torch.testing.assert_close(new[2](model[:2](x)), model[:3](x))


def test_tensors_kept_from_a_run_do_not_stand_in_the_way_of_a_copy() -> None:
    model, x = net(), images()
    model[0].register_forward_hook(lambda module, args, out: setattr(module, "last", [out, {"max": out.max()}]))
    model(x)
    plan = cs.decompose(cs.capture(model, X), block="dw-pw")
    model(x)
    assert cs.apply(model, plan)(x).shape == (4, 10)


def test_the_command_line_says_what_is_read_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pruned_net.py").write_text(
        "import convsmith as cs\nfrom torch.nn.utils import prune\n"
        "def make():\n    net = cs.build('resnet20', classes=10)\n"
        "    prune.l1_unstructured(net.conv1, 'weight', .5)\n    return net\n"
    )
    (note,) = cs.load("pruned_net:make").notes
    assert note.startswith("conv1 (pruning): read as the weights that they make")
