"""Tables that fit a desk: digits in minutes a row, MNIST in hours.

Command:
    fastssl reproduce digits
    fastssl reproduce mnist --data-dir FOLDER [--download]

Cost: see each table's; on one core of a 2026 server processor.

Neither is a table of the papers. The constants of `digits` are those of recipes/digits.py, chosen
on a validation part of the training images.
"""

from fastssl.recipes.tables.cells import Cell, Table

BASES = ("label-propagation", "mean-teacher", "fixmatch")
DIGITS_ROWS = (
    *("supervised", *BASES, "mean-teacher+label-propagation"),
    *("muscle", *(f"muscle+{base}" for base in BASES), "muscle+mean-teacher+label-propagation"),
)
MNIST_ROWS = ("supervised", "muscle+mean-teacher", "ccn")

DIGITS = Table(
    title="scikit-learn's digits, test accuracy in % with 20 and 50 labels",
    seeds=5,
    cells=tuple(
        Cell(name, f"{labels} labels", name, "digits", {"data.labels": labels})
        for name in DIGITS_ROWS
        for labels in (20, 50)
    ),
    cost="a run 5 to 90 s",
)
MNIST = Table(
    title="MNIST, test error in % with 100 labels, small_cnn",
    seeds=3,
    cells=tuple(
        Cell(
            name,
            "100 labels",
            name,
            "mnist",
            {"data.labels": 100, "precision": "bf16"},
            figure="error",
        )
        for name in MNIST_ROWS
    ),
    cost="a run of MUSCLE + MT 11 to 15 min, of CCN 26 to 36, other work beside them",
)
