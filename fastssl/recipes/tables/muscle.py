"""Tables 1 to 5 of MUSCLE.

Command:
    fastssl reproduce muscle/table1 --data-dir FOLDER [--only "MUSCLE + MT"] [--seeds 3]
    fastssl reproduce muscle/table4 --budget 0.1

Cost: a run of table 1 is 180 passes over the unlabeled images, 138,000 steps of four views of 128
images with MUSCLE, twice that with label propagation; meant for a GPU, not measured.

Result: not yet reproduced. The paper's figures stand beside ours in the table that is written.

Settings, from section 5.2 and the references it names: SGD with Nesterov momentum 0.9 and weight
decay 2e-4, 180 epochs on a cosine that would reach 0 at epoch 210; label propagation trains two
such stages. conv_large with weight norm (ResNet-18 for Mini-ImageNet). With MUSCLE 64 labeled and
64 unlabeled images a step, learning rate 0.05, no dropout; without it those of Mean Teacher's and
label propagation's implementations: 50 + 50 and 0.05 on CIFAR-10, 31 + 97 and 0.2 elsewhere,
dropout 0.5; supervised fills such a batch with labeled images. Rows named "matched" are the bases
at MUSCLE's batch, learning rate, dropout and steps. Features have length 1 before the last layer
only in label propagation without Mean Teacher.

FixMatch (tables 4 and 5) has 64 + 64 and no dropout in both arms. Setting 1 is MUSCLE's optimiser;
setting 2 starts at 0.03, follows 7/16 of a cosine for 300 epochs, and decays kernels alone by 5e-4
(1e-3 for CIFAR-100).

Open in the paper, ours: alpha 1, five seeds, and the hard views (recipes/images.py).
"""

from dataclasses import dataclass
from typing import Any

from fastssl.recipes.tables.cells import Cell, Table

SEEDS = 5
IMAGES = 50_000  # of the training part of each data set
EPOCHS = 180
HORIZON = 210 / EPOCHS


@dataclass(frozen=True)
class Batch:
    """What a step holds, and the learning rate that goes with it."""

    labeled: int
    unlabeled: int
    lr: float
    dropout: float


WITH_MUSCLE = Batch(64, 64, 0.05, 0.0)
WITHOUT = {
    "cifar10": Batch(50, 50, 0.05, 0.5),
    "cifar100": Batch(31, 97, 0.2, 0.5),
    "mini_imagenet": Batch(31, 97, 0.2, 0.5),
}


def steps_of(epochs: int, labels: int, unlabeled_rows: int) -> int:
    """Steps of so many passes over the images without a label."""
    return epochs * ((IMAGES - labels) // unlabeled_rows)


def changes(
    algorithm: str, data: str, labels: int, batch: Batch, *, epochs: int = EPOCHS
) -> dict[str, Any]:
    """Section 5.2's settings of an algorithm, as changes of its recipe."""
    stages = 2 if "label-propagation" in algorithm else 1
    steps = stages * steps_of(epochs, labels, batch.unlabeled)
    found = {
        "data.labels": labels,
        "data.labeled_rows": batch.labeled,
        "data.unlabeled_rows": batch.unlabeled,
        "optim.lr": batch.lr,
        "optim.weight_decay": 2e-4,
        "optim.horizon": HORIZON,
        "steps": steps,
        "eval.every": max(1, steps // 50),
        "log_every": 100,
        "checkpoint.every": 1000,
    }
    if algorithm == "supervised":
        whole = batch.labeled + batch.unlabeled
        found |= {"data.labeled_rows": whole, "data.unlabeled_rows": 0}
    if algorithm == "label-propagation":
        found["model.unit_features"] = True
    if data == "mini_imagenet":
        return found | {"model.name": "resnet18"}
    return found | {"model.dropout": batch.dropout, "model.weight_norm": True}


# Row, algorithm, and whether it is at MUSCLE's batch.
METHODS = {
    "Supervised Learning": ("supervised", False),
    "Supervised Learning, matched": ("supervised", True),
    "Label Propagation": ("label-propagation", False),
    "Mean-Teacher": ("mean-teacher", False),
    "Mean-Teacher, matched": ("mean-teacher", True),
    "LP + MT": ("mean-teacher+label-propagation", False),
    "LP + MT, matched": ("mean-teacher+label-propagation", True),
    "MUSCLE": ("muscle", True),
    "MUSCLE + MT": ("muscle+mean-teacher", True),
    "MUSCLE + MT + LP": ("muscle+mean-teacher+label-propagation", True),
}
CIFAR10 = {
    "Supervised Learning": ("59.97 ± 0.87", "51.08 ± 1.02", "45.74 ± 1.92", "32.55 ± 2.02"),
    "Label Propagation": ("77.98 ± 0.88", "67.60 ± 1.80", "59.55 ± 2.58", "35.78 ± 3.98"),
    "Mean-Teacher": ("80.90 ± 0.51", "72.55 ± 2.64", "61.26 ± 1.96", "39.56 ± 1.73"),
    "LP + MT": ("83.07 ± 0.70", "75.98 ± 2.44", "64.19 ± 1.95", "41.62 ± 3.50"),
    "MUSCLE": ("85.46 ± 0.85", "79.01 ± 0.99", "70.37 ± 1.98", "52.79 ± 4.81"),
    "MUSCLE + MT": ("86.42 ± 0.27", "82.02 ± 0.22", "75.86 ± 3.2", "59.57 ± 4.53"),
    "MUSCLE + MT + LP": ("86.71 ± 0.36", "83.36 ± 0.43", "76.46 ± 3.05", "59.03 ± 3.17"),
}
CIFAR100 = {
    "Supervised Learning": (
        *("59.33 ± 0.49", "44.57 ± 0.11", "36.69 ± 0.70", "16.02 ± 0.53", "5.74 ± 0.64"),
    ),
    "Label Propagation": (
        *("61.57 ± 1.88", "53.8 ± 0.76", "48.84 ± 0.38", "17.49 ± 1.01", "4.94 ± 0.42"),
    ),
    "Mean-Teacher": (
        *("63.92 ± 0.51", "54.64 ± 0.49", "47.28 ± 0.82", "20.45 ± 0.61", "6.84 ± 0.89"),
    ),
    "LP + MT": (*("64.08 ± 0.47", "56.27 ± 0.20", "51.14 ± 0.44", "21.40 ± 0.68", "5.66 ± 0.84"),),
    "MUSCLE + MT": (
        *("66.07 ± 0.19", "59.31 ± 0.45", "54.53 ± 0.35", "29.86 ± 0.85", "11.01 ± 0.85"),
    ),
    "MUSCLE + MT + LP": (
        *("64.79 ± 0.25", "57.66 ± 0.62", "52.48 ± 0.46", "28.27 ± 0.73", "10.51 ± 0.43"),
    ),
}
# Top 1 of three numbers of labels, then top 5.
MINI_IMAGENET = {
    "Supervised Learning": (
        *("39.63 ± 0.53", "25.62 ± 0.36", "19.01 ± 0.71"),
        *("61.39 ± 0.46", "44.26 ± 0.45", "35.48 ± 0.73"),
    ),
    "Label Propagation": (
        *("45.47 ± 0.47", "29.71 ± 0.69", "22.41 ± 0.62"),
        *("69.46 ± 0.31", "52.74 ± 0.49", "43.13 ± 1.01"),
    ),
    "Mean-Teacher": (
        *("44.82 ± 0.51", "28.23 ± 0.23", "22.34 ± 0.52"),
        *("69.38 ± 0.95", "51.94 ± 0.42", "44.61 ± 0.78"),
    ),
    "LP + MT": (
        *("45.92 ± 0.37", "28.67 ± 0.41", "23.38 ± 0.35"),
        *("70.99 ± 0.56", "52.26 ± 0.63", "45.67 ± 0.86"),
    ),
    "MUSCLE": (
        *("45.86 ± 0.06", "34.90 ± 0.47", "28.95 ± 0.45"),
        *("71.26 ± 0.10", "60.81 ± 0.21", "54.45 ± 0.83"),
    ),
    "MUSCLE + MT": (
        *("49.47 ± 0.30", "38.26 ± 0.15", "32.56 ± 0.12"),
        *("72.94 ± 0.29", "63.35 ± 0.21", "56.58 ± 0.29"),
    ),
    "MUSCLE + MT + LP": (
        *("47.30 ± 1.12", "37.35 ± 0.25", "30.86 ± 0.53"),
        *("71.06 ± 0.64", "63.84 ± 0.53", "56.79 ± 0.48"),
    ),
}
FIXMATCH = {  # CIFAR-10, then CIFAR-100
    "FixMatch, setting 1": (
        *("84.12 ± 0.55", "81.96 ± 0.75", "73.98 ± 1.46"),
        *("53.35 ± 0.72", "45.37 ± 0.56", "41.02 ± 0.31", "21.02 ± 0.84"),
    ),
    "MUSCLE + FixMatch, setting 1": (
        *("84.59 ± 0.61", "82.63 ± 0.78", "76.06 ± 1.81"),
        *("54.97 ± 0.24", "47.71 ± 0.71", "43.54 ± 0.33", "23.73 ± 1.67"),
    ),
    "FixMatch, setting 2": (
        *("90.53 ± 0.62", "89.51 ± 0.71", "81.62 ± 1.12"),
        *("68.28 ± 0.19", "62.28 ± 0.13", "58.19 ± 0.31", "32.52 ± 0.65"),
    ),
    "MUSCLE + FixMatch, setting 2": (
        *("90.91 ± 0.37", "90.25 ± 0.39", "83.51 ± 1.77"),
        *("68.51 ± 0.23", "62.66 ± 0.18", "58.53 ± 0.49", "33.94 ± 0.72"),
    ),
}
MINI_FIXMATCH = {
    "FixMatch, setting 1": (
        *("26.71 ± 0.70", "18.57 ± 0.32", "14.12 ± 0.27"),
        *("51.14 ± 1.80", "39.38 ± 0.29", "32.52 ± 1.29"),
    ),
    "MUSCLE + FixMatch, setting 1": (
        *("27.33 ± 0.19", "18.72 ± 0.28", "14.58 ± 0.29"),
        *("52.43 ± 0.31", "39.83 ± 0.65", "33.16 ± 0.51"),
    ),
    "FixMatch, setting 2": (
        *("36.05 ± 0.84", "25.82 ± 0.99", "19.11 ± 0.94"),
        *("59.26 ± 1.03", "48.61 ± 1.82", "39.58 ± 1.47"),
    ),
    "MUSCLE + FixMatch, setting 2": (
        *("37.71 ± 0.48", "29.29 ± 0.12", "24.73 ± 0.68"),
        *("62.74 ± 0.22", "53.60 ± 0.33", "48.23 ± 1.05"),
    ),
}
# Columns of each table: data set, labels, figure.
Setting = tuple[str, int, str]
MINI_SETTINGS = tuple(
    ("mini_imagenet", labels, figure)
    for figure in ("accuracy", "top5")
    for labels in (10_000, 4000, 2500)
)
FIXMATCH_SETTINGS = (
    *(("cifar10", labels, "accuracy") for labels in (500, 250, 100)),
    *(("cifar100", labels, "accuracy") for labels in (10_000, 4000, 2500, 500)),
)


def _cell(row: str, algorithm: str, of: Setting, changed: dict[str, Any], paper: str) -> Cell:
    """A cell whose column names no more of its setting than differs in its table."""
    data, labels, figure = of
    setting = f"{data}, {labels}"
    shown = {"accuracy": "top 1", "top5": "top 5"}[figure]
    column = f"{labels} labels, {shown}" if data == "mini_imagenet" else f"{setting} labels"
    return Cell(row, column, algorithm, data, changed, paper, figure, setting)


def _cells(papers: dict[str, tuple[str, ...]], settings: tuple[Setting, ...]) -> tuple[Cell, ...]:
    """Cells of tables 1 to 3: the paper's rows, and the matched ones of those among them."""
    cells = []
    for row, (algorithm, at_muscles) in METHODS.items():
        base = row.removesuffix(", matched")
        if base not in papers:
            continue
        figures = papers.get(row, ("",) * len(settings))
        for of, paper in zip(settings, figures, strict=True):
            data, labels, _ = of
            batch = WITH_MUSCLE if at_muscles else WITHOUT[data]
            cells.append(_cell(row, algorithm, of, changes(algorithm, data, labels, batch), paper))
    return tuple(cells)


def _fixmatch_cells(
    papers: dict[str, tuple[str, ...]], settings: tuple[Setting, ...]
) -> tuple[Cell, ...]:
    """Cells of tables 4 and 5."""
    cells = []
    for row, figures in papers.items():
        algorithm = "muscle+fixmatch" if row.startswith("MUSCLE") else "fixmatch"
        second = row.endswith("setting 2")
        for of, paper in zip(settings, figures, strict=True):
            data, labels, _ = of
            epochs = 300 if second else EPOCHS
            changed = changes(algorithm, data, labels, WITH_MUSCLE, epochs=epochs)
            if second:
                changed |= {
                    "optim.lr": 0.03,
                    "optim.weight_decay": 1e-3 if data == "cifar100" else 5e-4,
                    "optim.decayed": "kernels",
                    "optim.schedule": "seven_sixteenths",
                }
            cells.append(_cell(row, algorithm, of, changed, paper))
    return tuple(cells)


def _labels(data: str, *numbers: int) -> tuple[Setting, ...]:
    return tuple((data, labels, "accuracy") for labels in numbers)


TABLE1 = Table(
    "MUSCLE, table 1: CIFAR-10 with conv_large, test accuracy in %",
    SEEDS,
    _cells(CIFAR10, _labels("cifar10", 1000, 500, 250, 100)),
)
TABLE2 = Table(
    "MUSCLE, table 2: CIFAR-100 with conv_large, test accuracy in %",
    SEEDS,
    _cells(CIFAR100, _labels("cifar100", 10_000, 4000, 2500, 500, 100)),
)
TABLE3 = Table(
    "MUSCLE, table 3: Mini-ImageNet with ResNet-18, test accuracy in %",
    SEEDS,
    _cells(MINI_IMAGENET, MINI_SETTINGS),
)
TABLE4 = Table(
    "MUSCLE, table 4: FixMatch, CIFAR with conv_large, test accuracy in %",
    SEEDS,
    _fixmatch_cells(FIXMATCH, FIXMATCH_SETTINGS),
)
TABLE5 = Table(
    "MUSCLE, table 5: FixMatch, Mini-ImageNet with ResNet-18, test accuracy in %",
    SEEDS,
    _fixmatch_cells(MINI_FIXMATCH, MINI_SETTINGS),
)
