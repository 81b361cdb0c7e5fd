"""The names of algorithms."""

import pytest

from fastssl.algorithms import BASES, NAMES, algorithm_type
from fastssl.algorithms.mean_teacher import MeanTeacher
from fastssl.algorithms.supervised import Supervised
from fastssl.errors import InputError


def test_muscle_is_a_term_on_a_base():
    assert algorithm_type("muscle") == (Supervised, True)
    assert algorithm_type("supervised") == (Supervised, False)
    assert algorithm_type("muscle+mean-teacher") == (MeanTeacher, True)


def test_every_base_has_a_name_with_muscle_if_it_takes_the_term():
    assert len(NAMES) == len(set(NAMES))
    assert {algorithm_type(name) for name in NAMES} == {
        (kind, with_muscle)
        for kind in BASES.values()
        for with_muscle in (False, True)
        if kind.takes_muscle or not with_muscle
    }


@pytest.mark.parametrize(
    "name", ["muscle+", "muscle+muscle", "mean_teacher", "", "+supervised", "muscle+ccn"]
)
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="algorithm: unknown name"):
        algorithm_type(name)
