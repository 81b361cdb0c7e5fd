"""Tables of results as runs: which algorithm, data and seeds stand behind each cell."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastssl.errors import InputError, unknown_name
from fastssl.recipes.config import Config, override, settable
from fastssl.recipes.experiment import configure
from fastssl.recipes.runs import Run, resume, start
from fastssl.training.checkpoint import saved_steps
from fastssl.training.record import RunFolder

SMOKE_IMAGES, SMOKE_TEST_IMAGES, SMOKE_ROWS, SMOKE_STEPS = 512, 256, 8, 3
SMOKE_LABELS, SMOKE_SEQUESTERED_LABELS = 100, 80  # one at least of every class, or kept subclass


@dataclass(frozen=True)
class Scale:
    """How much of a table's runs is trained.

    Attributes:
        budget: share of each recipe's steps.
        smoke: cut the data to 512 training and 256 test images, of which at most 100 are labeled,
            the batch to 8 + 8 rows, and the run to 3 steps a stage.
    """

    budget: float = 1.0
    smoke: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise InputError(f"budget: {self.budget:g}; expected a share above 0, at most 1")
        if self.smoke and self.budget != 1:
            raise InputError("--smoke and --budget exclude each other")

    def apply(self, config: Config) -> Config:
        """A recipe's configuration at this scale."""
        if not self.smoke:
            return override(config, {"steps": max(1, round(config.steps * self.budget))})
        steps = SMOKE_STEPS * len(config.stages.starts)
        sequestered = config.data.rule == "sequestered"
        most = SMOKE_SEQUESTERED_LABELS if sequestered else SMOKE_LABELS
        changes: dict[str, Any] = {
            "data.images": SMOKE_IMAGES,
            "data.labels": min(config.data.labels or most, most),
            "data.validation": 0,
            "data.labeled_rows": SMOKE_ROWS,
            "data.unlabeled_rows": min(config.data.unlabeled_rows, SMOKE_ROWS),
            "steps": steps,
            "eval.every": steps,
            "eval.images": SMOKE_TEST_IMAGES,
            "log_every": 1,
        }
        return override(config, changes)

    def folder(self, table: Path) -> Path:
        """Where runs of this scale go: apart from whole ones, whose folder is `table`."""
        if self.smoke:
            return table / "smoke"
        return (
            table if self.budget == 1 else table.with_name(f"{table.name}-budget-{self.budget:g}")
        )

    def title(self, title: str) -> str:
        """The title of a table of such runs."""
        if self.smoke:
            return f"SMOKE, {SMOKE_STEPS} steps on cut data, no result: {title}"
        return title if self.budget == 1 else f"{title}, {self.budget:g} of the steps"


WHOLE = Scale()


@dataclass(frozen=True)
class Cell:
    """One figure of one setting, run with several seeds.

    Attributes:
        row: its row.
        column: its column.
        algorithm: of its runs.
        data: a named data set.
        changes: to the recipe, by dotted key.
        paper: the paper's figure, in % and as it prints it; "" where there is none.
        figure: what is shown: "accuracy", "error", or another that runs record of their test part.
        setting: what names its runs beside the row, where several columns show figures of the same;
            the column if empty.
        origin: the cell whose run of the same seed its runs start from, if they do.
    """

    row: str
    column: str
    algorithm: str
    data: str
    changes: dict[str, Any] = field(default_factory=dict)
    paper: str = ""
    figure: str = "accuracy"
    setting: str = ""
    origin: "Cell | None" = None

    def config(self, seed: int, scale: Scale = WHOLE, **changes: Any) -> Config:
        """The configuration of one of its runs, with further changes by dotted key."""
        config = configure(self.algorithm, self.data, {**self.changes, **changes, "seed": seed})
        return scale.apply(config)

    def folder(self, table: Path, seed: int) -> Path:
        """Where that run goes in the folder of its table."""
        name = f"{self.row} {self.setting or self.column} seed {seed}"
        return table / name.replace(" ", "-").replace("/", "-").replace(",", "")


@dataclass(frozen=True)
class Table:
    """A table: rows of methods, columns of settings, a figure of the test part in each cell."""

    title: str
    seeds: int
    cells: tuple[Cell, ...]
    cost: str = "not measured"

    def select(self, rows: Sequence[str], columns: Sequence[str] = ()) -> list[Cell]:
        """The cells of the rows and of the columns of those names; all of them if there are none.

        Raises:
            InputError: the table has no such row or column.
        """
        for key, wanted, known in (
            ("only", rows, {cell.row for cell in self.cells}),
            ("column", columns, {cell.column for cell in self.cells}),
        ):
            for name in wanted:
                if name not in known:
                    raise unknown_name(key, name, known)
        return [
            cell
            for cell in self.cells
            if (not rows or cell.row in rows) and (not columns or cell.column in columns)
        ]


def runs(cells: Sequence[Cell], seeds: int, table: Path) -> list[tuple[Cell, int]]:
    """The runs behind cells, seed by seed: each once, and after the one it starts from."""
    found: dict[Path, tuple[Cell, int]] = {}
    for seed in range(seeds):
        for cell in cells:
            for each in (cell.origin, cell):
                if each is not None:
                    found.setdefault(each.folder(table, seed), (each, seed))
    return list(found.values())


def pending(
    cell: Cell, seed: int, scale: Scale, table: Path, *, download: bool = False, **changes: Any
) -> Run | None:
    """A cell's run that is still to be trained, from where it stands; None if it is at its end.

    Args:
        cell: one whose origin, if it has one, is trained.
        seed: of the run.
        scale: how much of it is trained.
        table: the folder of the table's runs.
        download: fetch a named data set that is not there.
        changes: to the configuration, by dotted key.

    Raises:
        InputError: its folder holds a run of another configuration; the first difference is named.
    """
    if cell.origin is not None:
        changes["init"] = str(cell.origin.folder(table, seed).absolute())
    config, path = cell.config(seed, scale, **changes), cell.folder(table, seed)
    if not (path / "run.json").exists():
        return start(config, path, download=download)
    folder = RunFolder.open(path)
    saved = saved_steps(folder.checkpoints)
    if not saved:
        return start(config, path, overwrite=True, download=download)
    same = folder.description().get("config") == json.loads(json.dumps(config.to_json()))
    if same and saved[-1] == config.steps:
        return None
    return resume(path, cell.algorithm, settable(config))
