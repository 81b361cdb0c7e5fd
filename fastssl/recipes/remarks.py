"""What is said of an experiment before it is trained."""

from collections.abc import Sequence

from fastssl.data.sources.image_folder import duplicates
from fastssl.recipes.experiment import Experiment


def remarks(experiment: Experiment) -> list[str]:
    """What its user should know about an experiment before it is trained, a line each."""
    source, split = experiment.source, experiment.split
    lines = [] if experiment.origin is None else [str(experiment.origin)]
    if source.files and source.files.skipped:
        skipped = source.files.skipped
        lines.append(f"{len(skipped)} files left out, cannot be read: {_first(skipped)}")
    if not experiment.num_test:
        lines.append(
            "no test figure: the data has no test images, and nothing was held out; that needs "
            "two labeled images of each class and --holdout above 0"
        )
    trained = [*split.labeled, *split.unlabeled, *split.validation]
    if same := duplicates(source, list(split.test), trained):
        listed = _first([f"{tested} = {known}" for tested, known in same])
        lines.append(f"{len(same)} test images are in the training part too: {listed}")
    return lines


def _first(items: Sequence[str], most: int = 10) -> str:
    """The first of a list in one line; `fastssl data info` has them all."""
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more
