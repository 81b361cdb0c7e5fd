"""What an evaluation measures beside accuracy, against sums in plain loops."""

import math

import pytest
import torch
from probe import Probe

from fastssl.training.evaluation import TOP_CLASSES, evaluate_on


def test_groups_are_measured_apart():
    logits = {name: torch.randn(7, 4) for name in ("teacher", "student")}
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    first = torch.tensor([1, 1, 0, 0, 1, 0, 0], dtype=torch.bool)
    groups = {"first": first, "rest": ~first, "none": torch.zeros(7, dtype=torch.bool)}
    found = evaluate_on(Probe(), logits, labels, groups)
    assert found.counts == {"images_of_first": 3, "images_of_rest": 4}
    assert "top5" not in found.measures
    for name, values in logits.items():
        p = values.double().softmax(1)
        entropy = [-sum(x * math.log(x) for x in row) for row in p.tolist()]
        right = [int(row.argmax()) == y for row, y in zip(p, labels.tolist(), strict=True)]
        assert found.accuracies[name] == pytest.approx(sum(right) / 7)
        assert found.measures["entropy"][name] == pytest.approx(sum(entropy) / 7, rel=1e-5)
        for group, rows in (("first", [0, 1, 4]), ("rest", [2, 3, 5, 6])):
            n = len(rows)
            accuracy = found.measures[f"accuracy_{group}"][name]
            assert accuracy == pytest.approx(sum(right[i] for i in rows) / n)
            mean = sum(entropy[i] for i in rows) / n
            assert found.measures[f"entropy_{group}"][name] == pytest.approx(mean, rel=1e-5)
    assert not any("none" in measure for measure in found.measures)


def test_top_5_of_many_classes():
    labels = torch.arange(9)
    logits = torch.zeros(9, TOP_CLASSES)
    logits += torch.arange(TOP_CLASSES) / 1000  # others come before the label, the last one first
    for i in range(9):  # its label has rank i
        logits[i, i] = 1.0
        logits[i, TOP_CLASSES - i :] = 2.0
    found = evaluate_on(Probe(), {"network": logits}, labels)
    assert found.accuracies["network"] == pytest.approx(1 / 9)
    assert found.measures == {"top5": {"network": pytest.approx(5 / 9)}}
    assert evaluate_on(Probe(), {"network": logits[:, 1:]}, labels).measures == {}
