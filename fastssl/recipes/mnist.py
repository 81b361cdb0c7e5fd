"""MUSCLE, its bases and the supervised baseline on MNIST.

Command:
    fastssl train muscle+mean-teacher --data mnist --labels 100
    fastssl train supervised --data mnist --labels 100

Cost: see `fastssl reproduce mnist` (tables/small.py).

Not a setting of the papers: MUSCLE's has no MNIST.
"""

from fastssl.algorithms import named
from fastssl.ops.policies import Weak
from fastssl.recipes.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    ViewsConfig,
)
from fastssl.recipes.views import policy_for


def recipe(algorithm: str) -> Config:
    """The configuration of `algorithm` on MNIST."""
    known = named(algorithm)
    return Config(
        algorithm_name=algorithm,
        algorithm=known.config,
        muscle=known.muscle,
        propagation=known.propagation,
        contrastive=known.contrastive,
        data=DataConfig(source="mnist", labeled_rows=32, unlabeled_rows=96),
        views=ViewsConfig(weak=Weak(translate=2), hard=policy_for("rand_augment", "mnist")),
        model=ModelConfig(name="small_cnn"),
        optim=OptimConfig(lr=0.1, weight_decay=2e-4),
        steps=4000,
        eval=EvalConfig(every=500),
    )
