"""NT-Xent as a term on any algorithm, against SimCLR's equation in plain loops.

V views, B rows of which L are labeled, C classes, P projected features.
"""

import copy
import math

import pytest
import torch
from plain_losses import information

from fastssl.algorithms import named
from fastssl.algorithms.base import Batch, NoSettings
from fastssl.algorithms.contrastive import Contrastive
from fastssl.algorithms.mean_teacher import MeanTeacher, MeanTeacherConfig
from fastssl.algorithms.muscle import Muscle
from fastssl.algorithms.supervised import Supervised, SupervisedConfig
from fastssl.algorithms.unsupervised import Unsupervised
from fastssl.errors import InputError
from fastssl.models import build_model

V, B, L, C = 4, 6, 4, 5


@pytest.fixture
def batch():
    return Batch(
        torch.randn(V, B, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 4, 2, 2]), torch.arange(B)
    )


@pytest.fixture
def network():
    return build_model("small_cnn", 1, C).double()


def nt_xent(projected, temperature):
    """The mean over hard views of SimCLR's eq. 1, for projected features [V,B,P]."""
    V, B, _ = projected.shape
    total = 0.0
    for hard in range(1, V):
        rows = [*projected[0], *projected[hard]]
        rows = [row / row.square().sum().sqrt() for row in rows]
        for i in range(2 * B):
            pair = (i + B) % (2 * B)
            others = [(rows[i] @ rows[j] / temperature).exp() for j in range(2 * B) if j != i]
            chosen = (rows[i] @ rows[pair] / temperature).exp()
            total = total - (chosen / sum(others)).log() / (2 * B * (V - 1))
    return total


@pytest.mark.parametrize("name", ["contrastive", "muscle+contrastive"])
@pytest.mark.parametrize("base", ["none", "supervised"])
def test_loss_and_gradient_are_the_papers(network, batch, name, base):
    """Figure 2, c (with l_s) and d (without)."""
    kind, config = {
        "none": (Unsupervised, NoSettings()),
        "supervised": (Supervised, SupervisedConfig()),
    }[base]
    muscle = Muscle(alpha=0.7) if name.startswith("muscle") else None
    if base == "none":  # no row is labeled
        batch = Batch(batch.views, batch.labels[:0], batch.index)
    algorithm = kind(copy.deepcopy(network), config, muscle)
    algorithm.add_contrastive(Contrastive(weight=0.3, temperature=0.2, projection=7, hard_views=3))
    loss = algorithm.loss(batch)

    _, features = network(batch.views.flatten(0, 1))
    first, _, second = algorithm.projection
    hidden = (features @ first.weight.T + first.bias).clamp(min=0)
    projected = (hidden @ second.weight.T + second.bias).unflatten(0, (V, B))
    p = torch.softmax(network.head(features), 1).unflatten(0, (V, B))
    total = 0.3 * nt_xent(projected, 0.2)
    if base == "supervised":
        total = total - sum(p[0, i, y].log() for i, y in enumerate(batch.labels.tolist())) / L
    if muscle:
        total = total - 0.7 * information(p)
    torch.testing.assert_close(loss.total, total, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.terms["contrastive"], nt_xent(projected, 0.2))
    assert not any(term.requires_grad for term in loss.terms.values())

    own, heads = list(algorithm.network.parameters()), list(algorithm.projection.parameters())
    loss.total.backward()
    ours = [p.grad for p in (*own, *heads)]
    algorithm.zero_grad()
    total.backward()
    theirs = [p.grad for p in (*network.parameters(), *heads)]
    assert sum(x is not None and bool(x.abs().sum() > 0) for x in ours) > len(heads)
    for mine, other in zip(ours, theirs, strict=True):
        if mine is None or other is None:  # without l_s and MI nothing reaches the head
            assert mine is other is None
            continue
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-11)


def test_it_joins_an_algorithm_with_a_teacher(network, batch):
    views = torch.cat([batch.views[:2], batch.views[3:]])  # weak, hard, the teacher's
    batch = Batch(views, batch.labels, batch.index)
    plain, joined = (MeanTeacher(copy.deepcopy(network), MeanTeacherConfig()) for _ in range(2))
    joined.add_contrastive(Contrastive(weight=2.0))
    assert (plain.hard_views, joined.hard_views) == (0, 1)
    loss = joined.loss(batch)
    rest = loss.total - 2 * loss.terms["contrastive"]
    own = loss.terms["supervised"] + joined.consistency_weight * loss.terms["consistency"]
    torch.testing.assert_close(rest, own)
    assert "projection.0.weight" in joined.state_dict()


def test_the_larger_number_of_hard_views_holds(network):
    for muscle, hard_views, expected in ((None, 2, 2), (Muscle(), 1, 3), (Muscle(), 5, 5)):
        algorithm = Supervised(network, SupervisedConfig(), muscle)
        algorithm.add_contrastive(Contrastive(hard_views=hard_views))
        assert algorithm.hard_views == expected
        assert algorithm.needs_unlabeled


def test_figure_2_by_name():
    terms = {
        name: (named(name).kind, named(name).muscle, named(name).contrastive)
        for name in ("supervised", "supervised+contrastive", "muscle+supervised+contrastive")
    }
    assert terms["supervised"] == (Supervised, None, None)
    assert terms["supervised+contrastive"] == (Supervised, None, Contrastive())
    assert terms["muscle+supervised+contrastive"] == (Supervised, Muscle(), Contrastive())
    assert named("contrastive").kind is named("muscle+contrastive").kind is Unsupervised
    assert named("muscle+contrastive").muscle == Muscle()


@pytest.mark.parametrize(
    "values",
    [
        {"weight": -1.0},
        {"weight": math.inf},
        {"temperature": 0.0},
        {"projection": 0},
        {"hard_views": 0},
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(InputError, match=f"contrastive.{next(iter(values))}"):
        Contrastive(**values)
