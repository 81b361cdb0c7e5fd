"""MUSCLE's term against the paper's equations, written out again in plain loops.

V views, B rows of which L are labeled, C classes.
"""

import copy
import math

import pytest
import torch
from plain_losses import information, probabilities
from torch import nn

from fastssl.algorithms.base import Algorithm, Batch, State
from fastssl.algorithms.loss import Loss
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.supervised import Supervised, SupervisedConfig
from fastssl.errors import InputError
from fastssl.models import build_model

V, B, L, C = 4, 10, 4, 5


@pytest.fixture
def batch():
    return Batch(
        torch.randn(V, B, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 4, 2, 2]), torch.arange(B)
    )


@pytest.fixture
def network():
    return build_model("small_cnn", 1, C).double()


def muscle(network, **values):
    return Supervised(network, SupervisedConfig(), Muscle(**values))


def equations(network, batch, alpha):
    """L = l_s - alpha * I, MUSCLE eq. 4 to 7, sums as the paper writes them."""
    p = probabilities(network, batch.views)
    l_s = -sum(p[0, i, y].log() for i, y in enumerate(batch.labels.tolist())) / L
    return l_s - alpha * information(p), l_s, information(p)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_loss_and_gradient_are_the_papers(network, batch, alpha):
    algorithm = muscle(copy.deepcopy(network), alpha=alpha)
    loss = algorithm.loss(batch)
    total, l_s, mutual_information = equations(network, batch, alpha)
    torch.testing.assert_close(loss.total, total, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.terms["supervised"], l_s, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        loss.terms["mutual_information"], mutual_information, rtol=1e-9, atol=1e-12
    )

    loss.total.backward()
    total.backward()
    for ours, theirs in zip(algorithm.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-11)


def test_the_hard_views_count_for_the_labels_where_that_is_wanted(network, batch):
    algorithm = muscle(copy.deepcopy(network), supervise_hard=True)
    p = probabilities(network, batch.views)
    l_s = -sum(p[v, i, y].log() for v in range(V) for i, y in enumerate(batch.labels)) / (V * L)
    loss = algorithm.loss(batch)
    torch.testing.assert_close(loss.terms["supervised"], l_s, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.total, l_s - information(p), rtol=1e-10, atol=1e-12)


def test_the_weight_rises_in_the_first_epochs(network, batch):
    algorithm = muscle(network, alpha=0.7, ramp_epochs=8)
    for epoch in (0, 2, 8, 20):
        algorithm.before_epoch(State(step=0, epoch=epoch))
        loss = algorithm.loss(batch)
        weight = 0.7 * math.exp(-5 * (1 - min(epoch, 8) / 8) ** 2)
        expected = loss.terms["supervised"] - weight * loss.terms["mutual_information"]
        torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=1e-14)
    again = muscle(copy.deepcopy(network), alpha=0.7, ramp_epochs=8)
    assert again.muscle_weight == pytest.approx(0.7 * math.exp(-5))  # as before any epoch


def test_all_views_are_one_batch_norm_batch(network, batch):
    algorithm = muscle(copy.deepcopy(network))
    algorithm.loss(batch)
    network(batch.views.flatten(0, 1))
    for (name, ours), theirs in zip(
        algorithm.network.named_buffers(), network.buffers(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_unlabeled_rows_move_the_network(network, batch):
    views = batch.views.clone().requires_grad_()
    muscle(network).loss(Batch(views, batch.labels, batch.index)).total.backward()
    assert (views.grad[:, L:].flatten(2).abs().sum(2) > 0).all()


def test_terms_are_detached(network, batch):
    terms = muscle(network).loss(batch).terms
    assert not any(term.requires_grad for term in terms.values())


def test_a_persons_own_algorithm_takes_the_term(network, batch):
    class Entropy(Algorithm):
        def objective(self, logits, batch):
            total = -(logits[0].softmax(1) * logits[0].log_softmax(1)).sum(1).mean()
            return Loss(total, {"entropy": total.detach()})

    assert isinstance(network, nn.Module)
    loss = Entropy(network, None, Muscle(alpha=0.5)).loss(batch)
    own, term = loss.terms["entropy"], loss.terms["mutual_information"]
    torch.testing.assert_close(loss.total, own - 0.5 * term)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"hard_views": 0}, "views"),
        ({"ramp_epochs": -1.0}, "ramp_epochs"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Muscle(**values)
