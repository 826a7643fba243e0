"""VGG (Simonyan and Zisserman, ICLR 2015), with and without batch normalization."""

from functools import partial

from convsmith.zoo.heads import perceptron
from convsmith.zoo.records import MODULES, MODULES_EXCEPT_POOL, NETS, HeadRecord, NetForms, NetRecord, StageRecord, Unit
from convsmith.zoo.units import conv_bn_relu, conv_relu

WIDTHS = (64, 128, 256, 512, 512)


def _stages(unit: Unit, blocks: tuple[int, ...]) -> tuple[StageRecord, ...]:
    return tuple(StageRecord(unit, w, n, pool=True) for w, n in zip(WIDTHS, blocks, strict=True))


def _vgg(blocks: tuple[int, ...]) -> NetForms:
    """CIFAR-10 form with one linear layer, ImageNet form without normalization."""
    return NetForms(
        small=NetRecord(None, _stages(conv_bn_relu, blocks), HeadRecord("classifier"), MODULES),
        large=NetRecord(
            None, _stages(conv_relu, blocks), HeadRecord("classifier", 7, partial(perceptron, (4096, 4096))), MODULES
        ),
    )


def _vgg_cifar100(blocks: tuple[int, ...]) -> NetForms:
    """CIFAR-100 form: normalization and the two wide hidden layers; it flattens its 1x1 map with no pool to count."""
    head = HeadRecord("classifier", classifier=partial(perceptron, (4096, 4096)))
    net = NetRecord(None, _stages(conv_bn_relu, blocks), head, MODULES_EXCEPT_POOL)
    return NetForms(net, net, side=32, small_classes=100)


NETS.add("vgg11", _vgg((1, 1, 2, 2, 2)))
NETS.add("vgg16", _vgg((2, 2, 3, 3, 3)))
NETS.add("vgg19", _vgg((2, 2, 4, 4, 4)))
NETS.add("vgg16-wa", _vgg_cifar100((2, 2, 3, 3, 3)))
NETS.add("vgg19-wa", _vgg_cifar100((2, 2, 4, 4, 4)))
