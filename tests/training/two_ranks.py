"""What the processes of test_distributed.py run: all that takes two of them, started once."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from fastssl.algorithms import named
from fastssl.algorithms.base import Algorithm, Batch
from fastssl.algorithms.ranks import ALONE, Ranks
from fastssl.data.batches import TwoStreams
from fastssl.data.sources import load_source
from fastssl.data.splits import draw_split
from fastssl.data.streams import Shard
from fastssl.errors import InputError, PeerError, StoppedError
from fastssl.models import Backbone
from fastssl.recipes import recipe
from fastssl.recipes.experiment import configure
from fastssl.recipes.runs import Run, fit, resume, start
from fastssl.recipes.together import together
from fastssl.training.checkpoint import Checkpoints, Identity
from fastssl.training.distributed import average, first_alone
from fastssl.training.engine import train
from fastssl.training.generators import own_generator
from fastssl.training.record import MetricsLog
from fastssl.training.schedules import Stages
from fastssl.training.step import Step

# Algorithms whose losses two processes share with one, and rates that move their terms. At 0.05 a
# unit of CCN's correction network comes to LeakyReLU's kink, where rounding decides on the slope.
EQUAL = {"muscle+mean-teacher": 0.5, "ccn": 0.03}
STEPS = 20
ROWS = {"labeled_rows": 32, "unlabeled_rows": 128}  # 11 steps to a pass: the second has targets
WITH_BATCH_NORM = ("muscle+fixmatch", "ccn")
SHORT = {
    "data.labels": 20,
    "data.labeled_rows": 10,
    "data.unlabeled_rows": 20,
    "device": "cpu",
    "log_every": 1,
    "eval.every": 4,
    "checkpoint.every": 4,
    "steps": 6,
}


def plain_network() -> Backbone:
    """Without batch norm and dropout: a row's output is the same in any batch."""
    return Backbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU()), 32, 10)


def train_plainly(name: str, folder: Path, ranks: Ranks = ALONE) -> Algorithm:
    """20 steps of an algorithm on the digits with that network; metrics.jsonl in the folder."""
    source = load_source("digits")
    split = draw_split(source, num_labels=20, seed=0)
    views, known = recipe(name, "digits").views, named(name)
    ramp = {"ramp_epochs": 2.0}
    torch.manual_seed(0)
    config = replace(known.config, **ramp)
    algorithm = known.kind(plain_network(), config, known.muscle, len(source.labels))
    algorithm.ranks = ranks
    own_generator(ranks.rank)
    streams = TwoStreams(
        source,
        split,
        [views.weak] + [views.hard] * algorithm.hard_views + [views.weak] * algorithm.teacher_views,
        **ROWS,
        seed=0,
        device=torch.device("cpu"),
        shard=Shard(ranks.rank, ranks.count),
    )
    trained = [p for p in algorithm.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=EQUAL[name], momentum=0.9)
    folder.mkdir(exist_ok=True)
    train(
        algorithm,
        Step(algorithm, lambda step: Batch(*streams.at(step)), optimizer),
        optimizer,
        lambda step: {"lr": EQUAL[name]},
        lambda done: {},
        MetricsLog(folder / "metrics.jsonl") if ranks.rank == 0 else None,
        Checkpoints(folder / "checkpoints", Identity(name, "", "")),
        first_step=0,
        stages=Stages((0,), STEPS),
        steps_per_pass=streams.steps_per_pass,
        log_every=1,
        eval_every=STEPS,
        checkpoint_every=STEPS,
        ranks=ranks,
    )
    return algorithm


def opened(name: str, path: Path, ranks: Ranks, *, again: bool = False) -> Run:
    """A short run with batch norm, started or resumed by all ranks."""

    def open_run() -> Run:
        if again:
            return resume(path, name, {}, ranks=ranks)
        return start(configure(name, "digits", SHORT), path, ranks=ranks)

    return together(ranks, path, open_run)


def stopped_at(step: int, run: Run, ranks: Ranks) -> bool:
    """Train until one process alone is told to stop during a step; whether this one stopped too."""
    at = TwoStreams.at

    def interrupted(self: TwoStreams, number: int) -> object:
        if number == step and ranks.rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return at(self, number)

    TwoStreams.at = interrupted
    try:
        fit(run)
    except StoppedError as error:
        return f"after step {step + 1} of" in str(error)
    finally:
        TwoStreams.at = at
    return False


def outcome(action: Callable[[], object]) -> str:
    """How an action ends: the name of what it raises, or ""."""
    try:
        action()
    except (InputError, PeerError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fails_in_the_first(ranks: Ranks) -> None:
    """As a write to a full disk does."""
    with first_alone(ranks) as first:
        if first:
            raise InputError("cannot write")


def rank(number: int, folder: str, count: int) -> None:
    """All of it, in one of the processes; what it found is left in the folder."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", count)
    dist.init_process_group("gloo", store=store, rank=number, world_size=count)
    ranks, root, found = Ranks(number, count), Path(folder), {}
    for name in EQUAL:
        algorithm = train_plainly(name, root / f"plain-{name}", ranks)
        found[f"state of {name}"] = algorithm.state_dict()
    tensors = [torch.full((3,), float(number)), torch.full((2, 2), 2.0 * number).double()]
    average(ranks, tensors)
    found["means"] = [tensor.flatten() for tensor in tensors]
    found["gathered"] = ranks.gather(torch.tensor([[number, 0], [number, 1]]))
    images = torch.zeros(3, 2, 4, 5).to(memory_format=torch.channels_last)
    torch.manual_seed(7 + number)
    found["noise"] = ranks.randn_like(images)
    found["failed"] = outcome(lambda: fails_in_the_first(ranks))
    for name in WITH_BATCH_NORM:
        straight = opened(name, root / f"straight-{name}", ranks)
        fit(straight)
        found[f"trained {name}"] = straight.experiment.algorithm.state_dict()
        found[f"stopped {name}"] = stopped_at(
            2, opened(name, root / f"stopped-{name}", ranks), ranks
        )
        if number == 0:
            shutil.copytree(root / f"stopped-{name}", root / f"alone-{name}")
        fit(opened(name, root / f"stopped-{name}", ranks, again=True))
    odd = configure("muscle", "digits", SHORT | {"data.labeled_rows": 11})
    path = root / "odd"
    found["odd"] = outcome(lambda: together(ranks, path, lambda: start(odd, path, ranks=ranks)))
    torch.save(found, f"{folder}/{number}")
    dist.barrier()
    dist.destroy_process_group()
