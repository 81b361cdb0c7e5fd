"""The papers' algorithms by name: which networks they train and which terms they add up.

A name is a base's, with "muscle+" before it where MUSCLE's term is added, and "+label-propagation"
behind it where a second stage trains on propagated labels. The base "supervised" is left out of
such a name: "muscle", "label-propagation". "contrastive" pre-trains without labels; it and
"supervised+contrastive" are those of MUSCLE's figure 2, c and d. "ccn-no-ml" and the like are the
models of CCN's table 3.
"""

from dataclasses import dataclass
from typing import Any

from fastssl.algorithms.base import Algorithm, Batch, NoSettings
from fastssl.algorithms.ccn import CCN, VARIANTS, CCNConfig, variant
from fastssl.algorithms.contrastive import Contrastive
from fastssl.algorithms.fixmatch import FixMatch, FixMatchConfig
from fastssl.algorithms.label_propagation import LabelPropagationConfig
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.mean_teacher import MeanTeacher, MeanTeacherConfig
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.supervised import Supervised, SupervisedConfig
from fastssl.algorithms.unsupervised import Unsupervised
from fastssl.errors import InputError, unknown_name

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Batch",
    "Contrastive",
    "Loss",
    "Muscle",
    "Named",
    "named",
    "register",
]


@dataclass(frozen=True)
class Named:
    """What a name stands for: the class, its hyper-parameters, and what is added to it."""

    kind: type[Algorithm]
    config: Any
    muscle: Muscle | None = None
    propagation: LabelPropagationConfig | None = None
    contrastive: Contrastive | None = None


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
    "contrastive": Named(Unsupervised, NoSettings(), contrastive=Contrastive()),
    "muscle+contrastive": Named(Unsupervised, NoSettings(), Muscle(), contrastive=Contrastive()),
    "supervised+contrastive": Named(Supervised, SupervisedConfig(), contrastive=Contrastive()),
    "muscle+supervised+contrastive": Named(
        Supervised, SupervisedConfig(), Muscle(), contrastive=Contrastive()
    ),
    "ccn": Named(CCN, CCNConfig()),
    **{f"ccn-{name}": Named(CCN, variant(CCNConfig(), name)) for name in VARIANTS},
}

BUILT_IN = frozenset(ALGORITHMS)


def register(name: str, kind: type[Algorithm], config: Any = None) -> None:
    """Make an algorithm of your own known by name, alone and as "muscle+" and its name.

    Recipes, the configuration and run folders then take it as they take the papers'; a process that
    opens its runs has to register it, too.

    Args:
        name: for `fastssl.fit` and run.json.
        kind: the class.
        config: its hyper-parameters, of its `config_type`; None for the type's defaults.

    Raises:
        InputError: the name is one of the papers'.
    """
    if name in BUILT_IN or name.startswith(("muscle+", "ccn")):  # recipes go by these
        raise InputError(f"register: {name!r} is taken; choose another name")
    config = kind.config_type() if config is None else config
    ALGORITHMS[name] = Named(kind, config)
    ALGORITHMS[f"muscle+{name}"] = Named(kind, config, Muscle())


def named(algorithm: str) -> Named:
    """The algorithm of that name.

    Raises:
        InputError: there is none; the nearest name is given.
    """
    if algorithm not in ALGORITHMS:
        raise unknown_name("algorithm", algorithm, ALGORITHMS)
    return ALGORITHMS[algorithm]
