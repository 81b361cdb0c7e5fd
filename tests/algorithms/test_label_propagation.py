"""Label propagation's second stage: what its buffers hold, and which images count.

N training images, D features, C classes.
"""

import copy
import math

import pytest
import torch
from torch import nn

from fastssl.algorithms.base import Batch, State
from fastssl.algorithms.label_propagation import LabelPropagation, LabelPropagationConfig
from fastssl.algorithms.state import TrainingImages
from fastssl.algorithms.supervised import Supervised, SupervisedConfig
from fastssl.errors import InputError
from fastssl.models import Backbone, build_model

N, D, C, K = 14, 6, 3, 4
SECOND = State(step=0, epoch=0, stage=1)


class Identity(nn.Module):
    """A network whose features are its images, and that says which mode it was used in."""

    modes: list[bool]

    def __init__(self, num_classes=C):
        super().__init__()
        self.num_classes = num_classes
        self.modes = []

    def forward(self, images):
        self.modes.append(self.training)
        features = images.flatten(1)
        return features.new_zeros(len(features), self.num_classes), features


def second_stage(features, labels, *, index=None, num_images=None, num_classes=C, **values):
    """A `LabelPropagation` in float64 that has propagated labels [M] by features [M,D]."""
    index = torch.arange(len(features)) if index is None else index
    config = LabelPropagationConfig(**({"k": K} | values))
    propagation = LabelPropagation(config, num_images or len(features)).double()
    images = TrainingImages(index, labels, lambda: features.split(5))
    propagation.before_epoch(
        State(step=0, epoch=0, stage=1, images=images), Identity(num_classes).double()
    )
    return propagation


def iscen(features, labels):
    """Labels, w and zeta by the paper's equations in loops, the system solved densely."""
    f = [row / row.norm() for row in features]
    similarity = torch.tensor([[float(a @ b) for b in f] for a in f], dtype=torch.float64)
    similarity.fill_diagonal_(-math.inf)
    A = torch.zeros(N, N, dtype=torch.float64)
    for i in range(N):
        for j in similarity[i].topk(K).indices.tolist():
            A[i, j] = max(float(similarity[i, j]), 0.0) ** 3
    W = A + A.T
    d = W.sum(1)
    for i in range(N):
        for j in range(N):
            W[i, j] = W[i, j] / math.sqrt(d[i] * d[j]) if d[i] and d[j] else 0.0
    Y = torch.zeros(N, C, dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        if label >= 0:
            Y[i, label] = 1 / int((labels == label).sum())
    F = torch.linalg.solve(torch.eye(N, dtype=torch.float64) - 0.99 * W, Y).clamp_min(0)
    z = F / F.sum(1, keepdim=True)
    certainty = [1 + sum(float(p) * math.log(p) for p in row if p > 0) / math.log(C) for row in z]
    found = [int(y) if y >= 0 else int(row.argmax()) for y, row in zip(labels, z, strict=True)]
    w = [
        1.0 if y >= 0 else value / max(certainty)
        for y, value in zip(labels, certainty, strict=True)
    ]
    zeta = [(N / C) / found.count(c) for c in range(C)]
    return torch.tensor(found), torch.tensor(w), torch.tensor([zeta[c] for c in found])


def test_weights_are_the_papers():
    torch.manual_seed(3)
    features = torch.randn(N, D, dtype=torch.float64) + 1.0
    labels = torch.full((N,), -1)
    labels[:C] = torch.arange(C)
    propagation = second_stage(features, labels)
    found, w, zeta = iscen(features, labels)
    assert torch.equal(propagation.labels, found)
    torch.testing.assert_close(
        propagation.weights.float(), (w * zeta).float(), rtol=1e-4, atol=1e-5
    )
    assert propagation.mean_weight.item() == pytest.approx(w.mean().item(), rel=1e-4)
    assert propagation.reached == N


def test_the_loss_is_the_weighted_sum_over_the_whole_batch():
    features = torch.randn(N, D, dtype=torch.float64) + 1.0
    labels = torch.full((N,), -1)
    labels[:C] = torch.arange(C)
    propagation = second_stage(features, labels)
    index = torch.tensor([0, 5, 5, 13, 2])
    logits = torch.randn(5, C, dtype=torch.float64)
    expected = 0.0
    for row, i in zip(logits, index.tolist(), strict=True):
        expected -= propagation.weights[i] * row.softmax(0)[propagation.labels[i]].log() / 5
    torch.testing.assert_close(propagation(logits, index), expected)


def test_rows_that_no_label_reaches_and_classes_without_rows_count_nothing():
    features = torch.zeros(N, 2, dtype=torch.float64)
    features[:8, 0] = 1.0  # two islands, and labels on one alone
    features[8:, 1] = 1.0
    labels = torch.full((N,), -1)
    labels[:2] = torch.tensor([0, 1])
    propagation = second_stage(features, labels, num_classes=C)
    assert propagation.reached == 2 + int((propagation.weights[2:8] > 0).sum())
    assert torch.equal(propagation.weights[8:], torch.zeros(N - 8, dtype=torch.float64))
    assert propagation.weights.isfinite().all()
    logits = torch.randn(6, C, dtype=torch.float64, requires_grad=True)
    loss = propagation(logits, torch.arange(8, 14))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_the_weight_of_a_class_ends_where_it_is_cut_off():
    features = torch.eye(2, dtype=torch.float64)[torch.tensor([0] * 2 + [1] * (N - 2))]
    labels = torch.tensor([0, -1, 1] + [-1] * (N - 3))
    free, cut = (
        second_stage(features, labels, num_classes=2, max_class_weight=most) for most in (None, 3.0)
    )
    assert torch.equal(free.labels, cut.labels)
    rare = free.labels == 0
    assert free.weights[rare].tolist() == [N / 2 / 2] * 2  # the formula's: 3.5
    assert cut.weights[rare].tolist() == [3.0] * 2
    assert torch.equal(free.weights[~rare], cut.weights[~rare])


def test_images_that_are_held_out_stay_out():
    features = torch.randn(10, D, dtype=torch.float64) + 1.0
    labels = torch.tensor([0, 1, 2] + [-1] * 7)
    index = torch.tensor([1, 2, 3, 5, 7, 8, 9, 11, 12, 13])
    propagation = second_stage(features, labels, index=index, num_images=N)
    alone = second_stage(features, labels)
    assert torch.equal(propagation.weights[index], alone.weights)
    assert torch.equal(propagation.labels[index], alone.labels)
    held_out = [i for i in range(N) if i not in index.tolist()]
    assert not propagation.weights[held_out].any()


def test_features_are_taken_in_evaluation_mode_and_training_goes_on():
    network = Identity()
    images = TrainingImages(
        torch.arange(N), torch.tensor([0, 1, 2] + [-1] * 11), lambda: torch.rand(N, D).split(5)
    )
    propagation = LabelPropagation(LabelPropagationConfig(k=K), N)
    propagation.before_epoch(State(step=0, epoch=0, stage=1, images=images), network)
    assert network.modes == [False] * 3
    assert network.training


def test_the_first_stage_looks_at_no_image():
    propagation = LabelPropagation(LabelPropagationConfig(), N)

    def unread():
        raise AssertionError

    images = TrainingImages(torch.arange(N), torch.zeros(N, dtype=torch.int64), unread)
    propagation.before_epoch(State(step=0, epoch=0, stage=0, images=images), Identity())
    assert propagation.terms() == {}


def test_the_first_stage_divides_by_the_batch():
    algorithm = Supervised(Identity(), SupervisedConfig(), None, N, LabelPropagationConfig(k=K))
    logits, labels = torch.randn(2, 6, C), torch.tensor([0, 2])
    batch = Batch(torch.empty(0), labels, torch.arange(6))
    expected = -sum(logits[0, i].log_softmax(0)[y] for i, y in enumerate(labels)) / 6
    torch.testing.assert_close(algorithm.supervised_loss(logits, batch), expected)


def test_a_loaded_state_is_in_the_stage_it_was_saved_in():
    features = torch.randn(N, D, dtype=torch.float64) + 1.0
    saved = second_stage(features, torch.tensor([0, 1, 2] + [-1] * 11))
    config = LabelPropagationConfig(k=K)
    loaded = LabelPropagation(config, N).double()
    loaded.load_state_dict(saved.state_dict())
    logits, index = torch.randn(5, C, dtype=torch.float64), torch.arange(5)
    assert torch.equal(loaded(logits, index), saved(logits, index))
    loaded.load_state_dict(LabelPropagation(config, N).double().state_dict())
    assert loaded.terms() == {}


def test_all_rows_go_through_the_network_in_the_second_stage_alone():
    network = build_model("small_cnn", 1, C).eval()
    algorithm = Supervised(network, SupervisedConfig(), None, N, LabelPropagationConfig(k=K))
    pixels = torch.rand(N, 1, 8, 8)
    images = TrainingImages(torch.arange(N), torch.tensor([0, 1, 2] + [-1] * 11), lambda: [pixels])
    assert algorithm.needs_unlabeled
    seen = []
    for stage in (0, 1):
        algorithm.before_epoch(State(step=0, epoch=0, stage=stage, images=images))
        views = torch.rand(1, 8, 1, 8, 8, requires_grad=True)
        algorithm.loss(Batch(views, torch.arange(3), torch.arange(8))).total.backward()
        seen.append((views.grad[0].flatten(1).abs().sum(1) > 0).tolist())
    assert seen == [[True] * 3 + [False] * 5, [True] * 8]


def test_the_first_stages_loss_is_the_bases():
    network = build_model("small_cnn", 1, C)
    views, labels = torch.randn(1, 8, 1, 8, 8), torch.arange(3)
    batch = Batch(views, labels, torch.arange(8))
    alone = Supervised(copy.deepcopy(network), SupervisedConfig()).loss(batch)
    first = Supervised(network, SupervisedConfig(), None, N, LabelPropagationConfig()).loss(batch)
    assert torch.equal(alone.total, first.total)


def test_the_second_stage_needs_the_images():
    propagation = LabelPropagation(LabelPropagationConfig(), N)
    with pytest.raises(ValueError, match=r"state\.images is None"):
        propagation.before_epoch(SECOND, Backbone(nn.Flatten(), D, C))


@pytest.mark.parametrize(
    "values",
    [
        {"first_stage": 1.1},
        {"first_stage": math.nan},
        {"k": 0},
        {"exponent": 0.0},
        {"alpha": 1.0},
        {"tolerance": -1e-6},
        {"max_iterations": 0},
        {"max_class_weight": 0.5},
        {"max_class_weight": math.inf},
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(InputError, match=rf"propagation\.{next(iter(values))}"):
        LabelPropagationConfig(**values)
