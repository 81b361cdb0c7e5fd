"""Scikit-learn's handwritten digits: embedded, so that a first run needs no download."""

import numpy as np
import torch

from fastssl.data.philox import Purpose
from fastssl.data.shares import stratified
from fastssl.data.sources.place import Place
from fastssl.data.sources.source import Source

TEST_IMAGES = 360


def read_digits(_: Place) -> Source:
    """Scikit-learn's 1,797 handwritten digits, 8x8, white on black; nothing is downloaded.

    The test part is 360 images, 36 a class, the same for every seed. Pixels 0..16 become 0..255.
    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    test = stratified(labels, TEST_IMAGES, seed=0, purpose=Purpose.TEST_SPLIT)
    train = torch.ones(len(labels), dtype=torch.bool)
    train[test] = False
    return Source(
        name="digits",
        images=images[train],
        labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple(str(name) for name in digits.target_names),
    )
