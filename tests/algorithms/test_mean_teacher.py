"""Mean Teacher's teacher; its loss is in test_compositions.

V views, B rows of which L are labeled, C classes.
"""

import copy
import math

import pytest
import torch

from fastssl.algorithms.base import Batch, State
from fastssl.algorithms.mean_teacher import MeanTeacher, MeanTeacherConfig
from fastssl.errors import InputError
from fastssl.models import build_model

B, L, C = 10, 4, 5
LABELS = torch.tensor([0, 4, 2, 2])


def make(**values):
    """The algorithm in float64, its teacher some updates away from its student."""
    algorithm = MeanTeacher(build_model("small_cnn", 1, C), MeanTeacherConfig(**values))
    with torch.no_grad():
        for parameter in algorithm.network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return algorithm.double()


def make_batch(algorithm):
    views = 1 + algorithm.hard_views + algorithm.teacher_views
    return Batch(torch.randn(views, B, 1, 8, 8, dtype=torch.float64), LABELS, torch.arange(B))


def test_consistency_moves_the_student_and_not_the_teacher():
    algorithm = make()
    batch = make_batch(algorithm)
    algorithm.loss(batch).total.backward()
    supervised_only = make()
    supervised_only.load_state_dict(algorithm.state_dict())
    supervised_only.consistency_weight.zero_()
    supervised_only.loss(batch).total.backward()
    pairs = zip(algorithm.network.parameters(), supervised_only.network.parameters(), strict=True)
    assert any((ours.grad - without.grad).abs().max() > 1e-6 for ours, without in pairs)
    assert not any(p.requires_grad or p.grad is not None for p in algorithm.teacher.parameters())


def test_the_ramp_ends_at_the_weight():
    algorithm = make(weight=100.0, ramp_epochs=5.0)
    found = []
    for epoch in range(7):
        algorithm.before_epoch(State(step=0, epoch=epoch))
        found.append(algorithm.consistency_weight.item())
    assert found[0] == pytest.approx(100 * math.exp(-5))
    assert found == sorted(found)
    assert found[5:] == [100.0, 100.0]


def test_the_teacher_is_the_average_of_ten_students():
    """θ'_10 = Π μ θ'_0 + Σ_n (1 - μ_n) Π_{m>n} μ_m θ_n, of which the first four make a mean."""
    decay = 0.8
    algorithm = make(decay=decay)
    students = [[p.clone() for p in algorithm.teacher.parameters()]]
    for step in range(1, 11):
        with torch.no_grad():
            for parameter in algorithm.network.parameters():
                parameter += torch.randn_like(parameter)
        students.append([p.detach().clone() for p in algorithm.network.parameters()])
        algorithm.after_step(State(step=step, epoch=0))
    # μ_n = n / (n + 1) up to n = 4, where it is 0.8, so that the first five count the same.
    weights = [decay**6 / 5] * 5 + [(1 - decay) * decay ** (10 - n) for n in range(5, 11)]
    assert sum(weights) == pytest.approx(1)
    for ours, *each in zip(algorithm.teacher.parameters(), *students, strict=True):
        expected = sum(w * p for w, p in zip(weights, each, strict=True))
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_the_teachers_batch_norm_has_statistics_of_its_own():
    algorithm = make()
    before = [b.clone() for b in algorithm.teacher.network.buffers()]
    batch = make_batch(algorithm)
    alone = copy.deepcopy(algorithm.teacher)
    alone(batch.views[-1])
    algorithm.loss(batch)
    after = list(algorithm.teacher.network.buffers())
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    for ours, theirs in zip(after, alone.network.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_teacher_is_evaluated():
    algorithm = make().eval()
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    assert list(algorithm.predictors()) == ["teacher", "student"]
    assert torch.equal(algorithm.predict(images), algorithm.teacher(images)[0])
    assert not torch.equal(algorithm.predict(images), algorithm.predictors()["student"](images))


@pytest.mark.parametrize(
    "values", [{"weight": -1.0}, {"weight": float("inf")}, {"ramp_epochs": -1.0}, {"decay": 1.0}]
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        MeanTeacherConfig(**values)
