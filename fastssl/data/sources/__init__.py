"""Data sets by name or path: one interface, whatever the files look like."""

import os
from collections.abc import Callable
from pathlib import Path

from fastssl.data.sources.cifar import read_cifar10, read_cifar20, read_cifar100
from fastssl.data.sources.digits import read_digits
from fastssl.data.sources.image_folder import read_image_folder
from fastssl.data.sources.mini_imagenet import read_mini_imagenet
from fastssl.data.sources.mnist import read_mnist
from fastssl.data.sources.place import Place, data_root
from fastssl.data.sources.source import UNKNOWN, Source
from fastssl.data.sources.svhn import read_svhn
from fastssl.data.sources.two_spirals import read_two_spirals
from fastssl.errors import InputError, unknown_name

__all__ = ["SOURCES", "UNKNOWN", "Source", "load_source", "resolve_source", "short_name"]

SOURCES: dict[str, Callable[[Place], Source]] = {
    "digits": read_digits,
    "two_spirals": read_two_spirals,
    "mnist": read_mnist,
    "svhn": read_svhn,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "cifar20": read_cifar20,
    "mini_imagenet": read_mini_imagenet,
}


def resolve_source(data: str) -> str:
    """A data set's name as it is; anything else as the absolute path of a folder or CSV.

    Raises:
        InputError: no such name and no such path; the message has the nearest name.
    """
    if data in SOURCES:
        return data
    path = Path(data).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".csv"):
        return str(path.absolute())
    if path.exists():
        raise InputError(f"data: {data} is a file; expected a folder of images or a .csv")
    if path.name != data:
        raise InputError(f"data: there is no folder {data}")
    raise unknown_name("data", data, SOURCES)


def short_name(data: str) -> str:
    """A data set's name, or the last folder of a path."""
    if data in SOURCES:
        return data
    path = Path(data)
    return path.parent.name if path.suffix.lower() == ".csv" else path.name


def load_source(
    data: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    image_size: int | None = None,
    skip_bad: bool = False,
) -> Source:
    """A data set by its name, or the images of a folder or CSV by their path; a name wins.

    Args:
        data: the name or path; `./digits` is a folder.
        data_dir: root of named data sets and of the cache of folders; None for $FASTSSL_DATA, else
            the user's cache.
        download: fetch what is missing of a named data set; otherwise nothing touches the network.
        image_size: pixels to resize a folder's images to, each side.
        skip_bad: leave out images that cannot be read.

    Raises:
        InputError: no such data set, or its files are missing, damaged or of another shape.
    """
    place = Place(data_root(data_dir), download, image_size, skip_bad)
    data = resolve_source(data)
    if data not in SOURCES:
        return read_image_folder(Path(data), place)
    if image_size is not None:
        raise InputError(f"image_size: {data} has its own; only a folder's images are resized")
    return SOURCES[data](place)
