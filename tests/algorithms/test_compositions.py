"""Every base, with and without MUSCLE and label propagation, against the papers' sums in loops.

V views, B rows of which L are labeled, N training images, C classes.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch
from plain_losses import (
    confident_cross_entropy,
    cross_entropy_sum,
    information,
    probabilities,
    squared_distance,
)

from fastssl.algorithms import ALGORITHMS
from fastssl.algorithms.base import Batch, State
from fastssl.algorithms.state import TrainingImages
from fastssl.models import build_model

B, L, C, N = 8, 4, 5, 24
LABELS = torch.tensor([0, 4, 2, 2])
ALPHA, BETA, LAMBDA = 0.7, 30.0, 0.6
COMPOSED = [name for name in ALGORITHMS if not name.startswith("ccn") and "contrastive" not in name]
CASES = [(name, 0) for name in COMPOSED]
CASES += [(name, 1) for name in COMPOSED if "label-propagation" in name]


def training_images():
    """N images of which the first L have labels."""
    images = torch.randn(N, 1, 8, 8, dtype=torch.float64)
    labels = torch.full((N,), -1)
    labels[:L] = LABELS
    return TrainingImages(torch.arange(N), labels, lambda: images.split(10))


def make(name, stage):
    """An algorithm in float64 with weights of its own, a teacher that is behind, in its stage."""
    known = ALGORITHMS[name]
    values = {}
    if "mean-teacher" in name:
        values = {"weight": BETA, "ramp_epochs": 5.0}
    if "fixmatch" in name:
        values = {"weight": LAMBDA}
    muscle = known.muscle and replace(known.muscle, alpha=ALPHA)
    propagation = known.propagation and replace(known.propagation, k=4)
    config = replace(known.config, **values)
    network = build_model("small_cnn", 1, C)
    algorithm = known.kind(network, config, muscle, N, propagation).double()
    with torch.no_grad():
        for parameter in algorithm.network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    algorithm.before_epoch(State(step=0, epoch=2, stage=stage, images=training_images()))
    return algorithm


def make_batch(algorithm):
    views = 1 + algorithm.hard_views + algorithm.teacher_views
    index = torch.cat([torch.arange(L), L + torch.randperm(N - L)[: B - L]])
    return Batch(torch.randn(views, B, 1, 8, 8, dtype=torch.float64), LABELS, index)


def keep_half(algorithm, batch):
    """Set FixMatch's threshold between the confidences of the unlabeled rows."""
    network = copy.deepcopy(algorithm.network)
    p = probabilities(network, batch.views[: 1 + algorithm.hard_views])
    threshold = p[0, L:].amax(1).sort().values[1:3].mean().item()
    algorithm.config = replace(algorithm.config, threshold=threshold)


def plain_loss(name, stage, algorithm, batch):
    """L = l_s - alpha I + the base's own term (MUSCLE eq. 7 and 8), and what the log must show."""
    views = batch.views[: 1 + algorithm.hard_views]
    labeled_alone = name == "supervised" or (name == "label-propagation" and stage == 0)
    rows = views[:, :L] if labeled_alone else views
    p = probabilities(algorithm.network, rows)
    terms = {}
    if stage == 1:
        kept = algorithm.propagation
        terms["supervised"] = (
            cross_entropy_sum(p, kept.labels[batch.index], kept.weights[batch.index]) / B
        )
    else:
        whole_batch = "mean-teacher" in name or "label-propagation" in name
        divisor = p.shape[1] if whole_batch else L
        terms["supervised"] = cross_entropy_sum(p, LABELS) / divisor
    total = terms["supervised"]
    if "mean-teacher" in name:
        q = torch.softmax(algorithm.teacher(batch.views[-1])[0], 1)
        terms["consistency"] = squared_distance(p, q)
        total = total + BETA * math.exp(-5 * (1 - 2 / 5) ** 2) * terms["consistency"]
    if "fixmatch" in name:
        terms["pseudo_label"], kept = confident_cross_entropy(p, L, algorithm.config.threshold)
        terms["kept"] = torch.tensor(kept)
        assert kept == 0.5
        total = total + LAMBDA * terms["pseudo_label"]
    if "muscle" in name:
        terms["mutual_information"] = information(p)
        total = total - ALPHA * terms["mutual_information"]
    return total, terms


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_loss_and_gradient_are_the_papers(name, stage):
    algorithm = make(name, stage)
    batch = make_batch(algorithm)
    if "fixmatch" in name:
        keep_half(algorithm, batch)
    by_loops = copy.deepcopy(algorithm)
    total, terms = plain_loss(name, stage, by_loops, batch)

    loss = algorithm.loss(batch)
    # The weight of the consistency is a float32 number on the device.
    torch.testing.assert_close(loss.total, total, rtol=1e-7, atol=1e-10)
    assert set(loss.terms) - set(terms) == ({"mean_weight", "reached"} if stage else set())
    for key, value in terms.items():
        expected = value.detach().to(loss.terms[key].dtype)
        torch.testing.assert_close(loss.terms[key], expected, rtol=1e-7, atol=1e-10)
    loss.total.backward()
    total.backward()
    moved = False
    pairs = zip(algorithm.network.parameters(), by_loops.network.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)
        moved = moved or bool(theirs.grad.any())
    assert moved


@pytest.mark.parametrize(("name", "stage"), [case for case in CASES if "mean-teacher" in case[0]])
def test_the_teachers_word_has_a_gradient(name, stage):
    algorithm = make(name, stage)
    batch = make_batch(algorithm)
    algorithm.loss(batch).total.backward()
    whole = [p.grad.clone() for p in algorithm.network.parameters()]
    algorithm.zero_grad()
    algorithm.consistency_weight.zero_()
    algorithm.loss(batch).total.backward()
    without = [p.grad for p in algorithm.network.parameters()]
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(whole, without, strict=True))
