"""The tables and figures that `fastssl reproduce` makes, by name."""

from fastssl.recipes.tables import ccn, muscle, muscle_figures, small
from fastssl.recipes.tables.cells import Table

__all__ = ["TABLES"]

TABLES: dict[str, Table] = {
    "digits": small.DIGITS,
    "mnist": small.MNIST,
    "muscle/table1": muscle.TABLE1,
    "muscle/table2": muscle.TABLE2,
    "muscle/table3": muscle.TABLE3,
    "muscle/table4": muscle.TABLE4,
    "muscle/table5": muscle.TABLE5,
    "muscle/figure2a": muscle_figures.FIGURE2A,
    "muscle/figure2b": muscle_figures.FIGURE2B,
    "muscle/figure2c": muscle_figures.FIGURE2C,
    "muscle/figure2d": muscle_figures.FIGURE2D,
    "muscle/figure3": muscle_figures.FIGURE3,
    "ccn/two_spirals": ccn.TWO_SPIRALS,
    "ccn/digits": ccn.DIGITS,
    "ccn/table2": ccn.TABLE2,
    "ccn/table3": ccn.TABLE3,
    "ccn/table4": ccn.TABLE4,
}
