"""MUSCLE's own settings are reached by `--set`: what the ablations of figure 2, a and b, vary."""

import pytest
import torch

from fastssl.data.batches import TwoStreams
from fastssl.recipes import runs
from fastssl.recipes.experiment import configure


def started(changes, tmp_path, algorithm="muscle"):
    """A run of one step, with changes as the command line has them."""
    common = {"data.labels": "20", "steps": "1", "device": "cpu"}
    config = configure(algorithm, "digits", common | changes)
    return runs.start(config, tmp_path / "run")


@pytest.fixture
def batches(monkeypatch):
    """Every batch a run trains on."""
    at, seen = TwoStreams.at, []

    def watched(self, step):
        seen.append((self, *at(self, step)))
        return seen[-1][1:]

    monkeypatch.setattr(TwoStreams, "at", watched)
    return seen


@pytest.mark.parametrize(("labeled", "unlabeled"), [(16, 16), (8, 24), (24, 8)])
def test_the_batch_ratio(tmp_path, batches, labeled, unlabeled):
    rows = {"data.labeled_rows": str(labeled), "data.unlabeled_rows": str(unlabeled)}
    run = started(rows, tmp_path)
    runs.fit(run)
    ((_, views, labels, index),) = batches
    assert views.shape[:2] == (4, labeled + unlabeled)
    assert len(labels) == labeled
    known = torch.isin(index, torch.tensor(run.experiment.split.labeled))
    assert known.tolist() == [True] * labeled + [False] * unlabeled


@pytest.mark.parametrize("hard_views", [1, 5])
def test_the_number_of_hard_views(tmp_path, batches, hard_views):
    runs.fit(started({"muscle.hard_views": str(hard_views)}, tmp_path))
    ((_, views, *_),) = batches
    assert len(views) == 1 + hard_views


def test_what_the_hard_views_do(tmp_path, batches):
    runs.fit(started({"views.hard.rotate": "7"}, tmp_path))
    ((streams, *_),) = batches
    weak, *hard = streams.policies
    assert [policy.rotate for policy in hard] == [7.0] * 3
    assert weak.rotate == 15.0


@pytest.mark.parametrize(("text", "expected"), [("0", 0.0), ("0.3", 0.3), ("none", 0.5)])
@pytest.mark.parametrize("algorithm", ["muscle", "mean-teacher"])
def test_dropout_on_and_off(tmp_path, algorithm, text, expected):
    changes = {"model.name": "conv_large", "model.dropout": text}
    algorithm = started(changes, tmp_path, algorithm).experiment.algorithm
    layers = [part.p for part in algorithm.modules() if isinstance(part, torch.nn.Dropout)]
    assert set(layers) == {expected}


def test_the_contrastive_terms_settings(tmp_path):
    changes = {"contrastive.weight": "0.5", "contrastive.projection": "32"}
    run = started(changes, tmp_path, "muscle+supervised+contrastive")
    algorithm = run.experiment.algorithm
    assert (algorithm.contrastive.weight, algorithm.projection[-1].out_features) == (0.5, 32)
    trained = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in algorithm.projection.parameters()} <= trained
