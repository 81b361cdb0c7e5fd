"""Which training images carry their label: drawn once per seed and kept in `split.json`.

N training images, C classes.
"""

import json
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fastssl.data.philox import Purpose, permutation
from fastssl.errors import InputError

FORMAT = 1


@dataclass(frozen=True)
class LabelSplit:
    """Disjoint, ascending positions in a source's training images; together they cover all of it.

    `validation` is in neither stream: it chooses hyper-parameters, so that the test part need not.
    """

    source: str
    fingerprint: str
    seed: int
    labeled: tuple[int, ...]
    unlabeled: tuple[int, ...]
    validation: tuple[int, ...]

    def to_json(self) -> str:
        """The text of `split.json`, one field a line."""
        fields = {"format": FORMAT, **asdict(self)}
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, *, fingerprint: str, num_images: int) -> "LabelSplit":
        """Read `split.json` back for the source with this fingerprint and number of images.

        Raises:
            InputError: not a split, a split of other data, or one whose parts overlap or leave
                images out.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("format")
            parts = {key: tuple(fields[key]) for key in ("labeled", "unlabeled", "validation")}
            split = cls(**{**fields, **parts})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError("split.json: not a label split written by fastssl") from error
        if version != FORMAT:
            raise InputError(f"split.json: format {version}, this version reads {FORMAT}")
        if split.fingerprint != fingerprint:
            raise InputError(
                f"split.json: made for other data ({split.source}, {str(split.fingerprint)[:12]}), "
                f"this data is {fingerprint[:12]}"
            )
        positions = [*split.labeled, *split.unlabeled, *split.validation]
        if not all(type(i) is int for i in positions) or sorted(positions) != list(
            range(num_images)
        ):
            raise InputError(
                f"split.json: the parts do not hold each of the {num_images} training images once"
            )
        return split


def draw_split(
    labels: Tensor,
    num_classes: int,
    *,
    num_labels: int | None,
    num_validation: int,
    seed: int,
    source: str,
    fingerprint: str,
) -> LabelSplit:
    """Draw a balanced label split; the same arguments give the same split everywhere.

    Args:
        labels: int64 [N], of the training images.
        num_classes: C.
        num_labels: how many images keep their label, the same number of every class; None for all.
        num_validation: images held out, as evenly over the classes as the number allows. They come
            from the far end of each class's order, so holding them out changes no labeled image.
        seed: of the split.
        source: name of the data set, recorded.
        fingerprint: of the data set, recorded.

    Raises:
        InputError: a number that is negative, zero labels, labels that do not divide by the
            classes, or more than a class has.
    """
    order = torch.from_numpy(permutation(len(labels), seed=seed, purpose=Purpose.LABEL_SPLIT))
    by_class = [order[labels[order] == c] for c in range(num_classes)]
    held_out = class_shares(num_validation, [len(members) for members in by_class], "validation")
    available = [len(members) - n for members, n in zip(by_class, held_out, strict=True)]
    if num_labels is None:
        kept = available
    else:
        kept = [labels_per_class(num_labels, available)] * num_classes
    parts = zip(by_class, kept, available, strict=True)
    labeled, unlabeled, validation = zip(
        *((m[:n], m[n:end], m[end:]) for m, n, end in parts), strict=True
    )

    def ascending(pieces: tuple[Tensor, ...]) -> tuple[int, ...]:
        return tuple(sorted(torch.cat(pieces).tolist()))

    return LabelSplit(
        source=source,
        fingerprint=fingerprint,
        seed=seed,
        labeled=ascending(labeled),
        unlabeled=ascending(unlabeled),
        validation=ascending(validation),
    )


def stratified(labels: Tensor, n: int, *, seed: int, purpose: Purpose) -> Tensor:
    """Ascending positions of `n` images, evenly over the classes of labels int64 [N]."""
    order = torch.from_numpy(permutation(len(labels), seed=seed, purpose=purpose))
    counts = torch.bincount(labels).tolist()
    shares = class_shares(n, counts, "test")
    drawn = [order[labels[order] == c][:share] for c, share in enumerate(shares)]
    return torch.cat(drawn).sort().values


def class_shares(n: int, counts: list[int], part: str) -> list[int]:
    """`n` images shared evenly by C classes that have `counts`; the first ones take the rest."""
    if n < 0:
        raise InputError(f"{part}: {n} images; expected 0 or more")
    share, rest = divmod(n, len(counts))
    shares = [share + (c < rest) for c in range(len(counts))]
    if any(share > count for share, count in zip(shares, counts, strict=True)):
        raise InputError(
            f"{part}: {n} images take up to {max(shares)} of each class, "
            f"the smallest has {min(counts)}"
        )
    return shares


def labels_per_class(num_labels: int, available: list[int]) -> int:
    """How many images of each class keep their label when `num_labels` do, with every check."""
    num_classes = len(available)
    if num_labels <= 0:
        raise InputError(f"labels: {num_labels}; expected at least {num_classes}, one a class")
    if num_labels % num_classes:
        raise InputError(f"labels: {num_labels} does not divide by the {num_classes} classes")
    each = num_labels // num_classes
    if each > min(available):
        raise InputError(
            f"labels: {num_labels} needs {each} images of each class, "
            f"the smallest has {min(available)} to give"
        )
    return each
