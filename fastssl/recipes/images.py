"""MUSCLE and its supervised baseline on a folder of your own images, and on the usual data sets.

Command:
    fastssl train muscle --data ./folder
    fastssl train muscle --data cifar10 --labels 1000

Cost: not measured.

Result: not yet reproduced. Starting points, not the papers' settings: MUSCLE's batch (64 labeled
and 64 unlabeled rows), learning rate, weight decay and views, and few steps. Weak views are moved
by up to 4 pixels with reflection and mirrored (but for figures); hard ones are IIC's, for FixMatch
RandAugment and Cutout. A folder's are scaled to its images' side; `fastssl data preview` draws
them. What else a folder gets is chosen from its images, see folder.py. Digits and MNIST have
recipes of their own.
"""

from dataclasses import replace

from fastssl.algorithms import named
from fastssl.algorithms.fixmatch import FixMatch
from fastssl.ops.policies import Policy
from fastssl.recipes.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    ViewsConfig,
)
from fastssl.recipes.folder import choose, survey
from fastssl.recipes.views import policy_for, weak_view

NETWORKS = {
    "svhn": "conv_large",
    "cifar10": "conv_large",
    "cifar100": "conv_large",
    "cifar20": "conv_large",
    "mini_imagenet": "resnet18",
}
STEPS = 20_000  # of a named data set


def recipe(data: str, algorithm: str) -> Config:
    """The configuration of `algorithm` on a named data set."""
    return _config(algorithm, NETWORKS[data], DataConfig(source=data))


def folder_recipe(path: str, algorithm: str, image_size: int | None, device: str) -> Config:
    """The configuration of `algorithm` on a folder of images, see folder.py.

    Raises:
        InputError: as `survey`.
    """
    chosen = choose(survey(path), device, image_size)
    config = _config(algorithm, chosen.network, chosen.data(path))
    return replace(config, steps=chosen.steps, eval=EvalConfig(every=chosen.every))


def _hard_view(algorithm: str, data: DataConfig) -> Policy:
    if named(algorithm).kind is FixMatch:
        return policy_for("rand_augment", data.source, data.image_size)
    return policy_for("iic_hard", data.source, data.image_size)


def _config(algorithm: str, network: str, data: DataConfig) -> Config:
    return Config.of(
        algorithm,
        data=data,
        views=ViewsConfig(
            weak=weak_view(data.source, data.image_size), hard=_hard_view(algorithm, data)
        ),
        model=ModelConfig(name=network),
        optim=OptimConfig(lr=0.05, weight_decay=2e-4),
        steps=STEPS,
        eval=EvalConfig(every=250),
    )
