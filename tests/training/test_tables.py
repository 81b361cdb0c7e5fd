"""The papers' tables as runs: every cell can be configured, and as the papers have it."""

from pathlib import Path

import pytest

from fastssl.recipes.tables import TABLES
from fastssl.recipes.tables.cells import Cell, Scale, runs


def of(table, row, column):
    """The configuration of a cell."""
    (cell,) = [c for c in TABLES[table].cells if (c.row, c.column) == (row, column)]
    return cell.config(seed=0)


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_has_a_configuration_at_every_scale(name):
    places = set()
    for cell in TABLES[name].cells:
        config = cell.config(seed=3)
        assert config.seed == 3
        assert config.data.labels is not None
        assert cell.config(0, Scale(budget=0.1)).steps == max(1, round(config.steps / 10))
        smoke = cell.config(0, Scale(smoke=True))
        assert smoke.steps == 3 * len(config.stages.starts)
        assert smoke.data.labels <= 100
        places.add((cell.row, cell.column))
    assert len(places) == len(TABLES[name].cells)


def test_seeds():
    assert {name: table.seeds for name, table in TABLES.items() if table.seeds != 5} == {
        "mnist": 3,
        **{f"ccn/{name}": 10 for name in ("two_spirals", "table2", "table3", "table4")},
    }


def test_table_1_follows_section_5_2():
    muscle = of("muscle/table1", "MUSCLE + MT", "cifar10, 1000 labels")
    assert (muscle.data.labeled_rows, muscle.data.unlabeled_rows) == (64, 64)
    assert (muscle.optim.lr, muscle.optim.weight_decay, muscle.optim.momentum) == (0.05, 2e-4, 0.9)
    assert (muscle.model.name, muscle.model.dropout, muscle.model.weight_norm) == (
        *("conv_large", 0.0, True),
    )
    assert muscle.steps == 180 * (49_000 // 64)
    rate = muscle.optim.settings(muscle.steps, muscle.steps)["lr"]
    at_210 = muscle.optim.settings(round(muscle.steps * 210 / 180), muscle.steps)["lr"]
    assert rate > 0.002
    assert at_210 == pytest.approx(0, abs=1e-9)

    teacher = of("muscle/table1", "Mean-Teacher", "cifar10, 1000 labels")
    assert (teacher.data.labeled_rows, teacher.data.unlabeled_rows) == (50, 50)
    assert teacher.model.dropout == 0.5
    matched = of("muscle/table1", "Mean-Teacher, matched", "cifar10, 1000 labels")
    for key in ("data", "optim", "model", "steps"):
        assert getattr(matched, key) == getattr(muscle, key)

    alone = of("muscle/table1", "Supervised Learning", "cifar10, 500 labels")
    assert (alone.data.labeled_rows, alone.data.unlabeled_rows) == (100, 0)
    assert alone.steps == 180 * (49_500 // 50)
    propagated = of("muscle/table1", "Label Propagation", "cifar10, 500 labels")
    assert propagated.steps == 2 * alone.steps
    assert propagated.stages.starts == (0, alone.steps)
    unit = [
        of("muscle/table1", row, "cifar10, 500 labels").model.unit_features
        for row in (*("Label Propagation", "LP + MT", "MUSCLE + MT + LP"),)
    ]
    assert unit == [True, None, None]


def test_table_2_has_the_references_batch_without_muscle():
    teacher = of("muscle/table2", "Mean-Teacher", "cifar100, 4000 labels")
    assert (teacher.data.labeled_rows, teacher.data.unlabeled_rows) == (31, 97)
    assert teacher.optim.lr == 0.2


def test_fixmatch_has_two_settings():
    first = of("muscle/table4", "FixMatch, setting 1", "cifar100, 500 labels")
    second = of("muscle/table4", "FixMatch, setting 2", "cifar100, 500 labels")
    assert (first.optim.lr, first.optim.schedule, first.optim.decayed) == (0.05, "cosine", "all")
    assert (second.optim.lr, second.optim.weight_decay) == (0.03, 1e-3)
    assert (second.optim.schedule, second.optim.decayed) == ("seven_sixteenths", "kernels")
    assert second.steps / first.steps == 300 / 180
    assert first.data.labeled_rows == second.data.unlabeled_rows == 64


def test_figure_2a_varies_the_batch_alone():
    rows = [f"r = {r}" for r in ("0.33", "1.00", "1.67", "3.00", "7.00")]
    configs = [of("muscle/figure2a", row, "250 labels") for row in rows]
    assert {c.data.labeled_rows + c.data.unlabeled_rows for c in configs} == {128}
    assert len({(c.steps, c.optim) for c in configs}) == 1
    assert configs[1].data.labeled_rows == 64


def test_figure_3_counts_labels_by_subclass():
    table = TABLES["muscle/figure3"]
    config = table.cells[0].config(seed=0)
    assert (config.data.rule, config.data.labels) == ("sequestered", 5 * 80)
    assert len(runs(table.cells, 1, Path())) == 3 * 4
    figures = {cell.column: cell.figure for cell in table.cells}
    assert figures["accuracy in %, all"] == "accuracy"
    assert figures["entropy in nats, unlabeled"] == "entropy_unlabeled_subclasses"


def test_top_1_and_top_5_are_of_the_same_runs(tmp_path):
    table = TABLES["muscle/table3"]
    assert len(runs(table.cells, 2, tmp_path)) == len(table.cells)  # two figures, two seeds


def test_a_run_comes_after_the_one_it_starts_from(tmp_path):
    first = Cell("pre", "c", "supervised", "digits")
    cells = [Cell(row, "c", "muscle", "digits", origin=first) for row in ("a", "b")]
    rows = [(cell.row, seed) for cell, seed in runs(cells, 2, tmp_path)]
    assert rows == [("pre", 0), ("a", 0), ("b", 0), ("pre", 1), ("a", 1), ("b", 1)]
