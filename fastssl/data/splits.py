"""Which training images carry their label: drawn once per seed and kept in `split.json`.

N training images, C classes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fastssl.data.philox import Purpose, permutation
from fastssl.data.shares import (
    class_shares,
    draw,
    holdout_shares,
    labels_per_class,
    long_tail,
    weighted_shares,
)
from fastssl.data.sources import UNKNOWN, Source
from fastssl.errors import InputError, unknown_name

FORMAT = 2
HOLDOUT = 0.2  # of the labeled images of each class, where a source has no test part of its own
PARTS = ("labeled", "unlabeled", "validation", "test")
RULES = {
    "balanced": "the same number of labels in every class",
    "proportional": "labels in proportion to the classes' sizes",
    "sequestered": "the same number in every subclass, none in one random subclass of each class",
    "imbalanced": "a long tail: the first class has `ratio` times the labels of the last",
}


@dataclass(frozen=True)
class LabelSplit:
    """Disjoint, ascending positions in a source's training images; together they cover all of it.

    `validation` is in neither stream: it chooses hyper-parameters, so that the test part need not.
    `test` is held out where the source has no test part of its own, and empty elsewhere.
    """

    source: str
    fingerprint: str
    seed: int
    rule: str  # one of RULES, or "file"
    sequestered: tuple[int, ...]  # subclasses without labels
    labeled: tuple[int, ...]
    unlabeled: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def to_json(self) -> str:
        """The text of `split.json`, one field a line."""
        fields = {"format": FORMAT, **asdict(self)}
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, source: Source) -> "LabelSplit":
        """Read `split.json` back for the source it was made for.

        Raises:
            InputError: not a split, a split of other data, one whose parts overlap or leave images
                out, or one that counts an image without a label as labeled.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("format")
            lists = {key: tuple(fields[key]) for key in (*PARTS, "sequestered") if key in fields}
            split = cls(**{**fields, **lists}) if version == FORMAT else None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError("split.json: not a label split written by fastssl") from error
        if split is None:
            raise InputError(f"split.json: format {version}, this version reads {FORMAT}")
        if split.fingerprint != source.fingerprint:
            raise InputError(
                f"split.json: made for other data ({split.source}, {str(split.fingerprint)[:12]}), "
                f"this data is {source.fingerprint[:12]}"
            )
        positions = [i for part in PARTS for i in getattr(split, part)]
        n = len(source.labels)
        if not all(type(i) is int for i in positions) or sorted(positions) != list(range(n)):
            raise InputError(
                f"split.json: the parts do not hold each of the {n} training images once"
            )
        return _with_labels(split, source)


def draw_split(
    source: Source,
    *,
    num_labels: int | None,
    num_validation: int = 0,
    holdout: float | None = None,
    rule: str = "balanced",
    ratio: float | None = None,
    seed: int,
) -> LabelSplit:
    """Draw a label split; the same arguments give the same split everywhere.

    Args:
        source: the data set; its images without a label stay unlabeled.
        num_labels: how many images keep their label; None for all.
        num_validation: images held out, as evenly over the classes as the number allows. They come
            from the far end of each class's order, so holding them out changes no labeled image.
        holdout: part of the labeled images of each class to test on, None for HOLDOUT. Only for a
            source without a test part; where a class has fewer than two images nothing is held out.
        rule: one of RULES, by which `num_labels` are shared.
        ratio: of rule "imbalanced", the first class's labels to the last's.
        seed: of the split.

    Raises:
        InputError: a number that is negative, zero labels, labels that do not divide by the
            classes, or more than a class has; a rule the source or the other arguments do not fit.
    """
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    if (ratio is not None) != (rule == "imbalanced"):
        raise InputError(f"ratio: {ratio}; expected a number with rule imbalanced, and only there")
    test = draw_test(source, holdout, seed)
    known = source.labels.clone()
    known[test] = UNKNOWN
    groups, sequestered = known, ()
    if rule == "sequestered":
        groups, sequestered = _sequester(source, known, seed)
    num_groups = max(source.num_classes, int(groups.max()) + 1)

    order = torch.from_numpy(permutation(len(known), seed=seed, purpose=Purpose.LABEL_SPLIT))
    members = [order[groups[order] == g] for g in range(num_groups)]
    held_out = class_shares(num_validation, [len(m) for m in members], "validation")
    available = [len(m) - n for m, n in zip(members, held_out, strict=True)]
    # Groups that keep labels; the others give images to the unlabeled and validation parts alone.
    giving = [g for g in range(num_groups) if g not in sequestered]
    shares = _shares(rule, num_labels, [available[g] for g in giving], ratio)
    kept = dict(zip(giving, shares, strict=True))

    labeled = [m[: kept.get(g, 0)] for g, m in enumerate(members)]
    validation = [m[end:] for m, end in zip(members, available, strict=True)]
    return _assembled(
        source, labeled, validation, test, seed=seed, rule=rule, sequestered=sequestered
    )


def split_from_positions(
    source: Source,
    labeled: Sequence[int],
    *,
    holdout: float | None = None,
    seed: int,
) -> LabelSplit:
    """The split in which exactly these training images keep their label, such as a published one.

    Raises:
        InputError: a position out of range, twice, of an image without a label, or that is held
            out to test on; or a class without one.
    """
    n = len(source.labels)
    wrong = [i for i in labeled if not 0 <= i < n]
    if wrong or len(set(labeled)) != len(labeled):
        found = f"position {wrong[0]}" if wrong else "a position given twice"
        raise InputError(f"labeled: {found}; expected different ones from 0 to {n - 1}")
    test = draw_test(source, holdout, seed)
    if both := sorted(set(test.tolist()) & set(labeled)):
        raise InputError(f"labeled: image {both[0]} is held out to test on; give --holdout 0")
    return _assembled(
        source, [torch.tensor(sorted(labeled))], [], test, seed=seed, rule="file", sequestered=()
    )


def draw_test(source: Source, holdout: float | None, seed: int) -> Tensor:
    """Ascending positions of the training images held out to test on, int64 [T]; see `holdout`.

    Raises:
        InputError: the source has a test part and `holdout` is given, or is not a fraction.
    """
    if len(source.test_labels):
        if holdout is not None:
            raise InputError(f"holdout: {source.name} has a test part of its own")
        return torch.empty(0, dtype=torch.int64)
    known = source.labels[source.labels != UNKNOWN]
    counts = torch.bincount(known, minlength=source.num_classes).tolist()
    shares = holdout_shares(HOLDOUT if holdout is None else holdout, counts)
    return draw(source.labels, shares, seed=seed, purpose=Purpose.TEST_SPLIT)


def _sequester(source: Source, known: Tensor, seed: int) -> tuple[Tensor, tuple[int, ...]]:
    """Subclasses in place of classes, int64 [N], and those that lose their labels, one a class."""
    if source.subclasses is None:
        raise InputError(f"rule: {source.name} has no subclasses to sequester")
    fine = source.subclasses.labels
    groups = torch.where(known == UNKNOWN, UNKNOWN, fine)
    parent = dict(zip(fine.tolist(), source.labels.tolist(), strict=True))
    subclasses = sorted(parent)
    chosen: dict[int, int] = {}
    for i in permutation(len(subclasses), seed=seed, purpose=Purpose.SEQUESTERED).tolist():
        chosen.setdefault(parent[subclasses[i]], subclasses[i])
    return groups, tuple(sorted(chosen.values()))


def _shares(
    rule: str, num_labels: int | None, available: list[int], ratio: float | None
) -> list[int]:
    """How many labels every group keeps."""
    if ratio is not None:
        if num_labels is None:
            raise InputError("labels: rule imbalanced needs a number")
        return weighted_shares(num_labels, long_tail(len(available), ratio), available)
    if num_labels is None:
        return available
    if rule == "proportional":
        return weighted_shares(num_labels, [float(n) for n in available], available)
    return [labels_per_class(num_labels, available)] * len(available)


def _assembled(
    source: Source,
    labeled: list[Tensor],
    validation: list[Tensor],
    test: Tensor,
    *,
    seed: int,
    rule: str,
    sequestered: tuple[int, ...],
) -> LabelSplit:
    """A split of these parts, and of all other images as the unlabeled ones."""
    parts = {
        name: sorted(i for piece in pieces for i in piece.tolist())
        for name, pieces in (("labeled", labeled), ("validation", validation), ("test", [test]))
    }
    rest = torch.ones(len(source.labels), dtype=torch.bool)
    for positions in parts.values():
        rest[positions] = False
    split = LabelSplit(
        source=source.name,
        fingerprint=source.fingerprint,
        seed=seed,
        rule=rule,
        sequestered=sequestered,
        unlabeled=tuple(rest.nonzero().flatten().tolist()),
        **{name: tuple(positions) for name, positions in parts.items()},
    )
    return _with_labels(split, source)


def _with_labels(split: LabelSplit, source: Source) -> LabelSplit:
    """The split, if all parts but the unlabeled have labels and every class has a labeled image."""
    for part in ("labeled", "validation", "test"):
        positions = list(getattr(split, part))
        without = (source.labels[positions] == UNKNOWN).nonzero().flatten().tolist()
        if without:
            raise InputError(f"{part}: training image {positions[without[0]]} has no label")
    counts = torch.bincount(source.labels[list(split.labeled)], minlength=source.num_classes)
    for c, count in enumerate(counts.tolist()):
        if count == 0:
            raise InputError(f"labels: class {source.class_names[c]!r} has no labeled image")
    return split
