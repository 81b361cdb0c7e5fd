"""The figures of an algorithm's own that a set of runs has, beside the curves of all."""

from collections.abc import Callable, Sequence

from fastssl.reporting import ccn
from fastssl.reporting.drawing import Drawing
from fastssl.training.record import RunFolder

FIGURES: tuple[Callable[[Sequence[RunFolder]], list[Drawing]], ...] = (ccn.figures,)


def figures(folders: Sequence[RunFolder]) -> list[Drawing]:
    """Every figure there is something to draw of in these runs.

    Raises:
        InputError: a run's files are damaged.
    """
    return [drawing for draw in FIGURES for drawing in draw(folders)]
