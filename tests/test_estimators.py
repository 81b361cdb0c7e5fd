"""LabelDiffusion keeps scikit-learn's conventions and is what the ops give."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.semi_supervised import LabelSpreading
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastssl import LabelDiffusion
from fastssl.ops import propagate_labels


@pytest.mark.filterwarnings("ignore:LabelDiffusion")  # few samples, and classes -1 and 1
@parametrize_with_checks([LabelDiffusion()])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture
def clusters():
    """X [120, 8], y with three known labels a class, the classes 0, 1, 2."""
    random = np.random.default_rng(0)
    classes = np.arange(120) % 3
    X = random.normal(size=(3, 8))[classes] + 0.3 * random.normal(size=(120, 8))
    return X, np.where(np.arange(120) < 9, classes, -1), classes


def test_is_what_propagate_labels_gives(clusters):
    X, y, classes = clusters
    options = {"exponent": 2.0, "alpha": 0.9}
    model = LabelDiffusion(7, **options, tol=1e-5, max_iter=15).fit(X, y)
    given = torch.from_numpy(X), torch.from_numpy(y)
    expected = propagate_labels(*given, k=7, **options, tolerance=1e-5, max_iterations=15)
    assert model.transduction_.tolist() == expected.labels.tolist()
    torch.testing.assert_close(torch.from_numpy(model.weights_), expected.weights)
    np.testing.assert_allclose(model.label_distributions_.sum(1), 1, rtol=1e-6)
    assert (model.transduction_ == classes).mean() > 0.95
    assert model.n_neighbors_ == 7
    assert 1 <= model.n_iter_ <= 15


def test_new_samples(clusters, monkeypatch):
    X, y, classes = clusters
    model = LabelDiffusion(10).fit(X[:90], y[:90])
    probabilities = model.predict_proba(X[90:])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (model.predict(X[90:]) == classes[90:]).mean() > 0.9
    monkeypatch.setattr("fastssl.estimators.CHUNK_ELEMENTS", 1000)
    np.testing.assert_allclose(model.predict_proba(X[90:]), probabilities, rtol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X[90:91]), probabilities[:1], rtol=1e-5)
    assert model.predict_proba(np.zeros((1, 8))).tolist() == [pytest.approx([1 / 3] * 3)]


@pytest.mark.parametrize(
    "array",
    [
        lambda names: np.array(names),  # numbers become strings, as numpy has it
        lambda names: np.array(names, dtype=object),
    ],
    ids=["strings", "objects"],
)
def test_labels_that_are_strings(clusters, array):
    X, y, _ = clusters
    names = ["cat", "dog", "fox"]
    model = LabelDiffusion(10).fit(X, array([names[c] if c >= 0 else -1 for c in y]))
    assert model.classes_.tolist() == names
    expected = LabelDiffusion(10).fit(X, y)
    assert model.transduction_.tolist() == [names[c] for c in expected.transduction_]
    assert set(model.predict(X)) == set(names)


def test_fewer_samples_than_neighbors(clusters):
    X, y, _ = clusters
    with pytest.warns(UserWarning, match="n_neighbors is 50, but of 20 samples each has 19 others"):
        model = LabelDiffusion().fit(X[:20], y[:20])
    assert model.n_neighbors_ == 19
    assert model.predict(X[20:]).shape == (100,)


def test_all_labels_known(clusters):
    X, _, classes = clusters
    model = LabelDiffusion(10).fit(X, classes)
    assert (model.transduction_ == classes).all()
    assert (model.weights_ == 1).all()


def test_one_class(clusters):
    X, y, _ = clusters
    model = LabelDiffusion(10).fit(X, np.where(y == 1, 7, -1))
    assert model.classes_.tolist() == [7]
    assert (model.transduction_ == 7).all()
    assert (model.predict_proba(X) == 1).all()


def test_minus_one_and_one_alone_are_two_classes(clusters):
    X, _, classes = clusters
    y = np.where(classes == 0, -1, 1)
    with pytest.warns(UserWarning, match="two classes, all known"):
        model = LabelDiffusion(10).fit(X, y)
    assert model.classes_.tolist() == [-1, 1]
    assert (model.transduction_ == y).all()


def test_samples_that_no_label_reaches():
    X = np.eye(4)[[0, 0, 1, 1, 2]] + 0.0
    model = LabelDiffusion(1).fit(X, [5, -1, -1, -1, 6])
    assert model.transduction_.tolist() == [5, 5, 5, 5, 6]
    assert model.weights_.tolist() == [1, 1, 0, 0, 1]
    assert model.label_distributions_[2:4].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors is 0"),
        ({"n_neighbors": 2.5}, "n_neighbors is 2.5"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"exponent": -1.0}, "exponent is -1.0"),
        ({"index": "kd"}, "index is 'kd'"),
    ],
)
def test_parameters_out_of_range(clusters, options, message):
    X, y, _ = clusters
    with pytest.raises(ValueError, match=message):
        clone(LabelDiffusion(5)).set_params(**options).fit(X, y)


def test_no_label_is_known(clusters):
    X, y, _ = clusters
    with pytest.raises(ValueError, match="y holds no known label"):
        LabelDiffusion(5).fit(X, np.full_like(y, -1))


def test_fastssl_alone_does_not_import_scikit_learn():
    code = "import sys, fastssl, fastssl.ops; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def tuned_accuracy(estimator, X: np.ndarray, classes: np.ndarray, split: int) -> float:
    """Accuracy on the digits left, of 20 labeled and 60 that the best of a grid is chosen by."""
    order = np.random.default_rng(split).permutation(len(X))
    labeled = np.concatenate([order[classes[order] == c][:2] for c in range(10)])
    validation, test = np.split(order[~np.isin(order, labeled)], [60])
    y = np.full(len(X), -1)
    y[labeled] = classes[labeled]
    scores = []
    for n_neighbors in (7, 20):
        for alpha in (0.2, 0.99):
            found = clone(estimator).set_params(n_neighbors=n_neighbors, alpha=alpha).fit(X, y)
            right = found.transduction_ == classes
            scores.append((right[validation].mean(), right[test].mean()))
    return max(scores, key=lambda score: score[0])[1]


def test_20_digits_give_what_label_spreading_gives():
    """Both tuned over the same grid on the same validation labels; means of 10 splits."""
    X, classes = load_digits(return_X_y=True)
    spreading = LabelSpreading(kernel="knn", max_iter=1000)
    ours, theirs = (
        np.mean([tuned_accuracy(estimator, X, classes, split) for split in range(10)])
        for estimator in (LabelDiffusion(), spreading)
    )
    print(f"LabelDiffusion {ours:.4f}, LabelSpreading {theirs:.4f}")
    assert ours >= theirs - 0.01
