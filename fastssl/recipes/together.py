"""Several processes that open one run: the first decides, the others follow its files."""

from collections.abc import Callable
from pathlib import Path

from fastssl.algorithms.ranks import Ranks
from fastssl.recipes.runs import Run, load_run
from fastssl.training.distributed import all_or_none, first_alone


def together(ranks: Ranks, path: Path, open_run: Callable[[], Run]) -> Run:
    """What `open_run` gives in the first process, and the same run in the others.

    The first reads or fetches the data, draws the split and writes the folder before any other
    process looks: nothing is done twice, and what is wrong is said once.

    Args:
        ranks: the processes.
        path: the folder of the run.
        open_run: `start` or `resume` of it.

    Raises:
        InputError: as `open_run`, in the first process; as `load_run` in another.
        PeerError: in the processes beside the one that raised.
    """
    with first_alone(ranks) as first:
        if first:
            run = open_run()
    with all_or_none(ranks):
        return run if first else load_run(path, ranks=ranks)
