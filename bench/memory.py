"""How much memory calibration images take: the peak above that of a process that has loaded them, in GB.

    python bench/memory.py [--images 512] [--side 512]

The net answers small maps, so that what is counted is images and not activations.
"""

import argparse
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import nn

from convsmith.calibration.calibrate import calibrate, take_images
from convsmith.calibration.in_order import Calibration
from convsmith.data import Augment, Data, Normalize, TensorSplit

SCALE = 1024**2 if sys.platform != "darwin" else 1024**3  # getrusage tells kilobytes on Linux, bytes on macOS


def data(images: int, side: int) -> Data:
    """Images of noise, decoded, as `load_data` keeps them."""
    pixels = torch.randint(256, (images, 3, side, side), dtype=torch.uint8)
    normalize = Normalize()
    split = TensorSplit(pixels, torch.zeros(images, dtype=torch.int64), 1, normalize)
    return Data("noise", ("one",), split.shape, normalize.mean, normalize.std, Augment(), split, split)


def net() -> nn.Module:
    """Two convolutions on maps of a sixteenth of the side."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=16), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()


def in_one_pass(found: Data, count: int) -> None:
    """The moments of all layers."""
    calibrate(net(), take_images(found, count))


def in_order(found: Data, count: int) -> None:
    """Layer by layer, two nets side by side."""
    calibration = Calibration(net(), net(), take_images(found, count))
    for layer in calibration.order:
        calibration.statistics(layer)


WORK = {"taken": lambda found, count: take_images(found, count), "one pass": in_one_pass, "in order": in_order}


def peak(work: str, images: int, side: int) -> float:
    """GB at the peak of `work`, less those at the peak of loading."""
    found = data(images, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WORK[work](found, images)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / SCALE


def main() -> None:
    """Measure each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, default=512)
    chosen = parser.parse_args()
    own = chosen.images * 3 * chosen.side**2 / 1024**3
    print(f"{chosen.images} images of 3x{chosen.side}x{chosen.side}: {own:.2f} GB as bytes, {4 * own:.2f} GB as floats")
    for work in WORK:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            print(f"{work}: {pool.submit(peak, work, chosen.images, chosen.side).result():.2f} GB", flush=True)


if __name__ == "__main__":
    main()
