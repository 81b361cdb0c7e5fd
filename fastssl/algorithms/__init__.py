"""The papers' algorithms by name: which networks they train and which terms they add up."""

from fastssl.algorithms.base import Algorithm
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.supervised import Supervised

__all__ = ["ALGORITHMS"]

ALGORITHMS: dict[str, type[Algorithm]] = {"muscle": Muscle, "supervised": Supervised}
