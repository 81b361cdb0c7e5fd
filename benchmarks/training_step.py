"""A whole training step of MUSCLE against loops of plain PyTorch: views, losses, optimiser.

N rows a step, half of them labeled, of S x S pixels in colour; a weak view and three of IIC's hard
ones. On the CPU that is MUSCLE alone with small_cnn; on a GPU it is MUSCLE with Mean Teacher, whose
teacher sees a weak view more, and conv_large without dropout, and all of it is replayed from one
CUDA graph. Each call is the next step of a run. "DataLoader" is the loop that is usually written: a
Dataset whose transforms are torchvision's where it is installed, else the same steps by Pillow, in
no worker; views stacked, networks and losses torch's own. "eager" has our views, and all else as
the DataLoader's loop; on a GPU "torch.compile" is that with the student compiled. The images are
photographs, as in augment's benchmark.
"""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torch.utils.flop_counter import FlopCounterMode

from fastssl.algorithms import named
from fastssl.algorithms.base import State
from fastssl.benchmarks.augment import MEAN, STD, photographs
from fastssl.benchmarks.harness import Implementation, Work
from fastssl.data.batches import TwoStreams
from fastssl.data.sources import Source
from fastssl.data.splits import draw_split
from fastssl.models import build_model
from fastssl.models.convolution import ConvolutionLayer
from fastssl.ops.mutual_information import mutual_information_reference
from fastssl.ops.policies import IICHard, Weak
from fastssl.recipes.optim import OptimConfig
from fastssl.training.memory import freed_memory_kept
from fastssl.training.step import step_by

CASES = [(16, 32), (128, 32)]
EMPTY = (4, 12)  # conv_large takes no smaller images
DTYPES = (torch.float32, torch.bfloat16)  # of the passes; weights are float32
CLASSES, LABELED, IMAGES, HARD_VIEWS = 10, 100, 1000, 3
TEACHER_WEIGHT, TEACHER_DECAY = 100.0, 0.97  # MeanTeacherConfig's, whose ramp has ended here
OPTIM = OptimConfig(lr=0.05, weight_decay=2e-4)


def implementations(
    N: int, S: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first. The step keeps float32 weights in any dtype."""
    job, source = _workload(device), _source(S)
    streams = _streams(source, N, S, device, job)
    autocast = _autocast(device, dtype)

    def usual(batches: Iterator[tuple[Tensor, Tensor]], *, compiled: bool = False) -> Callable:
        return plain(_usual_network(job, S, device), batches, autocast, job, compiled=compiled)

    python = {"inputs": [], "captured": False}  # each has a run's state, which Python moves on
    own = our_step(N, S, device, dtype, job.compiler)
    yield Implementation("fastssl", own, **python)
    yield Implementation("eager", usual(_our_views(streams)), **python)
    if device.type == "cuda":
        compiled = usual(_our_views(streams), compiled=True)
        yield Implementation("torch.compile", compiled, **python)
    loader = loaded(source.images, source.labels, N, device, job.teacher_views)
    yield Implementation("DataLoader", usual(loader), check=False, **python)


@dataclass(frozen=True)
class Workload:
    """What trains what."""

    algorithm: str
    network: str
    options: dict[str, Any]
    compiler: str  # of the passes
    teacher_views: int


def _workload(device: torch.device) -> Workload:
    if device.type == "cuda":
        options = {"dropout": 0.0, "weight_norm": True}
        return Workload("muscle+mean-teacher", "conv_large", options, "graph", 1)
    return Workload("muscle", "small_cnn", {}, "none", 0)


def our_step(
    N: int, S: int, device: torch.device, dtype: torch.dtype, compiler: str
) -> Callable[[], Tensor]:
    """A step as `fastssl train` takes it, by one of its compilers; its loss."""
    job = _workload(device)
    known, autocast = named(job.algorithm), _autocast(device, dtype)
    streams = _streams(_source(S), N, S, device, job)
    network = _network(job, device).to(memory_format=torch.channels_last)
    algorithm = known.kind(network, known.config, known.muscle)
    algorithm.to(device).before_epoch(State(step=0, epoch=1000))
    optimizer = OPTIM.build(algorithm.parameters())
    take_step = step_by(compiler, algorithm, streams, optimizer, autocast)
    steps = itertools.count()

    def step() -> Tensor:
        with torch.enable_grad(), freed_memory_kept(give_back=False):
            number = next(steps)
            _, loss = take_step(number, State(step=number + 1, epoch=0))
            return loss.total.detach()

    return step


def plain(
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    autocast,
    job: Workload,
    *,
    compiled: bool = False,
) -> Callable[[], Tensor]:
    """A step on views [V,N,K,S,S] and labels [L]; its loss."""
    optimizer = torch.optim.SGD(
        network.parameters(), OPTIM.lr, OPTIM.momentum, weight_decay=OPTIM.weight_decay,
        nesterov=True,
    )  # fmt: skip
    teacher = copy.deepcopy(network).requires_grad_(False) if job.teacher_views else None
    student = torch.compile(network) if compiled else network
    updates = itertools.count(1)

    def step() -> Tensor:
        with torch.enable_grad():
            views, labels = next(batches)
            own = views[: 1 + HARD_VIEWS]
            with autocast:
                logits = student(own.flatten(0, 1))[0].unflatten(0, own.shape[:2])
                information = mutual_information_reference(logits[0].float(), logits[1:].float())
                loss = F.cross_entropy(logits[0, : len(labels)], labels)
                if teacher is not None:
                    with torch.no_grad():
                        target = teacher(views[-1])[0].softmax(-1)
                    distance = F.mse_loss(logits.softmax(-1), target.expand_as(logits))
                    loss = loss * len(labels) / views.shape[1] + TEACHER_WEIGHT * distance
                loss = loss - information
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if teacher is not None:
                decay = min(1 - 1 / (next(updates) + 1), TEACHER_DECAY)
                with torch.no_grad():
                    for average, new in zip(
                        teacher.parameters(), network.parameters(), strict=True
                    ):
                        average.lerp_(new, 1 - decay)
            return loss.detach()

    return step


def loaded(
    images: Tensor, labels: Tensor, N: int, device: torch.device, teacher_views: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Views and labels of a step, of two loaders without workers: labeled rows, unlabeled rows."""
    weak, hard = transforms(images.shape[-1])
    parts = [
        DataLoader(
            _Views(images[rows], labels[rows], weak, hard, teacher_views),
            batch_size=count,
            sampler=RandomSampler(rows, replacement=True, num_samples=10**9),
        )
        for rows, count in ((range(LABELED), N // 2), (range(LABELED, IMAGES), N - N // 2))
    ]
    for (labeled, known), (unlabeled, _) in zip(*parts, strict=True):
        views = [torch.cat(pair) for pair in zip(labeled, unlabeled, strict=True)]
        yield torch.stack(views).to(device), known.to(device)


class _Views(Dataset):
    """The views of an image, weak and hard, and its label."""

    def __init__(
        self, images: Tensor, labels: Tensor, weak: Callable, hard: Callable, teacher_views: int
    ) -> None:
        self.arrays = images.permute(0, 2, 3, 1).numpy()
        self.labels, self.views = labels, [weak, *[hard] * HARD_VIEWS, *[weak] * teacher_views]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, n: int) -> tuple[list[Tensor], Tensor]:
        from PIL import Image

        image = Image.fromarray(self.arrays[n])
        return [view(image) for view in self.views], self.labels[n]


def transforms(S: int) -> tuple[Callable, Callable]:
    """The weak and the hard view of a Pillow image as a normalised tensor, as torchvision v1."""
    try:
        from torchvision import transforms as v1
    except ImportError:
        from fastssl.benchmarks.pillow_views import transforms as by_pillow

        return by_pillow(S, MEAN, STD)
    ending = [v1.ToTensor(), v1.Normalize(MEAN, STD)]
    crop = v1.RandomCrop(S, padding=S // 8, padding_mode="reflect")
    parts = [v1.RandomCrop(S * 20 // 32), v1.Resize(S), v1.RandomHorizontalFlip()]
    return (
        v1.Compose([crop, v1.RandomHorizontalFlip(), *ending]),
        v1.Compose([*parts, v1.ColorJitter(0.4, 0.4, 0.4, 0.125), *ending]),
    )


def work(N: int, S: int, size: int) -> dict[str, Work]:
    """Convolutions of all views, forward and twice as much backward; images in, weights moved."""
    return _work(N, S, torch.device("cpu"))


def gpu_work(N: int, S: int, size: int) -> dict[str, Work]:
    """As `work`, of the GPU's networks: the teacher's views go forward alone."""
    return _work(N, S, torch.device("cuda"))


def _work(N: int, S: int, device: torch.device) -> dict[str, Work]:
    job = _workload(device)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = build_model(job.network, 3, CLASSES, **job.options)
        network(torch.empty(N, 3, S, S))
    view, numbers = counter.get_total_flops(), sum(p.numel() for p in network.parameters())
    moved = 5 * 4 * numbers  # weight, gradient and momentum read, two written
    if job.teacher_views:
        moved += 2 * 4 * numbers  # the average, with the weight at hand
    flops = (3 * (1 + HARD_VIEWS) + job.teacher_views) * view
    return {"forward": Work(bytes=N * 3 * S**2 + moved, flops=flops)}


@functools.cache
def _source(S: int) -> Source:
    """Photographs of S x S pixels, their classes taken in turn."""
    images, labels = photographs(IMAGES, S), torch.arange(IMAGES) % CLASSES
    names = tuple(str(c) for c in range(CLASSES))
    known = torch.tensor(MEAN), torch.tensor(STD)
    none = images[:0], labels[:0]
    return Source("photographs", images, labels, *none, names, known_statistics=known)


def _streams(source: Source, N: int, S: int, device: torch.device, job: Workload) -> TwoStreams:
    weak, hard = Weak(translate=S // 8, flip=True), IICHard(crop=S * 20 // 32)
    return TwoStreams(
        source,
        draw_split(source, num_labels=LABELED, seed=0),
        [weak, *[hard] * HARD_VIEWS, *[weak] * job.teacher_views],
        labeled_rows=N // 2,
        unlabeled_rows=N - N // 2,
        seed=0,
        device=device,
        memory_format=torch.channels_last if device.type == "cuda" else torch.contiguous_format,
    )


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _network(job: Workload, device: torch.device) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(job.network, 3, CLASSES, **job.options).to(device)


def _usual_network(job: Workload, S: int, device: torch.device) -> nn.Module:
    """The same network for S x S pixels, of torch's modules one after the other."""
    network, layers = _network(job, device), []
    for layer in network.extractor:
        if isinstance(layer, ConvolutionLayer):
            layers += layer
            if layer.halve_from is not None and layer.halve_from <= S:
                layers.append(nn.MaxPool2d(2))
                S //= 2
        else:
            layers.append(layer)
    network.extractor = nn.Sequential(*layers)
    on_gpu = device.type == "cuda"
    return network.to(memory_format=torch.channels_last if on_gpu else torch.contiguous_format)


def _our_views(streams: TwoStreams) -> Iterator[tuple[Tensor, Tensor]]:
    for step in itertools.count():
        views, labels, _ = streams.at(step)
        yield views, labels
