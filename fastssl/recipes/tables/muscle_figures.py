"""Figures 2 and 3 of MUSCLE: its ablations on CIFAR-10, and subclasses without labels.

Command:
    fastssl reproduce muscle/figure2a --data-dir FOLDER
    fastssl reproduce muscle/figure2b --data-dir FOLDER
    fastssl reproduce muscle/figure2c --data-dir FOLDER
    fastssl reproduce muscle/figure2d --data-dir FOLDER
    fastssl reproduce muscle/figure3 --data-dir FOLDER

Cost: as table 1's runs, 138,000 steps each; meant for a GPU, not measured.

Result: not yet reproduced. The paper draws these as curves and bars without their numbers.

2a: r unlabeled images for each labeled one, at 128 a step and with the steps an epoch of r = 1.
2b: the dropout layers of conv_large, with MUSCLE and with Mean Teacher. 2c: losses
from scratch. 2d: each fine-tuned from networks pre-trained on all images without labels, whose runs
are trained first and scored by the nearest labeled images. 3: CIFAR-100 by its 20
superclasses, one random subclass of each without labels and k labels in each of the other 80; the
test images of all, labeled and unlabeled subclasses. Open: the ratios, the numbers of labels, k.
"""

from fastssl.recipes.tables.cells import Cell, Table
from fastssl.recipes.tables.muscle import (
    EPOCHS,
    SEEDS,
    WITH_MUSCLE,
    WITHOUT,
    Batch,
    changes,
    steps_of,
)

LABELS = (1000, 500, 250, 100)
LABELED_ROWS = (96, 64, 48, 32, 16)  # of 128: r = 1/3, 1, 5/3, 3, 7


def _ratio_cell(labeled: int, labels: int) -> Cell:
    unlabeled = 128 - labeled
    batch = Batch(labeled, unlabeled, WITH_MUSCLE.lr, WITH_MUSCLE.dropout)
    changed = changes("muscle+mean-teacher", "cifar10", labels, batch)
    changed["steps"] = steps_of(EPOCHS, labels, WITH_MUSCLE.unlabeled)
    row = f"r = {unlabeled / labeled:.2f}"
    return Cell(row, f"{labels} labels", "muscle+mean-teacher", "cifar10", changed)


def _dropout_cells(row: str, algorithm: str, batch: Batch) -> tuple[Cell, ...]:
    return tuple(
        Cell(
            f"{row}, dropout {dropout:g}",
            f"{labels} labels",
            algorithm,
            "cifar10",
            changes(algorithm, "cifar10", labels, batch) | {"model.dropout": dropout},
        )
        for dropout in (0.0, 0.5)
        for labels in LABELS
    )


# What each bar of 2c adds to the labeled images' cross entropy, and of 2d what pre-trains.
FROM_SCRATCH = {
    "CE": "supervised",
    "CE + NT-Xent": "supervised+contrastive",
    "CE + MI + NT-Xent": "muscle+supervised+contrastive",
    "MUSCLE": "muscle",
}
PRE_TRAINED = {"NT-Xent": "contrastive", "NT-Xent + MI": "muscle+contrastive"}
FINE_TUNED = {"supervised": "supervised", "MUSCLE": "muscle"}


def _loss_cell(row: str, algorithm: str, labels: int, origin: Cell | None = None) -> Cell:
    changed = changes(algorithm, "cifar10", labels, WITH_MUSCLE)
    return Cell(row, f"{labels} labels", algorithm, "cifar10", changed, origin=origin)


def _fine_tuned_cells(labels: int) -> tuple[Cell, ...]:
    return tuple(
        _loss_cell(
            f"{pre}, then {tuned}",
            algorithm,
            labels,
            _loss_cell(f"{pre}, nearest images", pre_trained, labels),
        )
        for pre, pre_trained in PRE_TRAINED.items()
        for tuned, algorithm in FINE_TUNED.items()
    )


# Figures that a run with sequestered subclasses records, by what the columns call them.
SUBCLASS_FIGURES = {
    f"{shown}, {name}": f"{measure}{group}"
    for measure, shown in (("accuracy", "accuracy in %"), ("entropy", "entropy in nats"))
    for group, name in (
        ("", "all"),
        ("_labeled_subclasses", "labeled"),
        ("_unlabeled_subclasses", "unlabeled"),
    )
}
KEPT_SUBCLASSES = 80


def _subclass_cells(row: str, algorithm: str, batch: Batch) -> tuple[Cell, ...]:
    return tuple(
        Cell(
            f"{row}, k = {k}",
            column,
            algorithm,
            "cifar20",
            changes(algorithm, "cifar20", k * KEPT_SUBCLASSES, batch)
            | {"data.rule": "sequestered"},
            figure=figure,
            setting="cifar20",
        )
        for k in (5, 10, 25, 50)
        for column, figure in SUBCLASS_FIGURES.items()
    )


FIGURE2A = Table(
    "MUSCLE, figure 2a: MUSCLE + MT on CIFAR-10 by unlabeled images a labeled one, test accuracy"
    " in %",
    SEEDS,
    tuple(_ratio_cell(labeled, labels) for labeled in LABELED_ROWS for labels in LABELS),
)
FIGURE2B = Table(
    "MUSCLE, figure 2b: dropout in conv_large on CIFAR-10, test accuracy in %",
    SEEDS,
    _dropout_cells("Mean-Teacher", "mean-teacher", WITHOUT["cifar10"])
    + _dropout_cells("MUSCLE", "muscle", WITH_MUSCLE),
)
FIGURE3 = Table(
    "MUSCLE, figure 3: CIFAR-20 with one subclass of each class unlabeled, k labels in the others",
    SEEDS,
    _subclass_cells("Supervised Learning", "supervised", WITHOUT["cifar100"])
    + _subclass_cells("Mean-Teacher", "mean-teacher", WITHOUT["cifar100"])
    + _subclass_cells("MUSCLE", "muscle", WITH_MUSCLE),
)
FIGURE2C = Table(
    "MUSCLE, figure 2c: losses from scratch on CIFAR-10, test accuracy in %",
    SEEDS,
    tuple(_loss_cell(row, name, labels) for row, name in FROM_SCRATCH.items() for labels in LABELS),
)
FIGURE2D = Table(
    "MUSCLE, figure 2d: pre-training, then fine-tuning on CIFAR-10, test accuracy in %",
    SEEDS,
    tuple(cell for labels in LABELS for cell in _fine_tuned_cells(labels)),
)
