"""A folder of the user's own images: one folder a class, or a CSV beside a tree.

    folder/cat/*          labeled            folder/labels.csv      file,label
    folder/dog/*          labeled            folder/any/tree/*      an empty label: unlabeled
    folder/unlabeled/*    not labeled        folder/test/*          the test part, as on the left
    folder/test/cat/*     the test part, if it is there

Files may be of any size and kind that Pillow reads; all become RGB of one size.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch

from fastssl.data.files import images_below
from fastssl.data.sources.image_cache import cached_images
from fastssl.data.sources.place import IMAGE_SIZE, Place
from fastssl.data.sources.source import UNKNOWN, ImageFiles, Source, mean_and_std
from fastssl.errors import InputError

UNLABELED, TEST, LABELS_CSV = "unlabeled", "test", "labels.csv"
COLUMNS = ["file", "label"]


@dataclass(frozen=True)
class Labeled:
    """Files below a root, each with the name of its class, or None."""

    root: Path
    train: dict[str, str | None]
    test: dict[str, str | None]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Sorted names of the classes of the training part."""
        return tuple(sorted({label for label in self.train.values() if label is not None}))


def read_image_folder(path: Path, place: Place) -> Source:
    """The images of a folder, or of the tree around a CSV file.

    Args:
        path: the folder, or the CSV.
        place: `image_size` and `skip_bad` are of this source alone.

    Raises:
        InputError: no labels, a class without labeled images, a path in the CSV that leaves its
            tree, or images that cannot be read: all of them are in the error's details.
    """
    size = IMAGE_SIZE if place.image_size is None else place.image_size
    if size < 1:
        raise InputError(f"image_size: {size}; expected 1 or more pixels")
    found = list_images(path)
    name = (path if path.is_dir() else found.root).absolute().name
    return read_files(name, found, size, place)


def list_images(path: Path) -> Labeled:
    """The files of a folder, or of the tree around a CSV file.

    Raises:
        InputError: as `list_tree` and `list_csv`.
    """
    if path.is_dir() and not (path / LABELS_CSV).exists():
        return list_tree(path)
    return list_csv(path / LABELS_CSV if path.is_dir() else path)


def list_tree(root: Path) -> Labeled:
    """The files of one folder a class.

    Raises:
        InputError: fewer than two class folders, or one of them has no image.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    classes = [p for p in folders if p.name not in (UNLABELED, TEST)]
    if len(classes) < 2:
        raise InputError(
            f"data: {root} has {len(classes)} class folders; expected at least two, one a class, "
            f"or a {LABELS_CSV}"
        )

    def inside(folder: Path, label: str | None) -> dict[str, str | None]:
        return {p.relative_to(root).as_posix(): label for p in images_below(folder)}

    train: dict[str, str | None] = {}
    for folder in classes:
        own = inside(folder, folder.name)
        if not own:
            raise InputError(f"data: class {folder.name!r} has no labeled image in {folder}")
        train |= own
    if (root / UNLABELED).is_dir():
        train |= inside(root / UNLABELED, None)
    test: dict[str, str | None] = {}
    if (root / TEST).is_dir():
        for folder in sorted(p for p in (root / TEST).iterdir() if p.is_dir()):
            test |= inside(folder, folder.name)
    return Labeled(root, train, test)


def list_csv(path: Path) -> Labeled:
    """The files that a CSV lists, below its own folder; those below `test` are the test part.

    Raises:
        InputError: not such a CSV, a file that is not there, is listed twice, or is not inside the
            tree; or fewer than two classes.
    """
    root = path.parent
    real_root = root.resolve()
    parts: dict[bool, dict[str, str | None]] = {False: {}, True: {}}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            if (header := next(rows, [])) != COLUMNS:
                raise InputError(
                    f"data: {path} begins with {','.join(header)!r}; expected file,label"
                )
            for row in filter(None, rows):
                where = f"data: {path}, line {rows.line_num}"
                if len(row) != len(COLUMNS):
                    raise InputError(f"{where}: {len(row)} columns; expected file,label")
                name, label = row[0], row[1] or None
                target = (root / name).resolve()
                if not target.is_relative_to(real_root):
                    raise InputError(f"{where}: {name!r} is not inside {root}")
                if not target.is_file():
                    raise InputError(f"{where}: there is no file {name!r}")
                part = parts[Path(name).parts[0] == TEST]
                if name in part:
                    raise InputError(f"{where}: {name!r} is listed twice")
                part[name] = label
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"data: {path} cannot be read as a CSV: {error}") from error
    found = Labeled(root, parts[False], parts[True])
    if len(found.class_names) < 2:
        raise InputError(
            f"data: {path} has labels of {len(found.class_names)} classes; expected at least two"
        )
    return found


def read_files(name: str, found: Labeled, size: int, place: Place) -> Source:
    """Files as a source: decoded once, mapped into memory."""
    classes = found.class_names
    number = {label: c for c, label in enumerate(classes)} | {None: UNKNOWN}
    for file, label in found.test.items():
        if label not in classes:
            raise InputError(
                f"data: {file} of the test part is of class {label!r}, which has no labeled "
                "training image"
            )
    names = [*found.train, *found.test]
    cached = cached_images([found.root / file for file in names], size, place.root)
    if cached.bad and not place.skip_bad:
        raise InputError(
            f"image: {len(cached.bad)} of {len(names)} files cannot be read; repair or remove "
            "them, or leave them out with --skip-bad",
            details=[f"{names[i]}: {reason}" for i, reason in cached.bad.items()],
        )
    n = sum(position < len(found.train) for position in cached.kept)
    given = [*found.train.values(), *found.test.values()]
    labels = torch.tensor([number[given[i]] for i in cached.kept])
    for c, label in enumerate(classes):
        if not (labels[:n] == c).any():
            raise InputError(f"data: class {label!r} has no labeled image that can be read")
    files = ImageFiles(
        names=tuple(names[i] for i in cached.kept),
        digests=tuple(cached.digests[i] for i in cached.kept),
        skipped=tuple(f"{names[i]}: {reason}" for i, reason in cached.bad.items()),
    )
    return Source(
        name=name,
        images=cached.images[:n],
        labels=labels[:n],
        test_images=cached.images[n:],
        test_labels=labels[n:],
        class_names=classes,
        files=files,
        known_statistics=mean_and_std(cached.moments[:n], cached.images.shape[1:]),
        known_content=repr((size, classes, files.digests)),
    )


def duplicates(source: Source, test: list[int], train: list[int]) -> list[tuple[str, str]]:
    """Test files whose very bytes are also in the training part, each with one such file.

    Args:
        source: of files; another has none.
        test: positions of training images that were held out to test on.
        train: positions of those that are trained on.
    """
    if source.files is None:
        return []
    names, digests = source.files.names, source.files.digests
    known = {digests[i]: names[i] for i in train}
    tested = [*test, *range(len(source.images), len(names))]
    return [(names[i], known[digests[i]]) for i in tested if digests[i] in known]
