"""torch's default generators, which dropout and VAT's random start draw from.

R processes each have their own. The first one's is the run's: it also makes the draws that all
processes share (`Ranks.randn_like`), so that one process alone draws the same.
"""

import torch
from torch import Tensor

from fastssl.algorithms.ranks import Ranks

NAMES = ("cpu", "cuda")


def generator_states(ranks: Ranks, device: torch.device) -> dict[str, Tensor]:
    """The states of all processes, uint8 [R, bytes], by their names in a checkpoint.

    Every process must call.
    """
    states = {"generator.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["generator.cuda"] = torch.cuda.get_rng_state(device)
    return {name: ranks.gather(state[None]) for name, state in states.items()}


def check_generators(states: dict[str, Tensor]) -> None:
    """Refuse what torch would not take as its generators' states.

    Args:
        states: uint8 [R, bytes] by "cpu" or "cuda".

    Raises:
        ValueError: says which one, and what it is.
    """
    if "cpu" not in states or not states.keys() <= set(NAMES):
        raise ValueError(f"its generators are {', '.join(sorted(states)) or 'missing'}")
    for name, rows in states.items():
        if rows.dtype != torch.uint8 or rows.dim() != 2 or not rows.numel():
            raise ValueError(f"generator.{name} is {rows.dtype} {tuple(rows.shape)}")
    try:
        for row in states["cpu"]:
            torch.Generator().set_state(row.clone())
    except RuntimeError as error:
        raise ValueError("generator.cpu is not a generator's state") from error


def restore_generators(states: dict[str, Tensor], rank: int, device: torch.device) -> None:
    """Go on drawing where process `rank` stopped; one that was not there starts its own."""
    known = rank if rank < len(states["cpu"]) else 0
    # Copies: torch reads a row of a larger tensor from the wrong place.
    torch.set_rng_state(states["cpu"][known].clone())
    if device.type == "cuda" and known < len(states.get("cuda", ())):
        torch.cuda.set_rng_state(states["cuda"][known].clone(), device)
    if known != rank:
        own_generator(rank)


def own_generator(rank: int) -> None:
    """Leave the first process its generators; give another its own, derived from the first's."""
    if rank:
        torch.manual_seed(int(torch.randint(2**62, ())) + rank)
