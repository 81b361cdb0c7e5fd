"""MUSCLE's loss against the paper's equations, written out again in plain loops.

V views, B rows of which L are labeled, C classes.
"""

import copy

import pytest
import torch

from fastssl.algorithms.base import Batch
from fastssl.algorithms.muscle import Muscle, MuscleConfig
from fastssl.errors import InputError
from fastssl.models import build_model

V, B, L, C = 4, 10, 4, 5


@pytest.fixture
def batch():
    return Batch(torch.randn(V, B, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 4, 2, 2]))


@pytest.fixture
def network():
    return build_model("small_cnn", 1, C).double()


def equations(network, batch, alpha):
    """L = l_s - alpha * I, MUSCLE eq. 4 to 7, sums as the paper writes them."""
    p = torch.softmax(network(batch.views.reshape(V * B, 1, 8, 8))[0], 1).view(V, B, C)
    l_s = -sum(p[0, i, y].log() for i, y in enumerate(batch.labels.tolist())) / L
    Q = torch.zeros(C, C, dtype=torch.float64)
    for hard in range(1, V):
        for i in range(B):
            Q = Q + torch.outer(p[0, i], p[hard, i]) / ((V - 1) * B)
    P = (Q + Q.T) / 2
    information = 0.0
    for c in range(C):
        for d in range(C):
            information = information + P[c, d] * (P[c, d] / (P[c].sum() * P[:, d].sum())).log()
    return l_s - alpha * information, l_s, information


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_loss_and_gradient_are_the_papers(network, batch, alpha):
    algorithm = Muscle(copy.deepcopy(network), MuscleConfig(alpha=alpha))
    loss = algorithm.loss(batch)
    total, l_s, information = equations(network, batch, alpha)
    torch.testing.assert_close(loss.total, total, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.terms["supervised"], l_s, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.terms["mutual_information"], information, rtol=1e-9, atol=1e-12)

    loss.total.backward()
    total.backward()
    for ours, theirs in zip(algorithm.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-11)


def test_all_views_are_one_batch_norm_batch(network, batch):
    algorithm = Muscle(copy.deepcopy(network), MuscleConfig())
    algorithm.loss(batch)
    network(batch.views.flatten(0, 1))
    for (name, ours), theirs in zip(
        algorithm.network.named_buffers(), network.buffers(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_unlabeled_rows_move_the_network(network, batch):
    algorithm = Muscle(network, MuscleConfig())
    views = batch.views.clone().requires_grad_()
    algorithm.loss(Batch(views, batch.labels)).total.backward()
    assert (views.grad[:, L:].flatten(2).abs().sum(2) > 0).all()


def test_terms_are_detached(network, batch):
    terms = Muscle(network, MuscleConfig()).loss(batch).terms
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [({"alpha": -1.0}, "alpha"), ({"alpha": float("nan")}, "alpha"), ({"hard_views": 0}, "views")],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        MuscleConfig(**values)
