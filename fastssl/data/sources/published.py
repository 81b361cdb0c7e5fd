"""The files of a published data set: found, checked against their MD5, fetched if asked to.

Nothing here touches the network unless `download` is true.
"""

import hashlib
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from fastssl.errors import InputError

BLOCK = 1 << 20  # bytes read at once
TEMPORARY = ".downloading"  # suffix of a file that is not complete yet
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Archive:
    """A tar file that holds the files under the names they keep below the data folder."""

    url: str
    md5: str


@dataclass(frozen=True)
class Published:
    """A data set's files as their authors published them."""

    name: str
    md5: dict[str, str]  # of each file, by its path below the data folder
    origin: Archive | str  # an archive of all of them, or the address each file's name is added to

    def read(self, root: Path, *, download: bool) -> dict[str, bytes]:
        """The content of every file by the last part of its path, each with the published MD5.

        Raises:
            InputError: a file is missing, cannot be read or is not the published one; or a download
                failed.
        """
        missing = [path for path in self.md5 if not (root / path).exists()]
        if missing and not download:
            raise InputError(
                f"data: {self.name} is not in {root} ({missing[0]} is missing); "
                "fetch it with --download, or name its folder with --data-dir"
            )
        if missing and isinstance(self.origin, Archive):
            self._fetch_archive(self.origin, missing, root)
        for path in missing if isinstance(self.origin, str) else ():
            fetch(self.origin + Path(path).name, root / path, self.md5[path])
        return {Path(path).name: self._checked(root / path, md5) for path, md5 in self.md5.items()}

    def _checked(self, path: Path, md5: str) -> bytes:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"data: cannot read {path}: {error.strerror or error}") from error
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise InputError(
                f"data: {path} is not the published file of {self.name} (MD5 {found}, expected "
                f"{md5}); delete it and fetch it anew with --download"
            )
        return content

    def _fetch_archive(self, archive: Archive, paths: list[str], root: Path) -> None:
        """Fetch an archive, keep these of its files and nothing else."""
        downloaded = root / Path(archive.url).name
        fetch(archive.url, downloaded, archive.md5)
        try:
            with tarfile.open(downloaded) as tar:
                for path in paths:
                    member = tar.extractfile(path)
                    if member is None:
                        raise KeyError(path)
                    with writing(root / path) as file:
                        shutil.copyfileobj(member, file, BLOCK)
        except (tarfile.TarError, KeyError, EOFError) as error:
            raise InputError(f"data: {downloaded} does not hold {path}") from error
        downloaded.unlink()


def fetch(url: str, path: Path, md5: str) -> None:
    """Download a file; its name appears once all of it is there with the expected MD5.

    Raises:
        InputError: no connection, no such file, another MD5, or nowhere to write.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            size = answer.headers.get("Content-Length")
            progress = tqdm(
                total=size and int(size), unit="B", unit_scale=True, desc=path.name, disable=None
            )
            with writing(path) as file, progress:
                while block := answer.read(BLOCK):
                    digest.update(block)
                    file.write(block)
                    progress.update(len(block))
                if digest.hexdigest() != md5:
                    raise InputError(
                        f"data: {url} gave another file than the published one "
                        f"(MD5 {digest.hexdigest()}, expected {md5}); nothing was kept"
                    )
    except OSError as error:  # urllib's errors are OSErrors
        raise InputError(f"data: cannot download {url}: {error}") from error


@contextmanager
def writing(path: Path) -> Iterator:
    """A binary file that gets its name only if the block ends well.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
