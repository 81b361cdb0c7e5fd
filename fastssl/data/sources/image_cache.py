"""Image files, resized once and kept as uint8 in one memory-mapped file.

The file is found by the content of the images and their size, so that a moved folder is not read
again and a changed image is. Beside the pixels, which are all of one shape and in the order of the
files, it is known which files cannot be read, and the sums that the statistics need.

N images of 3 channels, S x S pixels.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastssl.data.files import read_image
from fastssl.data.sources.source import moments
from fastssl.errors import InputError

FORMAT = 1  # of the pixels too: raised when reading or resizing changes
CHUNK = 256  # images decoded at once


@dataclass(frozen=True)
class CachedImages:
    """The readable ones among some files."""

    images: Tensor  # uint8 [N,3,S,S], a memory map
    moments: np.ndarray  # int64 [N,2,3], see `source.moments`
    kept: list[int]  # which of the files they are, ascending
    bad: dict[int, str]  # the others, each with the reason
    digests: list[str]  # sha256 of every file


def cached_images(paths: Sequence[Path], size: int, root: Path) -> CachedImages:
    """Read image files, or map what an earlier reading has kept.

    Args:
        paths: the files.
        size: S.
        root: the folder of the cache.

    Raises:
        InputError: a file is not there, or the cache cannot be written.
    """
    digests = file_digests(paths, root)
    name = json.dumps([FORMAT, size, digests])
    folder = root / "images" / hashlib.sha256(name.encode()).hexdigest()
    try:
        if not folder.exists():
            _write(paths, size, folder)
        index = json.loads((folder / "index.json").read_text())
        bad = {int(position): reason for position, reason in index["bad"].items()}
        sums = np.load(folder / "moments.npy")
        n = len(paths) - len(bad)
        file = folder / "pixels"
        if len(sums) != n or file.stat().st_size != n * 3 * size * size:
            raise ValueError("files of the wrong length")
        if n == 0:
            raise InputError(f"image: none of {len(paths)} files can be read ({bad[0]})")
        # A private map: nothing that is done to the tensor reaches the file.
        flat = torch.from_file(str(file), shared=False, size=n * 3 * size**2, dtype=torch.uint8)
    except OSError as error:
        raise InputError(f"cannot keep images in {folder}: {error.strerror or error}") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{folder} is damaged ({error}); delete it") from error
    kept = [position for position in range(len(paths)) if position not in bad]
    return CachedImages(flat.view(n, 3, size, size), sums, kept, bad, digests)


def file_digests(paths: Sequence[Path], root: Path) -> list[str]:
    """Sha256 of every file; one of unchanged size and time is not read again."""
    known_file = root / "images" / "digests.json"
    try:
        known = json.loads(known_file.read_text())
    except (OSError, ValueError):
        known = {}
    digests, changed = [], False
    for path in tqdm(paths, desc="checking images", unit="file", disable=None, delay=1):
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
            entry = known.get(str(path.absolute()))
            if not entry or entry[0] != stamp:
                with path.open("rb") as file:
                    entry = [stamp, hashlib.file_digest(file, "sha256").hexdigest()]
                known[str(path.absolute())], changed = entry, True
        except OSError as error:
            raise InputError(f"image: cannot read {path}: {error.strerror or error}") from error
        digests.append(entry[1])
    if changed:
        try:
            known_file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=known_file.parent)
            with os.fdopen(handle, "w") as file:
                json.dump(known, file)
            Path(temporary).replace(known_file)
        except OSError as error:
            message = f"cannot write {known_file}: {error.strerror or error}"
            raise InputError(message) from error
    return digests


def _write(paths: Sequence[Path], size: int, folder: Path) -> None:
    """Decode every file into a new cache folder, which gets its name once it is complete."""
    from PIL import Image

    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix="writing-"))
    bad: dict[int, str] = {}
    sums = [np.empty((0, 2, 3), dtype=np.int64)]

    def decode(path: Path) -> Tensor | str:
        try:
            return read_image(path, (3, size, size))
        except InputError as error:
            return str(error.__cause__) or type(error.__cause__).__name__

    try:
        with (
            (building / "pixels").open("wb") as file,
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
            tqdm(total=len(paths), desc="reading images", disable=None, delay=1) as progress,
            warnings.catch_warnings(),
        ):
            # Half of Pillow's limit for a bomb only warns, and is a large photograph.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            for first in range(0, len(paths), CHUNK):
                decoded = list(pool.map(decode, paths[first : first + CHUNK]))
                images = [image for image in decoded if isinstance(image, Tensor)]
                for position, result in enumerate(decoded, start=first):
                    if isinstance(result, str):
                        bad[position] = result
                if images:
                    stacked = torch.stack(images)
                    file.write(stacked.numpy().tobytes())
                    sums.append(moments(stacked))
                progress.update(len(decoded))
        np.save(building / "moments.npy", np.concatenate(sums))
        (building / "index.json").write_text(json.dumps({"bad": bad}))
        try:
            building.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster with the same
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
