"""CIFAR-10, CIFAR-100 and CIFAR-20 (CIFAR-100's superclasses): 32x32 colour images in pickles.

A pickle is a program. These are run by an unpickler that can name NumPy arrays and nothing else.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import io
import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastssl.data.sources.place import Place
from fastssl.data.sources.published import Archive, Published
from fastssl.data.sources.source import Source, Subclasses
from fastssl.errors import InputError

CIFAR10 = Published(
    name="cifar10",
    md5={
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
        "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    origin=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ),
)
CIFAR100 = Published(
    name="cifar100",
    md5={
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
    },
    origin=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
)
PIXELS = (3, 32, 32)


def read_cifar10(place: Place) -> Source:
    """CIFAR-10's 50,000 training and 10,000 test images."""
    files = CIFAR10.read(place.root, download=place.download)
    names = [name for name in files if name.startswith("data_batch_")]
    batches = [batch(files[name], name, "labels") for name in names]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    test = batch(files["test_batch"], "test_batch", "labels")
    classes = class_names(files["batches.meta"], "batches.meta", "label_names")
    return Source("cifar10", images, labels, *test, classes)


def read_cifar100(place: Place) -> Source:
    """CIFAR-100's 50,000 training and 10,000 test images."""
    files = CIFAR100.read(place.root, download=place.download)
    parts = [batch(files[part], part, "fine_labels") for part in ("train", "test")]
    classes = class_names(files["meta"], "meta", "fine_label_names")
    return Source("cifar100", *parts[0], *parts[1], classes)


def read_cifar20(place: Place) -> Source:
    """CIFAR-100 by its 20 superclasses; the 100 classes are kept as subclasses."""
    files = CIFAR100.read(place.root, download=place.download)
    parts = [batch(files[part], part, "coarse_labels") for part in ("train", "test")]
    classes = class_names(files["meta"], "meta", "coarse_label_names")
    fine = Subclasses(
        class_names(files["meta"], "meta", "fine_label_names"),
        *(batch(files[part], part, "fine_labels")[1] for part in ("train", "test")),
    )
    return Source("cifar20", *parts[0], *parts[1], classes, subclasses=fine)


class ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers; any other name in the file is an error.

    `pickle` finds every callable through `find_class`, so what that refuses is never called.
    """

    def find_class(self, module: str, name: str) -> Any:
        """One of the four names that an array's pickle holds."""
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        ):
            return _empty_array
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _empty_array(kind: type, shape: tuple[int, ...], typecode: Any) -> np.ndarray:
    """The array that an array's pickle starts from: of no elements."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it builds something other than an array")
    return np.ndarray((0,), np.uint8)


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the protocol of Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}")
    return text.encode("latin1")


def unpickle(content: bytes, name: str) -> dict[str, Any]:
    """The dictionary in a CIFAR file.

    Raises:
        InputError: not a pickle, not a whole one, not of a dictionary, or one that names anything
            but NumPy arrays.
    """
    try:
        # A damaged pickle may raise anything.
        fields = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:
        raise InputError(f"cifar: {name} is refused: {error or type(error).__name__}") from error
    if not isinstance(fields, dict):
        raise InputError(f"cifar: {name} holds {type(fields).__name__}; expected a dictionary")
    return fields


def batch(content: bytes, name: str, key: str) -> tuple[Tensor, Tensor]:
    """Images uint8 [N,3,32,32] of a batch, and the labels int64 [N] under `key`."""
    fields = unpickle(content, name)
    data, labels = fields.get("data"), fields.get(key)
    if not (
        isinstance(data, np.ndarray)
        and data.dtype == np.uint8
        and data.shape[1:] == (np.prod(PIXELS),)
        and isinstance(labels, list)
        and all(type(label) is int for label in labels)
    ):
        raise InputError(f"cifar: {name} is no batch: expected data uint8 [N,3072] and {key}")
    images = torch.from_numpy(np.ascontiguousarray(data)).view(-1, *PIXELS)
    return images, torch.tensor(labels, dtype=torch.int64)


def class_names(content: bytes, name: str, key: str) -> tuple[str, ...]:
    """The names under `key` of a file of names."""
    names = unpickle(content, name).get(key)
    if not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise InputError(f"cifar: {name} has no list {key}")
    return tuple(names)
