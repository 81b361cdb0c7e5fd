"""The results of runs, read from their folders, and their mean over seeds."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastssl.errors import InputError
from fastssl.training.record import RunFolder, read_metrics


@dataclass(frozen=True)
class Result:
    """What one network of a run reached on the test part."""

    folder: RunFolder
    algorithm: str
    data: str
    labels: int | None  # None: all
    seed: int
    setting: str  # the configuration without its seed, as text: equal for runs that repeat another
    network: str
    accuracy: float | None  # None: the run has not reached its end
    step: int
    steps: int

    @property
    def data_name(self) -> str:
        """The data set's name, or the last folder of its path."""
        path = Path(self.data)
        return path.parent.name if path.suffix.lower() == ".csv" else path.name


@dataclass(frozen=True)
class Summary:
    """Runs that differ by their seed alone."""

    example: Result
    mean: float
    std: float  # with n - 1
    n: int


def results(folder: RunFolder) -> list[Result]:
    """One result for each network of a run; one without accuracy if the run is not finished.

    Raises:
        InputError: run.json or metrics.jsonl is damaged.
    """
    rows = read_metrics(folder.metrics_jsonl)
    step = rows[-1]["step"] if rows else 0
    config = folder.description().get("config")
    try:
        finished = step == config["steps"]
        setting = {key: value for key, value in config.items() if key != "seed"}
        shared = {
            "folder": folder,
            "algorithm": config["algorithm_name"],
            "data": config["data"]["source"],
            "labels": config["data"]["labels"],
            "seed": config["seed"],
            "setting": json.dumps(setting, sort_keys=True),
            "step": int(step),
            "steps": config["steps"],
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{folder.run_json}: not a configuration that fastssl wrote") from error
    prefix = "accuracy/test/"
    last = rows[-1] if finished else {}
    reached = {key.removeprefix(prefix): last[key] for key in last if key.startswith(prefix)}
    return [
        Result(network=network, accuracy=accuracy, **shared)
        for network, accuracy in (reached or {"": None}).items()
    ]


def summaries(found: Sequence[Result]) -> list[Summary]:
    """Mean and standard deviation over seeds, for every setting with two finished runs or more."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in found:
        if result.accuracy is not None:
            groups.setdefault((result.setting, result.network), []).append(result)
    means = []
    for group in groups.values():
        if len({result.seed for result in group}) == len(group) > 1:
            values = [result.accuracy for result in group]
            mean, std = statistics.mean(values), statistics.stdev(values)
            means.append(Summary(group[0], mean, std, len(group)))
    return means
