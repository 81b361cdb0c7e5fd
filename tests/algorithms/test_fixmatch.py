"""FixMatch's loss, alone and under MUSCLE, against plain loops; and the average it evaluates.

V views, B rows of which L are labeled, C classes.
"""

import copy

import pytest
import torch
from plain_losses import confident_cross_entropy, cross_entropy_sum, information, probabilities

from fastssl.algorithms.base import Batch, State
from fastssl.algorithms.fixmatch import FixMatch, FixMatchConfig
from fastssl.algorithms.muscle import Muscle
from fastssl.errors import InputError
from fastssl.models import build_model

B, L, C = 10, 4, 5
LABELS = torch.tensor([0, 4, 2, 2])
MUSCLES = pytest.mark.parametrize("muscle", [None, Muscle(alpha=0.7)], ids=["alone", "muscle"])


def make(muscle=None, **values):
    return FixMatch(build_model("small_cnn", 1, C), FixMatchConfig(**values), muscle).double()


@MUSCLES
@pytest.mark.parametrize("kept", [0, 3, B - L])
def test_loss_and_gradient_are_the_papers(muscle, kept):
    network = build_model("small_cnn", 1, C).double()
    student = copy.deepcopy(network)
    batch = Batch(
        torch.randn(4 if muscle else 2, B, 1, 8, 8, dtype=torch.float64), LABELS, torch.arange(B)
    )

    p = probabilities(student, batch.views)
    confidences = p[0, L:].amax(1).sort(descending=True).values
    threshold = confidences[kept - 1].item() if kept else 1.0
    l_s = cross_entropy_sum(p, LABELS) / L
    l_p, found = confident_cross_entropy(p, L, threshold - 1e-9)
    assert found == kept / (B - L)
    total = l_s + 0.5 * l_p
    if muscle is not None:
        total = total - muscle.alpha * information(p)

    config = FixMatchConfig(threshold=max(0.0, threshold - 1e-9), weight=0.5)
    algorithm = FixMatch(network, config, muscle)
    loss = algorithm.loss(batch)
    torch.testing.assert_close(loss.total, total, rtol=1e-9, atol=1e-11)
    assert loss.terms["kept"].item() == pytest.approx(kept / (B - L))
    loss.total.backward()
    total.backward()
    for ours, theirs in zip(algorithm.network.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-10)


def test_the_average_is_evaluated_with_the_students_statistics():
    algorithm = make(decay=0.5)
    algorithm.loss(Batch(torch.randn(2, B, 1, 8, 8, dtype=torch.float64), LABELS, torch.arange(B)))
    with torch.no_grad():
        for parameter in algorithm.network.parameters():
            parameter += torch.randn_like(parameter)
    before = [p.clone() for p in algorithm.average.parameters()]
    algorithm.after_step(State(step=1, epoch=0))
    students = list(algorithm.network.parameters())
    for ours, old, new in zip(algorithm.average.parameters(), before, students, strict=True):
        torch.testing.assert_close(ours, (old + new) / 2)
    pairs = zip(algorithm.average.network.buffers(), algorithm.network.buffers(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)

    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    algorithm.eval()
    assert list(algorithm.predictors()) == ["average", "student"]
    assert torch.equal(algorithm.predict(images), algorithm.average(images)[0])


@pytest.mark.parametrize(
    "values", [{"weight": -1.0}, {"threshold": 1.5}, {"threshold": float("nan")}, {"decay": 1.0}]
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        FixMatchConfig(**values)
