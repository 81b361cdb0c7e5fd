"""The papers' algorithms by name: which networks they train and which terms they add up.

A name is a base's, or "muscle+" and a base's: MUSCLE is one more term on any of them. "muscle"
alone is "muscle+supervised".
"""

from fastssl.algorithms.base import Algorithm
from fastssl.algorithms.ccn import CCN
from fastssl.algorithms.fixmatch import FixMatch
from fastssl.algorithms.mean_teacher import MeanTeacher
from fastssl.algorithms.supervised import Supervised
from fastssl.errors import unknown_name

__all__ = ["BASES", "NAMES", "algorithm_type"]

BASES: dict[str, type[Algorithm]] = {
    "ccn": CCN,
    "fixmatch": FixMatch,
    "mean-teacher": MeanTeacher,
    "supervised": Supervised,
}
NAMES = (
    *BASES,
    "muscle",
    *(
        f"muscle+{base}"
        for base, kind in BASES.items()
        if kind.takes_muscle and base != "supervised"
    ),
)


def algorithm_type(name: str) -> tuple[type[Algorithm], bool]:
    """The class of the algorithm of that name, and whether MUSCLE's term is on it.

    Raises:
        InputError: there is none; the nearest name is given.
    """
    if name not in NAMES:
        raise unknown_name("algorithm", name, NAMES)
    if name == "muscle":
        return Supervised, True
    base = name.removeprefix("muscle+")
    return BASES[base], base != name
