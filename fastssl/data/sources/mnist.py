"""MNIST: 28x28 grey digits in idx files."""

import gzip
import struct
import zlib

import numpy as np
import torch
from torch import Tensor

from fastssl.data.sources.place import Place
from fastssl.data.sources.published import Published
from fastssl.data.sources.source import Source
from fastssl.errors import InputError

MNIST = Published(
    name="mnist",
    md5={
        "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    origin="https://ossci-datasets.s3.amazonaws.com/mnist/",
)
UNSIGNED_BYTES = 0x08  # the only element type of these files


def read_mnist(place: Place) -> Source:
    """MNIST's 60,000 training and 10,000 test images.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
    """
    files = MNIST.read(place.root, download=place.download)

    def part(name: str) -> tuple[Tensor, Tensor]:
        images = idx(files[f"{name}-images-idx3-ubyte.gz"], f"{name}-images", 3)
        labels = idx(files[f"{name}-labels-idx1-ubyte.gz"], f"{name}-labels", 1)
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))

    return Source("mnist", *part("train"), *part("t10k"), tuple("0123456789"))


def idx(content: bytes, name: str, dimensions: int) -> np.ndarray:
    """The uint8 array of a gzipped idx file: two zeros, a type, a rank, the sizes, the elements.

    Raises:
        InputError: not such a file, or not all of it.
    """
    try:
        content = gzip.decompress(content)
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        if (zeros, kind, rank) != (0, UNSIGNED_BYTES, dimensions):
            raise ValueError
        sizes = struct.unpack_from(f">{rank}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise InputError(f"mnist: {name} is not a whole idx file of {dimensions} sizes") from error
    elements = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank)
    if len(elements) != np.prod(sizes, dtype=object):
        raise InputError(
            f"mnist: {name} is truncated: {len(elements)} bytes for {' x '.join(map(str, sizes))}"
        )
    return elements.reshape(sizes).copy()
