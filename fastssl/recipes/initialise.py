"""Starting a run from the networks that another run trained."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastssl.algorithms.average import WeightAverage
from fastssl.algorithms.base import Algorithm
from fastssl.errors import InputError
from fastssl.models import Backbone
from fastssl.recipes.config import ModelConfig
from fastssl.training.checkpoint import Checkpoints, Identity, difference, section
from fastssl.training.record import RunFolder


@dataclass(frozen=True)
class Origin:
    """What a run was started from; run.json keeps it."""

    run: str
    algorithm: str
    step: int
    networks: dict[str, str]  # this run's networks, each with the one its weights come from
    fresh: tuple[str, ...]  # networks the other run has nothing for
    head_kept: bool  # the two runs' classes are the same

    def __str__(self) -> str:
        """In one line."""
        taken = ", ".join(
            name if name == origin else f"{name} from its {origin}"
            for name, origin in self.networks.items()
        )
        fresh = f"; freshly initialised: {', '.join(self.fresh)}" if self.fresh else ""
        head = "kept" if self.head_kept else "freshly initialised, as the classes differ"
        whose = f"{self.run} ({self.algorithm}, step {self.step})"
        return f"starts from {whose}: {taken}{fresh}; head {head}"


def initialise(
    algorithm: Algorithm, model: ModelConfig, class_names: tuple[str, ...], run: Path
) -> Origin:
    """Give an algorithm's networks the weights of those that a finished run trained.

    Each gets those of the run's network of the same name; an average of weights that the run has
    no counterpart of starts as a copy of the network it averages. Their heads stay as they are
    unless the run was trained on classes of the same names.

    Args:
        algorithm: freshly initialised.
        model: what its networks were built from.
        class_names: of its data.
        run: the folder of a finished run, of any algorithm and data.

    Raises:
        InputError: not a finished run, its checkpoint is damaged, or it trained another network;
            the first difference is named. The algorithm is then as it was.
    """
    folder = RunFolder.open(run)
    description = folder.description()
    try:
        config = description["config"]
        name, steps, its_model = config["algorithm_name"], config["steps"], config["model"]
        head_kept = description["data"]["class_names"] == list(class_names)
    except (KeyError, TypeError) as error:
        raise InputError(f"init: {folder.run_json} is not one that fastssl wrote") from error
    step, state = Checkpoints(folder.checkpoints, Identity(name, "", "")).last_state()
    if step != steps:
        raise InputError(f"init: {run} is at step {step} of {steps}; finish it with --resume")

    networks = own_networks(algorithm)
    averages = {n: m for n, m in algorithm.named_modules() if isinstance(m, WeightAverage)}
    origins = {}
    for own in networks:
        average = own.removesuffix(".network") in averages
        candidates = (own, "network") if average else (own,)
        found = [name for name in candidates if section(state, f"{name}.")]
        if found:
            origins[own] = found[0]
    loaded: dict[str, dict[str, Tensor]] = {}
    for own, origin in origins.items():
        weights = networks[own].state_dict()
        found = section(state, f"{origin}.")
        if not head_kept:
            found = {key: x for key, x in found.items() if not key.startswith("head.")}
            found |= {key: x for key, x in weights.items() if key.startswith("head.")}
        if unlike := difference(weights, found):
            change = _first_change(model, its_model)
            raise InputError(f"init: {run} trained another network: {unlike}{change}")
        loaded[own] = found
    for own, weights in loaded.items():
        networks[own].load_state_dict(weights)
    for own, average in averages.items():
        if origins[f"{own}.network"] != "network":
            average.updates.copy_(state[f"{own}.updates"])
    fresh = tuple(own for own in networks if own not in origins)
    return Origin(str(run), name, step, origins, fresh, head_kept)


def own_networks(algorithm: Algorithm) -> dict[str, Backbone]:
    """An algorithm's networks by their names in its state_dict, those inside another left out."""
    found: dict[str, Backbone] = {}
    for name, module in algorithm.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, Backbone) and not inside:
            found[name] = module
    return found


def _first_change(model: ModelConfig, its_model: dict[str, Any]) -> str:
    """In what the two runs' configurations of the network differ, in words; "" if in nothing."""
    for key, own in asdict(model).items():
        if its_model.get(key) != own:
            return f"; its model.{key} is {its_model.get(key)}, this run's {own}"
    return ""
