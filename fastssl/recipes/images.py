"""MUSCLE and its supervised baseline on a folder of your own images, and on the usual data sets.

Command:
    fastssl train muscle --data ./folder
    fastssl train muscle --data mnist --labels 100
    fastssl train muscle --data cifar10 --labels 1000

Cost: not measured.

Result: not yet reproduced. Starting points, not the papers' settings: MUSCLE's batch (64 labeled
and 64 unlabeled rows), learning rate and weight decay, with views that turn, zoom, shear and shift,
and few steps. conv_large, the papers' network, where images have colours and a GPU is worth having;
small_cnn for grey digits and for folders, where a first answer should not take a day.
"""

from fastssl.algorithms import named
from fastssl.data.sources.place import IMAGE_SIZE
from fastssl.data.views import ViewPolicy
from fastssl.recipes.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    ViewsConfig,
)

NETWORKS = {
    "mnist": "small_cnn",
    "svhn": "conv_large",
    "cifar10": "conv_large",
    "cifar100": "conv_large",
    "cifar20": "conv_large",
    "mini_imagenet": "resnet18",
}
STEPS = {"small_cnn": 2000, "conv_large": 20_000, "resnet18": 20_000}


def recipe(data: str, algorithm: str) -> Config:
    """The configuration of `algorithm` on a named data set."""
    return _config(algorithm, NETWORKS[data], DataConfig(source=data), translate=4)


def folder_recipe(path: str, algorithm: str) -> Config:
    """The configuration of `algorithm` on a folder of images."""
    data = DataConfig(source=path, image_size=IMAGE_SIZE)
    return _config(algorithm, "small_cnn", data, translate=IMAGE_SIZE // 8)


def _config(algorithm: str, network: str, data: DataConfig, *, translate: float) -> Config:
    known = named(algorithm)
    return Config(
        algorithm_name=algorithm,
        algorithm=known.config,
        muscle=known.muscle,
        propagation=known.propagation,
        contrastive=known.contrastive,
        data=data,
        views=ViewsConfig(
            weak=ViewPolicy(translate=translate),
            hard=ViewPolicy(rotate=30, scale=0.3, shear=0.3, translate=translate, noise=0.05),
        ),
        model=ModelConfig(name=network),
        optim=OptimConfig(lr=0.05, weight_decay=2e-4),
        steps=STEPS[network],
        eval=EvalConfig(every=250),
    )
