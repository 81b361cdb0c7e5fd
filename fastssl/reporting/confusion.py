"""Which classes a network takes for which. C classes, N test images."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

READABLE = 25  # classes up to which every cell can be read


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another."""

    label: int
    taken_for: int
    count: int


def confusion(labels: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """How many images of class i were given class j, int64 [C,C], of labels, classes int64 [N]."""
    index = labels * num_classes + classes
    return torch.bincount(index, minlength=num_classes**2).view(num_classes, num_classes)


def most_confused(counts: Tensor, most: int = 10) -> list[Pair]:
    """The pairs of different classes with the largest of counts int64 [C,C], none of them 0."""
    C = len(counts)
    wrong = counts.clone().fill_diagonal_(0).flatten()
    order = wrong.argsort(descending=True, stable=True)[:most].tolist()
    return [Pair(*divmod(i, C), int(wrong[i])) for i in order if wrong[i]]


def draw_confusion(counts: Tensor) -> Figure:
    """Counts int64 [C,C] as a picture for classes too many for a table, each row over its sum."""
    figure = Figure(figsize=(6, 5.4), dpi=160)
    panel = figure.subplots()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    image = panel.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    panel.set(xlabel="number of the class it was given", ylabel="number of its class")
    figure.colorbar(image, label="share of the class")
    figure.tight_layout()
    return figure
