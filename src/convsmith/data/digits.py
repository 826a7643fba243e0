"""The built-in set: scikit-learn's 1,797 handwritten digits, enlarged to 3x32x32; works offline."""

import numpy as np
import torch
from torch.nn import functional as F

from convsmith.data.augment import Augment
from convsmith.data.images import Archive, ArrayImages

SHAPE = (3, 32, 32)


def open_digits() -> Archive:
    """Open the digits of Alpaydin and Kaynak (UCI, 1998): 1,437 train and 360 test images, the same two for everyone.

    The 8x8 images with values 0 to 16 are enlarged bilinearly; digits are never mirrored.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    coarse = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)  # (n, 1, 8, 8)
    fine = F.interpolate(coarse, SHAPE[1:], mode="bilinear").squeeze(1).round().to(torch.uint8).numpy()
    rows = train_test_split(np.arange(len(fine)), test_size=0.2, stratify=digits.target, random_state=0)
    train, test = (ArrayImages(fine[part], tuple(digits.target[part].tolist()), "digits") for part in rows)
    return Archive(tuple(map(str, digits.target_names)), SHAPE, Augment(shift=1 / 16, flip=False), train, test)
