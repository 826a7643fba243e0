"""The published DiCENet weights: read by the key map, they compute what their authors' code computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from convsmith.errors import ConvsmithError
from convsmith.zoo import build
from convsmith.zoo.segment import DicenetSegmenter, load_backbone, renamed

WEIGHTS = Path(__file__).parents[2].parent / "shared" / "data" / "weights" / "dicenet-s0.2-voc256.safetensors"

needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no published weights in {WEIGHTS}")


def waves(height: int, width: int) -> Tensor:
    """sin(0.01 i), an image that any program can make."""
    values = np.sin(0.01 * np.arange(3 * height * width))
    return torch.from_numpy(values.astype(np.float32)).view(1, 3, height, width)


LOGITS = [  # of the first three classes in the middle, from the authors' code
    ((224, 224), [7.87029, -2.31448, -4.32605]),
    ((256, 256), [8.32373, -4.43064, -2.43867]),
    ((160, 320), [11.95166, -1.17067, -6.92784]),
]


@pytest.mark.shared
@needs_weights
@pytest.mark.parametrize(("size", "logits"), LOGITS)
def test_logits_of_the_published_net(size: tuple[int, int], logits: list[float]) -> None:
    net = DicenetSegmenter("0.2", classes=21).eval()
    net.load_state_dict(renamed(load_file(WEIGHTS)), strict=True)
    with torch.no_grad():
        answer = net(waves(*size))[0, :3, size[0] // 2, size[1] // 2]
    torch.testing.assert_close(answer, torch.tensor(logits), atol=2e-5, rtol=0)


@pytest.mark.shared
@needs_weights
def test_the_logits_tell_rows_from_columns() -> None:
    """Had the key map taken one for the other, the figures above would not come out."""
    net = DicenetSegmenter("0.2", classes=21).eval()
    state = load_file(WEIGHTS)
    swapped = {
        key.replace("conv_height", "*").replace("conv_width", "conv_height").replace("*", "conv_width"): tensor
        for key, tensor in state.items()
    }
    net.load_state_dict(renamed(swapped), strict=True)
    with torch.no_grad():
        answer = net(waves(160, 320))[0, :3, 80, 160]
    assert (answer - torch.tensor(LOGITS[2][1])).abs().max() > 0.1


@pytest.mark.shared
@needs_weights
@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_the_backbone_alone_gives_the_same_features(size: tuple[int, int]) -> None:
    state, backbone = load_file(WEIGHTS), build("dicenet-0.2").eval()
    left = load_backbone(backbone, state)
    assert {key.split(".")[0] for key in left} == {"layer3", "fc"}
    whole = DicenetSegmenter("0.2", classes=21).eval()
    whole.load_state_dict(renamed(state), strict=True)
    with torch.no_grad():
        features = backbone.features_at("layer2", waves(*size))
        assert torch.equal(features, whole.backbone(waves(*size)))
    assert features.shape == (1, 64, size[0] // 16, size[1] // 16)
    assert features.std() > 0.05


@pytest.mark.parametrize(
    ("scale", "classes", "millions"),
    [
        *[("0.2", 21, 0.0469), ("0.5", 21, 0.0764), ("0.75", 21, 0.1897), ("1.0", 21, 0.2834)],
        *[("1.25", 21, 0.3894), ("1.5", 20, 0.5521), ("1.75", 21, 0.8080)],
    ],
)
def test_published_sizes(scale: str, classes: int, millions: float) -> None:
    with torch.device("meta"):
        net = DicenetSegmenter(scale, classes)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=5e-5)


def test_every_key_is_renamed_once() -> None:
    """Backwards from what this net has to the published names of two levels, which the map takes to the same names."""
    with torch.device("meta"):
        net = DicenetSegmenter("0.2", classes=21)
    units = [key for key in net.state_dict() if key.startswith("backbone.layer1.2.")]
    published = [
        key.replace("backbone.layer1.2.right.0.", "base_net.level3.3.layer_right.0.cbr.")
        .replace("backbone.layer1.2.right.1.", "base_net.level3.3.layer_right.1.")
        .replace(".planes.depth.", ".conv_channel.")
        .replace(".planes.height.conv.", ".conv_height.")
        .replace(".planes.width.conv.", ".conv_width.")
        .replace(".norm.", ".br_act.br.0.")
        .replace(".act.", ".br_act.br.1.")
        .replace(".local.", ".weight_avg_layer.cbr.")
        .replace(".spatial.", ".proj_layer.cbr.")
        .replace(".gate.reduce.", ".linear_comb_layer.1.")
        .replace(".gate.expand.", ".linear_comb_layer.3.")
        for key in units
    ]
    assert not set(published) & set(units)
    assert list(renamed(dict.fromkeys(published, torch.zeros(1)))) == units


def test_refuses_weights_of_another_scale() -> None:
    state = {"base_net.level1.cbr.0.weight": torch.zeros(24, 3, 3, 3)}
    with pytest.raises(ConvsmithError, match=r"conv1.weight: the file's 24x3x3x3 do not fit .* of the file's scale"):
        load_backbone(build("dicenet-0.2"), state)
    load_backbone(build("dicenet-0.5"), state)


def test_refuses_weights_of_another_net() -> None:
    with pytest.raises(ConvsmithError, match="holds no DiCENet backbone"):
        load_backbone(build("dicenet-0.2"), {"conv1.weight": torch.zeros(1)})


def test_refuses_an_unknown_scale() -> None:
    with pytest.raises(ConvsmithError, match=r"Unknown zoo net 'dicenet-0\.3'"):
        DicenetSegmenter("0.3", 21)
