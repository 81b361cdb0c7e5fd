"""d"""

from fastssl.algorithms import ALGORITHMS
from fastssl.data.views import ViewPolicy
from fastssl.recipes.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    ViewsConfig,
)

LEARNING_RATE = {"muscle": 0.05, "supervised": 0.05}


def recipe(algorithm: str) -> Config:
    """The configuration of `algorithm` on the digits."""
    return Config(
        algorithm_name=algorithm,
        algorithm=ALGORITHMS[algorithm].config_type(),
        data=DataConfig(source="digits"),
        views=ViewsConfig(
            weak=ViewPolicy(rotate=5, scale=0.05, shear=0.05, translate=0.5, noise=0.02),
            hard=ViewPolicy(rotate=20, scale=0.2, shear=0.2, translate=1, noise=0.1),
        ),
        model=ModelConfig(name="small_cnn"),
        optim=OptimConfig(lr=LEARNING_RATE[algorithm]),
        steps=1000,
    )
