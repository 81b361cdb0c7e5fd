"""A few steps of every algorithm on the digits, as `fastssl train` would take them."""

from pathlib import Path
from typing import Any

from fastssl.recipes.experiment import configure
from fastssl.recipes.runs import Run, start

ALGORITHMS = ("supervised", "muscle", "mean-teacher", "fixmatch", "muscle+fixmatch", "ccn")
STEPS = 5
SMALL = {
    "data.labels": 20,
    "data.labeled_rows": 12,
    "data.unlabeled_rows": 12,
    "steps": STEPS,
    "eval.images": 50,
    "algorithm.threshold": 0.0,  # FixMatch's first steps would keep nothing
}


def tiny(algorithm: str, folder: Path, **changes: Any) -> Run:
    """A run that only its end interrupts, ready for `fit`."""
    values = (
        SMALL
        if algorithm.endswith("fixmatch")
        else {key: value for key, value in SMALL.items() if key != "algorithm.threshold"}
    )
    never = {"log_every": STEPS, "eval.every": STEPS, "checkpoint.every": STEPS}
    return start(configure(algorithm, "digits", {**values, **never, **changes}), folder / "run")
