"""The one builder: a net's record, an input shape and a depth per stage -> a module."""

from collections.abc import Mapping
from math import sqrt

from torch import Tensor, nn

from convsmith.bounds import CLASSES, UNITS, check_count, check_input
from convsmith.errors import ConvsmithError
from convsmith.zoo.records import NETS, Activation, NetForms, NetRecord, Part, StageRecord, StemRecord, Style

IMAGENET = (3, 224, 224)
SMALL = 64  # shorter sides below this many pixels select the small form


class ConvNet(nn.Module):
    """The named steps of `trunk` one after another, a pool to the head's map, and the head.

    `input_shape` is the image shape (channels, height, width) that it was built for; others may run as well.
    """

    def __init__(self, trunk: Mapping[str, Part], pool: Part, head_name: str, head: nn.Module) -> None:
        super().__init__()
        self.input_shape = IMAGENET
        for name, part in trunk.items():
            setattr(self, name, part)
        self.avgpool = pool
        self.add_module(head_name, head)
        self._steps = (*trunk, "avgpool")
        self._head = head_name

    def forward(self, x: Tensor) -> Tensor:
        """Map images (b, c, h, w) to logits (b, classes)."""
        logits: Tensor = getattr(self, self._head)(self.features_at(self._steps[-1], x).flatten(1))
        return logits

    def features_at(self, step: str, x: Tensor) -> Tensor:
        """The features behind the step of that name (`act1`, `maxpool`, `layer1`, ...) for images (b, c, h, w).

        >>> import torch
        >>> build("resnet20").features_at("layer2", torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 32, 16, 16])
        """
        for name in self._steps[: self._steps.index(step) + 1]:
            x = getattr(self, name)(x)
        return x


def build(
    name: str,
    *,
    input: tuple[int, int, int] | None = None,
    classes: int | None = None,
    blocks_per_stage: tuple[int, ...] | None = None,
) -> ConvNet:
    """Build a net of the zoo with fresh weights, on torch's current default device.

    Args:
        name: A name in `NETS`, as `vgg16` or `resnet20`.
        input: (channels, height, width). A shorter side under 64 pixels selects the net's small form.
        classes: Outputs of the classifier; by default the form's own number.
        blocks_per_stage: Depth of every stage; by default as published.

    Returns:
        The module.

    Raises:
        ConvsmithError: On an unknown name, depths that do not fit the net's stages, an input smaller than its total
            stride, or no channels or classes.

    >>> net = build("vgg16", input=(3, 32, 32), blocks_per_stage=(5, 4, 2, 1, 1))
    >>> sum(p.numel() for p in net.parameters())
    5101194
    """
    forms = NETS[name]
    shape = input or default_input(name)
    record = _form(forms, shape)
    count = _default_classes(forms, shape) if classes is None else classes
    _check_sizes(name, record, shape, count)
    net = assemble(record, shape[0], count, _depths(name, record, blocks_per_stage))
    net.input_shape = shape
    return net


def assemble(record: NetRecord, channels: int, classes: int, depths: tuple[int, ...]) -> ConvNet:
    """Build a record's net for images of `channels` channels with `depths` blocks per stage (at least one each)."""
    trunk = _flat(record, channels, depths) if record.stem is None else _staged(record, record.stem, channels, depths)
    width = record.stages[-1].width if record.last is None else record.last.width
    head = record.head.classifier(width * record.head.side**2, classes)
    net = ConvNet(trunk, record.style.pool(record.head.side), record.head.name, head)
    _initialize(net)
    return net


def input_of(model: nn.Module) -> tuple[int, int, int]:
    """The image shape that a net of the zoo was built for; ImageNet's for any other model.

    >>> input_of(build("resnet20")), input_of(nn.Conv2d(3, 8, 3))
    ((3, 32, 32), (3, 224, 224))
    """
    return model.input_shape if isinstance(model, ConvNet) else IMAGENET


def default_input(name: str) -> tuple[int, int, int]:
    """Input (channels, height, width) that the net `name` was published for; raises ConvsmithError when unknown."""
    side = NETS[name].side
    return (3, side, side)


def _form(forms: NetForms, shape: tuple[int, int, int]) -> NetRecord:
    return forms.small if min(shape[1:]) < SMALL else forms.large


def _default_classes(forms: NetForms, shape: tuple[int, int, int]) -> int:
    return forms.small_classes if min(shape[1:]) < SMALL else 1000


def _check_sizes(name: str, record: NetRecord, shape: tuple[int, int, int], classes: int) -> None:
    check_input(shape, f"{name}: input")
    check_count(classes, CLASSES, f"{name}: classes")
    channels, height, width = shape
    if min(height, width) < record.total_stride:
        raise ConvsmithError(
            f"{name}: an input of {height}x{width} pixels vanishes under its total stride of {record.total_stride}; "
            f"resize images to {record.total_stride} pixels or more."
        )
    if channels < 1 or classes < 1:
        raise ConvsmithError(f"{name}: got {channels} input channels and {classes} classes; give at least one of each.")


def _depths(name: str, record: NetRecord, blocks: tuple[int, ...] | None) -> tuple[int, ...]:
    """Give the depths asked for, or the record's; refuse what does not fit its stages."""
    if blocks is None:
        return record.blocks_per_stage
    if len(blocks) != len(record.stages) or min(blocks) < 1:
        raise ConvsmithError(
            f"{name}: blocks per stage {blocks} do not fit; give {len(record.stages)} numbers of at least 1, "
            f"such as {record.blocks_per_stage}."
        )
    check_count(max(blocks), UNITS, f"{name}: blocks per stage")
    return blocks


def _flat(record: NetRecord, channels: int, depths: tuple[int, ...]) -> dict[str, Part]:
    """Lay the layers of every stage one after another in `features`."""
    layers: list[nn.Module] = []
    for stage, depth in zip(record.stages, depths, strict=True):
        units = _units(stage, channels, depth, record.style)
        layers += [layer for unit in units for layer in unit.children()] + _stage_pool(stage)
        channels = stage.width
    return {"features": nn.Sequential(*layers)}


def _staged(record: NetRecord, stem: StemRecord, channels: int, depths: tuple[int, ...]) -> dict[str, Part]:
    """Put the stem first, then one sequence of units a stage, then the last convolution."""
    conv = nn.Conv2d(channels, stem.width, stem.kernel, stem.stride, padding=stem.kernel // 2, bias=False)
    act = _activation(stem.activation, stem.width, record.style)
    trunk: dict[str, Part] = {"conv1": conv, "bn1": nn.BatchNorm2d(stem.width), "act1": act}
    if stem.pool:
        trunk["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    channels = stem.width
    for number, (stage, depth) in enumerate(zip(record.stages, depths, strict=True), start=1):
        trunk[f"layer{number}"] = nn.Sequential(*_units(stage, channels, depth, record.style), *_stage_pool(stage))
        channels = stage.width
    if (last := record.last) is not None:
        trunk["conv_last"] = nn.Conv2d(channels, last.width, 1, bias=False)
        trunk["bn_last"] = nn.BatchNorm2d(last.width)
        trunk["act_last"] = _activation(last.activation, last.width, record.style)
    return trunk


def _activation(make: Activation | None, width: int, style: Style) -> Part:
    return style.inner() if make is None else make(width)


def _units(stage: StageRecord, channels: int, depth: int, style: Style) -> list[nn.Module]:
    first = stage.unit(channels, stage.width, stage.stride, style)
    return [first, *(stage.unit(stage.width, stage.width, 1, style) for _ in range(depth - 1))]


def _stage_pool(stage: StageRecord) -> list[nn.Module]:
    return [nn.MaxPool2d(2)] if stage.pool else []


def _initialize(net: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan-out) (He et al., ICCV 2015), with zero bias; other layers keep torch's start.

    torch's own `kaiming_normal_` takes all output channels for the fan-out whatever the groups, which makes depthwise
    weights sqrt(groups) times too small.
    """
    for conv in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
        fan_out = conv.out_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]
        nn.init.normal_(conv.weight, std=sqrt(2 / fan_out))
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
