"""Label diffusion as a scikit-learn estimator.

N samples, M new samples, D features, C classes.
"""

import numbers
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fastssl.ops.diffuse import diffuse
from fastssl.ops.knn_graph import knn_graph, unit_rows
from fastssl.ops.propagate_labels import UNKNOWN, class_distributions, label_seeds, pseudo_labels

FLOATS = [np.float64, np.float32]
CHUNK_ELEMENTS = 1 << 25  # of the similarities of new samples to all known ones, at a time


class LabelDiffusion(ClassifierMixin, BaseEstimator):
    """Transductive classification from few labels, by diffusion on a graph of neighbours.

    The method of Iscen et al. (2019): cosine similarities of the nearest neighbours, raised to a
    power, make a graph, and the known labels spread along it. Takes the place of scikit-learn's
    `LabelSpreading(kernel="knn")`: y holds -1 where the label is unknown. In an array of strings,
    or of objects that are strings, the unknown ones are -1 or "-1". A y of -1 and 1 alone, with
    nothing for unknown labels to become but 1, is the usual coding of two classes and taken as it.

    Args:
        n_neighbors: of each sample in the graph; cut to N - 1, with a warning, where there are
            fewer samples.
        alpha: share that each sample takes from its neighbours, in [0, 1).
        exponent: of the similarities.
        tol: of the diffusion's residual, relative to each class's labels.
        max_iter: iterations of the diffusion at most.
        index: "exact", or FAISS's approximate "ivf" or "hnsw".

    Attributes:
        classes_: [C], sorted.
        label_distributions_: [N, C], sums 1; rows of zeros for samples that no label reaches.
        transduction_: [N], a class for every sample: known ones as given, the others the likeliest
            (the first for those that no label reaches).
        weights_: [N] in [0, 1], how far each is to be trusted: 1 - entropy / ln C, the largest
            scaled to 1; 1 for known labels, 0 where no label reaches.
        n_neighbors_: neighbours that the graph was made with.
        n_iter_: iterations of the slowest class.
        X_: [N, D] float32, the samples scaled to length 1.
        n_features_in_: D.
    """

    def __init__(
        self,
        n_neighbors: int = 50,
        *,
        alpha: float = 0.99,
        exponent: float = 3.0,
        tol: float = 1e-6,
        max_iter: int = 20,
        index: str = "exact",
    ) -> None:
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.exponent = exponent
        self.tol = tol
        self.max_iter = max_iter
        self.index = index

    def fit(self, X: Sequence, y: Sequence) -> "LabelDiffusion":
        """Spread the labels that are known.

        Args:
            X: [N, D] features.
            y: [N] labels, -1 where unknown.

        Raises:
            ValueError: no label is known, or a parameter is out of range.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, ensure_min_samples=2)
        k = self._check_neighbors(len(X))
        self.classes_, labels = _encode(y)
        rows = _unit(X)
        graph = knn_graph(rows, k, self.exponent, index=self.index)
        seeds = label_seeds(labels, len(self.classes_))
        scores, iterations = diffuse(graph, seeds, self.alpha, self.tol, self.max_iter)
        distributions = class_distributions(scores)
        found, weights, _ = pseudo_labels(distributions, labels)
        self.X_ = rows.numpy()
        self.n_neighbors_ = k
        self.n_iter_ = int(iterations.max())
        self.label_distributions_ = distributions.double().numpy()
        self.transduction_ = self.classes_[found.numpy()]
        self.weights_ = weights.numpy()
        return self

    def predict_proba(self, X: Sequence) -> np.ndarray:
        """Probabilities [M, C] of new samples.

        The mean of the distributions of the `n_neighbors_` nearest samples, weighted by similarity
        ** exponent; uniform for a sample with no similar one that a label has reached.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        known = torch.from_numpy(self.X_)
        distributions = torch.from_numpy(self.label_distributions_)
        found = []
        for chunk in np.array_split(X, -(-len(X) * len(known) // CHUNK_ELEMENTS)):
            similarity = _unit(chunk) @ known.T
            nearest, neighbors = similarity.topk(self.n_neighbors_, dim=1)
            weights = torch.where(nearest > 0, nearest.clamp(0, 1) ** self.exponent, 0).double()
            found.append(torch.einsum("mk,mkc->mc", weights, distributions[neighbors]))
        scores = torch.cat(found)
        total = scores.sum(1, keepdim=True)
        uniform = torch.full_like(scores, 1 / len(self.classes_))
        return torch.where(total > 0, scores / total, uniform).numpy()

    def predict(self, X: Sequence) -> np.ndarray:
        """The likeliest class of each of M new samples."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def _check_neighbors(self, N: int) -> int:
        if not isinstance(self.n_neighbors, numbers.Integral) or self.n_neighbors < 1:
            raise ValueError(
                f"LabelDiffusion: n_neighbors is {self.n_neighbors!r}; expected an integer >= 1"
            )
        if self.n_neighbors >= N:
            warnings.warn(
                f"LabelDiffusion: n_neighbors is {self.n_neighbors}, but of {N} samples each has "
                f"{N - 1} others; those are taken",
                stacklevel=3,
            )
        return min(int(self.n_neighbors), N - 1)


def _unit(X: np.ndarray) -> torch.Tensor:
    """Rows scaled to length 1, float32; a single one too."""
    rows = torch.tensor(X)
    return unit_rows(torch.cat([rows, rows[:1]]))[: len(rows)]  # which takes two at least


def _encode(y: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """The classes, sorted, and each label's place among them, [N] int64, -1 where unknown."""
    given = y.tolist()
    unknown = np.array([label in (UNKNOWN, str(UNKNOWN)) for label in given])
    if set(given) == {UNKNOWN, 1}:
        warnings.warn(
            "LabelDiffusion: y holds -1 and 1 alone; they are taken as two classes, all known",
            stacklevel=3,
        )
        unknown[:] = False
    if unknown.all():
        raise ValueError("LabelDiffusion: y holds no known label, all are -1")
    known = np.asarray(y[~unknown].tolist()) if y.dtype == object else y[~unknown]
    check_classification_targets(known)
    classes, places = np.unique(known, return_inverse=True)
    labels = torch.full((len(y),), UNKNOWN)
    labels[torch.from_numpy(~unknown)] = torch.from_numpy(places)
    return classes, labels
