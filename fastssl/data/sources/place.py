"""Where data sets are on this machine, and how the user's own images are read."""

import os
from dataclasses import dataclass
from pathlib import Path

IMAGE_SIZE = 64


@dataclass(frozen=True)
class Place:
    """What reading a source may depend on beside its name."""

    root: Path  # of named data sets, and of what is cached of folders
    download: bool = False  # fetch what is missing of a named data set
    image_size: int | None = None  # of a folder's images; None for IMAGE_SIZE
    skip_bad: bool = False  # leave images out that cannot be read


def data_root(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder given, else $FASTSSL_DATA, else `fastssl` in the user's cache."""
    if folder or (folder := os.environ.get("FASTSSL_DATA")):
        return Path(folder).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fastssl"
