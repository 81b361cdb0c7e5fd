"""The baseline sees the weak view of the labeled rows, and nothing else."""

import torch
import torch.nn.functional as F

from fastssl.algorithms.base import Batch
from fastssl.algorithms.supervised import Supervised, SupervisedConfig
from fastssl.models import build_model

LABELS = torch.tensor([0, 4, 2])


def test_loss_is_the_cross_entropy_of_the_labeled_weak_views():
    views = torch.randn(2, 8, 1, 8, 8, requires_grad=True)
    network = build_model("small_cnn", 1, 5).eval()  # eval: batch norm must not tie rows together
    loss = Supervised(network, SupervisedConfig()).loss(
        Batch(views, LABELS, torch.arange(views.shape[1]))
    )
    torch.testing.assert_close(loss.total, F.cross_entropy(network(views[0, :3])[0], LABELS))
    assert torch.equal(loss.terms["supervised"], loss.total.detach())

    loss.total.backward()
    seen = views.grad.flatten(2).abs().sum(2) > 0
    assert seen[0, :3].all()
    assert not seen[0, 3:].any()
    assert not seen[1].any()


def test_the_network_is_the_one_predictor():
    algorithm = Supervised(build_model("small_cnn", 1, 5), SupervisedConfig()).eval()
    images = torch.randn(4, 1, 8, 8)
    (name, predict), *others = algorithm.predictors().items()
    assert (name, others) == ("network", [])
    assert torch.equal(predict(images), algorithm.network(images)[0])
