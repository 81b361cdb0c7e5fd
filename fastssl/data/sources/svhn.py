"""SVHN: 32x32 colour house numbers in MATLAB files, without the extra set."""

import io

import numpy as np
import torch
from torch import Tensor

from fastssl.data.sources.place import Place
from fastssl.data.sources.published import Published
from fastssl.data.sources.source import Source
from fastssl.errors import InputError

SVHN = Published(
    name="svhn",
    md5={
        "SVHN/train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "SVHN/test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
    origin="http://ufldl.stanford.edu/housenumbers/",
)


def read_svhn(place: Place) -> Source:
    """SVHN's 73,257 training and 26,032 test images.

    Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning",
    NIPS workshop 2011.
    """
    files = SVHN.read(place.root, download=place.download)
    train, test = (matlab(files[f"{part}_32x32.mat"], part) for part in ("train", "test"))
    return Source("svhn", *train, *test, tuple("0123456789"))


def matlab(content: bytes, part: str) -> tuple[Tensor, Tensor]:
    """Images uint8 [N,3,H,W] and labels int64 [N] of a file with X [H,W,3,N] and y [N,1].

    The file calls the digit 0 ten.
    """
    from scipy.io import loadmat

    try:
        # The reader raises whatever a damaged file leads it to.
        fields = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        images, labels = fields["X"], fields["y"].reshape(-1).astype(np.int64)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"X is {images.dtype} {images.shape}")
    except Exception as error:
        raise InputError(f"svhn: the {part} file cannot be read: {error}") from error
    labels[labels == 10] = 0
    return torch.from_numpy(images.transpose(3, 2, 0, 1).copy()), torch.from_numpy(labels)
