"""The features of real images that the diffusion benchmark is measured on.

Trains small_cnn with a last layer of 64 features on CIFAR-10's labels, a few minutes on one core,
and writes features [50000, 64] of the training images and their labels:

    python -m fastssl.benchmarks.studies.cifar10_features features.npz --data-dir DIR
    FASTSSL_BENCH_FEATURES=features.npz fastssl bench diffuse

N images, D features, C classes.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastssl.data.normalise import normalise
from fastssl.data.sources import Source, load_source
from fastssl.models.backbone import Backbone
from fastssl.models.small_cnn import WIDTHS, SmallCNN

D, C = 64, 10
BATCH, LEARNING_RATE = 128, 0.1


def trained_network(source: Source, steps: int) -> nn.Module:
    """A small network after some steps on all labels, images flipped at random."""
    torch.manual_seed(0)
    extractor = SmallCNN(3, C).extractor
    network = Backbone(nn.Sequential(extractor, nn.Linear(WIDTHS[-1], D), nn.ReLU()), D, C)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, 0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(source.images), (BATCH,))
        images = normalise(source.images[chosen], source.mean, source.std)
        flipped = torch.rand(BATCH, 1, 1, 1) < 0.5
        logits, _ = network(torch.where(flipped, images.flip(3), images))
        optimizer.zero_grad()
        F.cross_entropy(logits, source.labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def outputs(network: nn.Module, source: Source, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, C] and features [N, D] of uint8 images."""
    parts = [network(normalise(x, source.mean, source.std)) for x in images.split(500)]
    logits, features = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits, features


def main() -> None:
    """Train, say how well the network does, write the features."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help=".npz to write")
    parser.add_argument("--data-dir", help="root of the named data sets")
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    source = load_source("cifar10", data_dir=arguments.data_dir)
    network = trained_network(source, arguments.steps)
    logits, _ = outputs(network, source, source.test_images)
    right = (logits.argmax(1) == source.test_labels).float().mean().item()
    print(f"test accuracy {100 * right:.1f} %")
    _, features = outputs(network, source, source.images)
    np.savez(arguments.out, features=features.numpy(), labels=source.labels.numpy())


if __name__ == "__main__":
    main()
