"""How many images of each class a part gets, and drawing them.

C classes, or subclasses where the labels of whole subclasses are held back.
"""

import torch
from torch import Tensor

from fastssl.data.philox import Purpose, permutation
from fastssl.errors import InputError


def stratified(labels: Tensor, n: int, *, seed: int, purpose: Purpose) -> Tensor:
    """Ascending positions of `n` images, evenly over the classes of labels int64 [N]."""
    shares = class_shares(n, torch.bincount(labels).tolist(), "test")
    return draw(labels, shares, seed=seed, purpose=purpose)


def draw(labels: Tensor, shares: list[int], *, seed: int, purpose: Purpose) -> Tensor:
    """Ascending positions of `shares[c]` images of each class c; negative labels are no class."""
    order = torch.from_numpy(permutation(len(labels), seed=seed, purpose=purpose))
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


def weighted_shares(num_labels: int, weights: list[float], available: list[int]) -> list[int]:
    """`num_labels` shared in proportion to `weights`, at least one a class.

    Whole parts first, then one each by the largest remainder; the earlier class wins a tie.

    Raises:
        InputError: fewer labels than classes, or more than a class has.
    """
    C = len(available)
    if num_labels < C:
        raise InputError(f"labels: {num_labels}; expected at least {C}, one a class")
    exact = [num_labels * weight / sum(weights) for weight in weights]
    shares = [max(1, int(x)) for x in exact]
    by_remainder = sorted(range(C), key=lambda c: shares[c] - exact[c])
    for c in by_remainder[: max(0, num_labels - sum(shares))]:
        shares[c] += 1
    while sum(shares) > num_labels:  # the classes that were raised to one took too many
        shares[shares.index(max(shares))] -= 1
    for c, (share, count) in enumerate(zip(shares, available, strict=True)):
        if share > count:
            raise InputError(
                f"labels: {num_labels} needs {share} images of class {c}, which has {count} to give"
            )
    return shares


def long_tail(num_classes: int, ratio: float) -> list[float]:
    """Weights that fall exponentially, the first class `ratio` times the last."""
    if not ratio >= 1:
        raise InputError(f"ratio: {ratio}; expected 1 or more, first class to last")
    return [ratio ** (-c / max(1, num_classes - 1)) for c in range(num_classes)]


def holdout_shares(fraction: float, counts: list[int]) -> list[int]:
    """Test images of each class: the fraction, rounded, at least one, and one must stay.

    All 0 if a class has fewer than two images: without it, the figure would be of other classes.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"holdout: {fraction}; expected a fraction from 0 to below 1")
    if fraction == 0 or min(counts) < 2:
        return [0] * len(counts)
    return [min(n - 1, max(1, round(fraction * n))) for n in counts]
