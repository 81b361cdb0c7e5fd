"""Mean Teacher's loss, alone and under MUSCLE, against plain loops; and its teacher.

V views, B rows of which L are labeled, C classes.
"""

import copy
import math

import pytest
import torch
from plain_losses import information, probabilities

from fastssl.algorithms.base import Batch, State
from fastssl.algorithms.mean_teacher import MeanTeacher, MeanTeacherConfig
from fastssl.algorithms.muscle import Muscle
from fastssl.errors import InputError
from fastssl.models import build_model

B, L, C = 10, 4, 5
LABELS = torch.tensor([0, 4, 2, 2])
MUSCLES = pytest.mark.parametrize("muscle", [None, Muscle(alpha=0.7)], ids=["alone", "muscle"])


def make(muscle, **values):
    """The algorithm in float64, its teacher some updates away from its student."""
    algorithm = MeanTeacher(build_model("small_cnn", 1, C), MeanTeacherConfig(**values), muscle)
    with torch.no_grad():
        for parameter in algorithm.network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return algorithm.double()


def make_batch(algorithm):
    views = 1 + algorithm.hard_views + algorithm.teacher_views
    return Batch(torch.randn(views, B, 1, 8, 8, dtype=torch.float64), LABELS, torch.arange(B))


@MUSCLES
def test_loss_and_gradient_are_the_papers(muscle):
    algorithm = make(muscle, weight=30.0)
    algorithm.before_epoch(State(step=0, epoch=2))
    batch = make_batch(algorithm)
    student, teacher = copy.deepcopy(algorithm.network), copy.deepcopy(algorithm.teacher)

    p = probabilities(student, batch.views[:-1])
    q = torch.softmax(teacher(batch.views[-1])[0], 1)
    l_s = -sum(p[0, i, y].log() for i, y in enumerate(LABELS.tolist())) / B
    V = len(p)
    l_c = sum(((p[v, i] - q[i]) ** 2).sum() / C for v in range(V) for i in range(B)) / (V * B)
    total = l_s + 30.0 * math.exp(-5 * (1 - 2 / 5) ** 2) * l_c
    if muscle is not None:
        total = total - muscle.alpha * information(p)

    loss = algorithm.loss(batch)
    torch.testing.assert_close(loss.total, total, rtol=1e-7, atol=1e-10)  # the weight is float32
    torch.testing.assert_close(loss.terms["consistency"], l_c, rtol=1e-9, atol=1e-12)
    loss.total.backward()
    total.backward()
    for ours, theirs in zip(algorithm.network.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


def test_consistency_moves_the_student_and_not_the_teacher():
    algorithm = make(None)
    batch = make_batch(algorithm)
    algorithm.loss(batch).total.backward()
    supervised_only = make(None)
    supervised_only.load_state_dict(algorithm.state_dict())
    supervised_only.consistency_weight.zero_()
    supervised_only.loss(batch).total.backward()
    pairs = zip(algorithm.network.parameters(), supervised_only.network.parameters(), strict=True)
    assert any((ours.grad - without.grad).abs().max() > 1e-6 for ours, without in pairs)
    assert not any(p.requires_grad or p.grad is not None for p in algorithm.teacher.parameters())


def test_the_ramp_ends_at_the_weight():
    algorithm = make(None, weight=100.0, ramp_epochs=5.0)
    found = []
    for epoch in range(7):
        algorithm.before_epoch(State(step=0, epoch=epoch))
        found.append(algorithm.consistency_weight.item())
    assert found[0] == pytest.approx(100 * math.exp(-5))
    assert found == sorted(found)
    assert found[5:] == [100.0, 100.0]


def test_the_teacher_is_the_average_of_ten_students():
    algorithm = make(None, decay=0.8)
    expected = [p.clone() for p in algorithm.teacher.parameters()]
    for step in range(1, 11):
        mu = min(1 - 1 / (step + 1), 0.8)
        with torch.no_grad():
            for parameter in algorithm.network.parameters():
                parameter += torch.randn_like(parameter)
        students = algorithm.network.parameters()
        expected = [mu * e + (1 - mu) * s.detach() for e, s in zip(expected, students, strict=True)]
        algorithm.after_step(State(step=step, epoch=0))
    for ours, theirs in zip(algorithm.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_teachers_batch_norm_has_statistics_of_its_own():
    algorithm = make(None)
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
    algorithm = make(None).eval()
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
