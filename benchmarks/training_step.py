"""A whole training step of MUSCLE against loops of plain PyTorch: views, losses, optimiser.

N rows a step, half of them labeled, of S x S pixels in colour; small_cnn, a weak view and three of
IIC's hard ones. Each call is the next step of a run. "DataLoader" is the loop that is usually
written: a Dataset whose transforms are torchvision's where it is installed, else the same steps by
Pillow, in no worker; views stacked, networks and losses torch's own. "eager" has our views, and all
else as the DataLoader's loop. The images are photographs, as in augment's benchmark.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torch.utils.flop_counter import FlopCounterMode

from fastssl.algorithms import named
from fastssl.algorithms.base import Batch
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

CASES = [(16, 32), (128, 32)]
EMPTY = (4, 8)
CLASSES, LABELED, IMAGES, HARD_VIEWS = 10, 100, 1000, 3
OPTIM = OptimConfig(lr=0.05, weight_decay=2e-4)


def implementations(
    N: int, S: int, device: torch.device, dtype: torch.dtype
) -> Iterator[Implementation]:
    """What is timed for one shape; fastssl first. The step keeps float32 weights in any dtype."""
    images = photographs(IMAGES, S)
    labels = torch.arange(IMAGES) % CLASSES
    names = tuple(str(c) for c in range(CLASSES))
    source = Source(
        "photographs", images, labels, images[:0], labels[:0], names,
        known_statistics=(torch.tensor(MEAN), torch.tensor(STD)),
    )  # fmt: skip
    policies = [Weak(translate=S // 8, flip=True), *[IICHard(crop=S * 20 // 32)] * HARD_VIEWS]
    streams = TwoStreams(
        source,
        draw_split(source, num_labels=LABELED, seed=0),
        policies,
        labeled_rows=N // 2,
        unlabeled_rows=N - N // 2,
        seed=0,
        device=device,
    )
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    for name, step in (
        ("fastssl", ours(streams, autocast)),
        ("eager", plain(_usual_network(S, device), _our_views(streams), autocast)),
        (
            "DataLoader",
            plain(_usual_network(S, device), loaded(images, labels, N, device), autocast),
        ),
    ):
        yield Implementation(name, step, [], check=name != "DataLoader")


def ours(streams: TwoStreams, autocast) -> Callable[[], Tensor]:
    """A step as `fastssl train` takes it; its loss."""
    device = streams.device
    muscle = named("muscle")
    network = _network(device).to(memory_format=torch.channels_last)
    algorithm = muscle.kind(network, muscle.config, muscle.muscle)
    optimizer = OPTIM.build(algorithm.parameters())
    steps = itertools.count()

    def step() -> Tensor:
        with torch.enable_grad(), freed_memory_kept(give_back=False):
            batch = Batch(*streams.at(next(steps)))
            with autocast:
                loss = algorithm.loss(batch)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            return loss.total.detach()

    return step


def plain(
    network: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], autocast
) -> Callable[[], Tensor]:
    """A step on views [V,N,K,S,S] and labels [L]; its loss."""
    optimizer = torch.optim.SGD(
        network.parameters(), OPTIM.lr, OPTIM.momentum, weight_decay=OPTIM.weight_decay,
        nesterov=True,
    )  # fmt: skip

    def step() -> Tensor:
        with torch.enable_grad():
            views, labels = next(batches)
            with autocast:
                logits = network(views.flatten(0, 1))[0].unflatten(0, views.shape[:2])
                information = mutual_information_reference(logits[0].float(), logits[1:].float())
                loss = F.cross_entropy(logits[0, : len(labels)], labels) - information
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

    return step


def loaded(
    images: Tensor, labels: Tensor, N: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Views and labels of a step, of two loaders without workers: labeled rows, unlabeled rows."""
    weak, hard = transforms(images.shape[-1])
    parts = [
        DataLoader(
            _Views(images[rows], labels[rows], weak, hard),
            batch_size=count,
            sampler=RandomSampler(rows, replacement=True, num_samples=10**9),
        )
        for rows, count in ((range(LABELED), N // 2), (range(LABELED, IMAGES), N - N // 2))
    ]
    for (labeled, known), (unlabeled, _) in zip(*parts, strict=True):
        views = [torch.cat(pair) for pair in zip(labeled, unlabeled, strict=True)]
        yield torch.stack(views).to(device), known.to(device)


class _Views(Dataset):
    """A weak view and the hard ones of an image, and its label."""

    def __init__(self, images: Tensor, labels: Tensor, weak: Callable, hard: Callable) -> None:
        self.arrays = images.permute(0, 2, 3, 1).numpy()
        self.labels, self.weak, self.hard = labels, weak, hard

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, n: int) -> tuple[list[Tensor], Tensor]:
        from PIL import Image

        image = Image.fromarray(self.arrays[n])
        return [self.weak(image), *(self.hard(image) for _ in range(HARD_VIEWS))], self.labels[n]


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
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = build_model("small_cnn", 3, CLASSES)
        network(torch.empty((1 + HARD_VIEWS) * N, 3, S, S))
    numbers = sum(p.numel() for p in network.parameters())
    moved = N * 3 * S**2 + 5 * 4 * numbers  # weight, gradient and momentum read, two written
    return {"forward": Work(bytes=moved, flops=3 * counter.get_total_flops())}


def _network(device: torch.device) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model("small_cnn", 3, CLASSES).to(device)


def _usual_network(S: int, device: torch.device) -> nn.Module:
    """The same network for S x S pixels, of torch's modules one after the other."""
    network, layers = _network(device), []
    for layer in network.extractor:
        if isinstance(layer, ConvolutionLayer):
            layers += layer
            if layer.halve_from is not None and layer.halve_from <= S:
                layers.append(nn.MaxPool2d(2))
                S //= 2
        else:
            layers.append(layer)
    network.extractor = nn.Sequential(*layers)
    return network


def _our_views(streams: TwoStreams) -> Iterator[tuple[Tensor, Tensor]]:
    for step in itertools.count():
        views, labels, _ = streams.at(step)
        yield views, labels
