"""The papers' algorithms by name: which networks they train and which terms they add up.

A name is a base's, with "muscle+" before it where MUSCLE's term is added, and "+label-propagation"
behind it where a second stage trains on propagated labels. The base "supervised" is left out of
such a name: "muscle", "label-propagation". "ccn-no-ml" and the like are the models of CCN's table
3.
"""

from dataclasses import dataclass
from typing import Any

from fastssl.algorithms.base import Algorithm
from fastssl.algorithms.ccn import CCN, VARIANTS, CCNConfig, variant
from fastssl.algorithms.fixmatch import FixMatch, FixMatchConfig
from fastssl.algorithms.label_propagation import LabelPropagationConfig
from fastssl.algorithms.mean_teacher import MeanTeacher, MeanTeacherConfig
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.supervised import Supervised, SupervisedConfig
from fastssl.errors import unknown_name

__all__ = ["ALGORITHMS", "Named", "named"]


@dataclass(frozen=True)
class Named:
    """What a name stands for: the class, its hyper-parameters, and what is added to it."""

    kind: type[Algorithm]
    config: Any
    muscle: Muscle | None = None
    propagation: LabelPropagationConfig | None = None


BASES: dict[str, tuple[type[Algorithm], Any]] = {
    "supervised": (Supervised, SupervisedConfig()),
    "mean-teacher": (MeanTeacher, MeanTeacherConfig()),
    "fixmatch": (FixMatch, FixMatchConfig()),
}


def composed_name(base: str, *, muscle: bool, propagation: bool) -> str:
    """The name of a base with MUSCLE's term, a second stage on propagated labels, or both."""
    added = muscle or propagation
    parts = ["muscle"] * muscle + [base] * (base != "supervised" or not added)
    return "+".join(parts + ["label-propagation"] * propagation)


ALGORITHMS: dict[str, Named] = {
    **{
        composed_name(base, muscle=muscle is not None, propagation=propagation is not None): Named(
            *BASES[base], muscle, propagation
        )
        for propagation in (None, LabelPropagationConfig())
        for muscle in (None, Muscle())
        for base in BASES
    },
    "ccn": Named(CCN, CCNConfig()),
    **{f"ccn-{name}": Named(CCN, variant(CCNConfig(), name)) for name in VARIANTS},
}


def named(algorithm: str) -> Named:
    """The algorithm of that name.

    Raises:
        InputError: there is none; the nearest name is given.
    """
    if algorithm not in ALGORITHMS:
        raise unknown_name("algorithm", algorithm, ALGORITHMS)
    return ALGORITHMS[algorithm]
