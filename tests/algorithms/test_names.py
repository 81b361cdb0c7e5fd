"""The names of algorithms."""

import pytest

from fastssl.algorithms import ALGORITHMS, named
from fastssl.algorithms.ccn import CCN
from fastssl.algorithms.contrastive import Contrastive
from fastssl.algorithms.label_propagation import LabelPropagationConfig
from fastssl.algorithms.mean_teacher import MeanTeacher
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.supervised import Supervised
from fastssl.errors import InputError


def test_muscle_is_a_term_on_a_base():
    for name, each in ALGORITHMS.items():
        assert (each.muscle == Muscle()) == name.startswith("muscle"), name
        assert (each.propagation == LabelPropagationConfig()) == name.endswith("propagation"), name
        assert (each.contrastive == Contrastive()) == name.endswith("contrastive"), name
        assert isinstance(each.config, each.kind.config_type)
    for name in ("label-propagation", "muscle+label-propagation"):
        assert named(name).kind is Supervised
    assert named("muscle+mean-teacher+label-propagation").kind is MeanTeacher
    assert named("muscle").kind is named("supervised").kind is Supervised
    assert named("muscle+mean-teacher").kind is named("mean-teacher").kind is MeanTeacher


def test_table_3_of_ccn():
    off = {name: named(f"ccn-{name}").config for name in ("baseline", "no-ml", "no-ccn", "no-vat")}
    assert all(named(f"ccn-{name}").kind is CCN for name in off)
    assert [name for name, config in off.items() if not config.mutual] == ["no-ml"]
    assert [name for name, config in off.items() if not config.correction] == ["baseline", "no-ccn"]
    assert [name for name, c in off.items() if not c.adversarial] == ["baseline", "no-vat"]
    assert [name for name, config in off.items() if not config.entropy] == ["baseline"]


@pytest.mark.parametrize("name", ["muscle+", "mean_teacher", "", "muscle+ccn", "muscle+supervised"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="algorithm: unknown name"):
        named(name)
