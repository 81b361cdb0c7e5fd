"""LabelDiffusion beside scikit-learn's LabelSpreading on handwritten digits, 20 labels.

    python -m fastssl.benchmarks.studies.label_spreading

Ten splits of scikit-learn's 1,797 digits: 2 known labels of each class, 100 labels to choose
parameters by, and the rest to be classified. Both estimators see every image and the 20 labels, and
choose from the same grid by the same validation labels, the first of equals. LabelSpreading is that
of nearest neighbours (`kernel="knn"`), with iterations enough to end at its own tolerance.

N images.
"""

import itertools
import statistics
from collections.abc import Callable

import numpy as np

from fastssl.estimators import LabelDiffusion

SPLITS, LABELS_A_CLASS, VALIDATION, CLASSES = 10, 2, 100, 10
GRID = list(itertools.product((5, 7, 10, 15, 20, 30, 50), (0.2, 0.5, 0.8, 0.9, 0.95, 0.99)))


def diffusion(n_neighbors: int, alpha: float) -> LabelDiffusion:
    """Fastssl's estimator."""
    return LabelDiffusion(n_neighbors, alpha=alpha)


def spreading(n_neighbors: int, alpha: float):
    """scikit-learn's estimator."""
    from sklearn.semi_supervised import LabelSpreading

    return LabelSpreading("knn", n_neighbors=n_neighbors, alpha=alpha, max_iter=2000)


ESTIMATORS: dict[str, Callable] = {"LabelDiffusion": diffusion, "LabelSpreading": spreading}


def draw(classes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the known labels, of the validation labels and of the others."""
    order = np.random.default_rng(seed).permutation(len(classes))
    known = np.concatenate([order[classes[order] == c][:LABELS_A_CLASS] for c in range(CLASSES)])
    others = order[~np.isin(order, known)]
    return known, others[:VALIDATION], others[VALIDATION:]


def tuned_accuracy(make: Callable, X: np.ndarray, classes: np.ndarray, seed: int) -> tuple:
    """Accuracy on a split's unseen images in percent, and the parameters chosen."""
    known, validation, test = draw(classes, seed)
    y = np.full_like(classes, -1)
    y[known] = classes[known]
    best = (-1.0, 0.0, GRID[0])
    for parameters in GRID:
        right = make(*parameters).fit(X, y).transduction_ == classes
        found = (100 * right[validation].mean(), 100 * right[test].mean(), parameters)
        best = found if found[0] > best[0] else best
    return best[1:]


def main() -> None:
    """Print the table."""
    from sklearn.datasets import load_digits

    X, classes = load_digits(return_X_y=True)
    print(f"{'split':>8}" + "".join(f"{name:>20} (k, alpha)   " for name in ESTIMATORS))
    results: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for seed in range(SPLITS):
        cells = []
        for name, make in ESTIMATORS.items():
            accuracy, parameters = tuned_accuracy(make, X, classes, seed)
            results[name].append(accuracy)
            cells.append(f"{accuracy:>19.2f} % {parameters!s:<12}")
        print(f"{seed:>8}" + "".join(cells), flush=True)
    summary = (
        f"{statistics.mean(found):>13.2f} ± {statistics.stdev(found):.2f} %{'':<13}"
        for found in results.values()
    )
    print(f"{'mean':>8}" + "".join(summary))


if __name__ == "__main__":
    main()
