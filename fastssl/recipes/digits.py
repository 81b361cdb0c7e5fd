"""MUSCLE, its bases and the supervised baseline on scikit-learn's digits, 8x8.

Command:
    fastssl train muscle --data digits --labels 20 --seed 0
    fastssl train supervised --data digits --labels 20 --seed 0

Cost: about 30 s (muscle) and 3 s (supervised) on one core of a 2026 server processor.

Result: test accuracy in % over seeds 0 to 4, mean ± std (`fastssl reproduce digits`)

    labels                                          20             50
    supervised                            81.39 ± 4.86   92.56 ± 1.56
    label-propagation                     94.56 ± 2.97   97.28 ± 1.71
    mean-teacher                          78.61 ± 4.55   91.56 ± 2.30
    fixmatch                              88.50 ± 3.86   96.17 ± 0.72
    mean-teacher+label-propagation       82.56 ± 29.28   97.56 ± 1.39
    muscle                                90.83 ± 8.69   98.00 ± 0.80
    muscle+label-propagation             82.50 ± 19.38   97.94 ± 1.25
    muscle+mean-teacher                   91.94 ± 5.93   97.89 ± 1.46
    muscle+fixmatch                       93.50 ± 7.30   98.50 ± 1.42
    muscle+mean-teacher+label-propagation 92.61 ± 7.82   97.67 ± 0.97

By seed, 20 labels: muscle 95.56, 95.83, 99.44, 84.17, 79.17; muscle+label-propagation 95.28, 96.11,
98.33, 58.89, 63.89; mean-teacher+label-propagation 95.56, 93.33, 98.33, 95.28, 30.28. The column of
50 labels is from before batch_norm_leaky_relu changed the rounding, and from before the warm-up of
label propagation's rows, at 0.1 but for 0.2 in the last.

Not a setting of the papers: the data set is embedded, so that a first run needs no download. Views,
network, steps, rows and weight decay are ours, chosen on a validation part of the training images
(`--validation 200`, seeds 10 to 21), never on the test images. So was each learning rate, from one
grid; mean validation accuracy in % over seeds 10 to 15, with other random draws of these views:

    optim.lr      0.1     0.2     0.4
    muscle       96.83   97.00   96.58
    supervised   84.58   83.50   79.00

The other rows of `fastssl reproduce digits` have the same grid, over seeds 10 and 11:

    optim.lr                                 0.1     0.2     0.4
    label-propagation                      95.50   95.00   49.50
    mean-teacher                           75.25   80.00   85.50
    fixmatch                               94.50   93.25   86.00
    mean-teacher+label-propagation         95.00   95.00   64.75
    muscle+label-propagation               95.25   94.75   96.25
    muscle+mean-teacher                    92.75   92.25   92.25
    muscle+fixmatch                        93.00   95.75   96.00
    muscle+mean-teacher+label-propagation  95.25   92.25   95.50

Over seeds 10 to 13 muscle+mean-teacher+label-propagation has 93.50 at 0.1 and 0.4, 92.25 at 0.2;
over seeds 10 to 13, 16, 20, 28 and 36 muscle+label-propagation has 91.75 at 0.1, 93.69 at 0.2 and
82.44 at 0.4 (16.5 on one of them). Rows with label propagation raise the rate over a fifth of each
stage; without that the second stage begins by unlearning the first, at 0.2 for good on some draws
(at 0.4 label-propagation 38.75, muscle+label-propagation 61.25, with Mean Teacher 62.00).

mean-teacher's best stands at the grid's edge; muscle+fixmatch keeps 0.2, one image of 400 behind.
All algorithms take the same steps, batches, views and, but for the warm-up, schedule; supervised
looks at the labeled rows of the weak view alone. Mean Teacher's weight and FixMatch's decay were
chosen on one draw (seed 10): at the papers' weight of 100 muscle+mean-teacher 90.0, at 10 94.5;
FixMatch's average with a decay of 0.999 28.0.

With two labels a class the draw decides much: where both labels of a class look like another's,
MUSCLE can take the one for the other. On some draws every initialisation does so, on others some
do, and a kernel that rounds otherwise can turn such a seed (seed 3 had 96.11 and 83.61 before). Of
four initialisations of one draw the one of the highest mutual information at the end is then right:
88.5, 91.0, 96.3 and 97.3 % of the pool at 1.850, 1.811, 1.919 and 1.925 nats (seed 28). Many
unlabeled rows a step (112 of 128; the papers take half) and a strong weight decay made it rarer on
the validation part; 240 rows, 20 labeled ones, another pooling, dropout, images of 16x16,
RandAugment, more translation, hard views that go further in the first three quarters of 1,400
steps, and more steps did not.
"""

from dataclasses import replace

from fastssl.algorithms import named
from fastssl.algorithms.fixmatch import FixMatchConfig
from fastssl.algorithms.mean_teacher import MeanTeacherConfig
from fastssl.ops.policies import Digits
from fastssl.recipes.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    ViewsConfig,
)

LEARNING_RATE = {  # 0.2 for all others
    "supervised": 0.1,
    "mean-teacher": 0.4,
    "fixmatch": 0.1,
    "label-propagation": 0.1,
    "mean-teacher+label-propagation": 0.1,
    "muscle+mean-teacher": 0.1,
    "muscle+mean-teacher+label-propagation": 0.1,
}
FIXMATCH_DECAY = 0.97  # 0.999 needs more than these 500 steps to forget the random start
WARMUP = 0.2  # of a stage: the full rate at once makes the second unlearn the first
TEACHER_WEIGHT = 10.0  # the papers' 100 goes with a cross entropy of half the rows, not an eighth


def recipe(algorithm: str) -> Config:
    """The configuration of `algorithm` on the digits."""
    known = named(algorithm)
    config = known.config
    if isinstance(config, FixMatchConfig):
        config = replace(config, decay=FIXMATCH_DECAY)
    if isinstance(config, MeanTeacherConfig):
        config = replace(config, weight=TEACHER_WEIGHT)
    return Config.of(
        algorithm,
        algorithm=config,
        data=DataConfig(source="digits", labeled_rows=16, unlabeled_rows=112),
        views=ViewsConfig(
            weak=Digits(rotate=15, scale=0.15, shear=0.15, translate=1, noise=0.02),
            hard=Digits(rotate=30, scale=0.3, shear=0.3, translate=1, noise=0.1),
        ),
        model=ModelConfig(name="small_cnn"),
        optim=OptimConfig(
            lr=LEARNING_RATE.get(algorithm, 0.2),
            weight_decay=1e-2,
            warmup=WARMUP if known.propagation else 0.0,
        ),
        steps=500,
    )
