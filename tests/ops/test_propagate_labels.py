import math

import pytest
import torch

from fastssl.ops import propagate_labels
from fastssl.ops.propagate_labels import propagate_labels_reference


def clusters(N: int, C: int, known: int, spread: float = 0.5, dtype=torch.float32):
    """Features [N, 16] around C directions; labels with `known` a class; the classes."""
    classes = torch.arange(N) % C
    features = torch.randn(C, 16)[classes] + spread * torch.randn(N, 16)
    labels = torch.where(torch.arange(N) < known * C, classes, -1)
    return features.to(dtype), labels, classes


def check(result, expected):
    assert torch.equal(result.labels, expected.labels)
    torch.testing.assert_close(result.weights, expected.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result.class_weights, expected.class_weights)


@pytest.mark.parametrize(("N", "C", "k"), [(60, 2, 5), (400, 10, 20), (300, 40, 10)])
def test_is_what_the_reference_gives(device, N, C, k):
    features, labels, classes = clusters(N, C, 2)
    features, labels = features.to(device), labels.to(device)
    result = propagate_labels(features, labels, k=k)
    check(result, propagate_labels_reference(features, labels, k=k))
    assert (result.labels.cpu() == classes).float().mean() > 0.7


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_of_features(device, dtype):
    features, labels, _ = clusters(120, 4, 3, dtype=dtype)
    features, labels = features.to(device), labels.to(device)
    check(
        propagate_labels(features, labels, k=8),
        propagate_labels(features.float(), labels, k=8),
    )


def test_options_reach_the_graph_and_the_diffusion(device):
    features, labels, _ = (x.to(device) for x in clusters(80, 4, 2, spread=1.0))
    plain = propagate_labels(features, labels, k=8)
    for option in ({"exponent": 0.5}, {"alpha": 0.5}, {"max_iterations": 2}, {"tolerance": 0.1}):
        result = propagate_labels(features, labels, k=8, **option)
        check(result, propagate_labels_reference(features, labels, k=8, **option))
        assert not torch.allclose(result.weights, plain.weights)


def test_weights_are_what_the_method_says(device):
    """Known rows weigh 1 and keep their label; the others lie between 0 and 1."""
    features, labels, _ = (x.to(device) for x in clusters(200, 5, 3))
    result = propagate_labels(features, labels, k=10)
    assert torch.equal(result.labels[labels >= 0], labels[labels >= 0])
    assert (result.weights[labels >= 0] == 1).all()
    assert ((result.weights >= 0) & (result.weights <= 1)).all()
    counts = result.labels.bincount(minlength=5)
    torch.testing.assert_close(result.class_weights, 200 / 5 / counts)


@pytest.fixture
def islands():
    """Two clusters that no edge joins, the second without labels, and a row of zeros."""
    features = torch.zeros(41, 8)
    features[:20, :4] = torch.rand(20, 4) + 0.1
    features[20:40, 4:] = torch.rand(20, 4) + 0.1
    labels = torch.full((41,), -1)
    labels[:4] = torch.tensor([0, 1, 0, 1])
    return features, labels


def test_rows_that_no_label_reaches(device, islands):
    features, labels = (x.to(device) for x in islands)
    result = propagate_labels(features, labels, k=5, num_classes=3)
    assert (result.weights[20:] == 0).all()
    assert (result.labels[20:] == 0).all()
    assert (result.weights[:20] > 0).any()
    assert result.weights.isfinite().all()
    counts = result.labels[:20].bincount(minlength=3).cpu()
    assert result.class_weights.tolist() == [
        pytest.approx(41 / 3 / n) if n else 0 for n in counts.tolist()
    ]
    check(result, propagate_labels_reference(features, labels, k=5, num_classes=3))


def test_a_class_without_labels_is_given_to_none(device):
    features, labels, _ = (x.to(device) for x in clusters(90, 3, 3))
    labels[labels == 1] = -1
    result = propagate_labels(features, labels, k=8, num_classes=4)
    assert set(result.labels.unique().tolist()) == {0, 2}
    assert result.class_weights[[1, 3]].tolist() == [0, 0]
    assert (result.class_weights[[0, 2]] > 0).all()


def test_one_class(device):
    features, labels, _ = (x.to(device) for x in clusters(30, 1, 2))
    result = propagate_labels(features, labels, k=5)
    assert (result.labels == 0).all()
    assert (result.weights == 1).all()
    assert result.class_weights.tolist() == [1]


def test_all_labels_known(device):
    features, _, classes = (x.to(device) for x in clusters(40, 4, 1))
    result = propagate_labels(features, classes, k=5)
    assert torch.equal(result.labels, classes)
    assert (result.weights == 1).all()


def test_nothing_is_certain(device):
    """Rows alike to both classes: their entropy is ln 2, their weight 0, and nothing is NaN."""
    features = torch.ones(12, 3, device=device)
    labels = torch.full((12,), -1, device=device)
    labels[:2] = torch.tensor([0, 1])
    result = propagate_labels(features, labels, k=11)
    assert result.weights.isfinite().all()
    assert result.weights[:2].tolist() == [1, 1]
    assert math.isfinite(result.class_weights.sum())


def test_refusals():
    features, labels, _ = clusters(20, 2, 2)
    with pytest.raises(ValueError, match="labels holds no known label"):
        propagate_labels(features, torch.full((20,), -1), k=5)
    with pytest.raises(ValueError, match="labels holds -2"):
        propagate_labels(features, labels - 1, k=5)
    with pytest.raises(ValueError, match="labels holds 1; expected below num_classes 1"):
        propagate_labels(features, labels, k=5, num_classes=1)
    with pytest.raises(ValueError, match=r"features is \[20, 16\] and labels \[19\]"):
        propagate_labels(features, labels[:-1], k=5)
    with pytest.raises(ValueError, match="k is 20"):
        propagate_labels(features, labels, k=20)
    with pytest.raises(ValueError, match="NaN"):
        propagate_labels(features.index_fill(0, torch.tensor([3]), torch.nan), labels, k=5)
    with pytest.raises(TypeError, match=r"labels is torch\.int32"):
        propagate_labels(features, labels.int(), k=5)
