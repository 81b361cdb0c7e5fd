"""MUSCLE, its bases and the supervised baseline on scikit-learn's digits, 8x8.

Command:
    fastssl train muscle --data digits --labels 20 --seed 0
    fastssl train supervised --data digits --labels 20 --seed 0

Cost: about 30 s (muscle) and 3 s (supervised) on one core of a 2026 server processor.

Result: test accuracy in % over seeds 0 to 4, mean ± std (`fastssl reproduce digits`)

    labels                                          20             50
    supervised                            81.28 ± 4.72   92.56 ± 1.56
    label-propagation                     95.39 ± 1.46   97.28 ± 1.71
    mean-teacher                          79.56 ± 3.11   91.56 ± 2.30
    fixmatch                              89.22 ± 4.90   96.17 ± 0.72
    mean-teacher+label-propagation        92.39 ± 5.98   97.56 ± 1.39
    muscle                                95.22 ± 3.71   98.50 ± 1.81
    muscle+label-propagation              91.11 ± 8.61   98.28 ± 1.48
    muscle+mean-teacher                   92.56 ± 6.46   97.89 ± 1.45
    muscle+fixmatch                       94.78 ± 4.21   98.56 ± 1.46
    muscle+mean-teacher+label-propagation 86.17 ± 21.25   98.39 ± 1.54

By seed, 20 labels: muscle 94.72, 95.83, 98.33, 98.06, 89.17; muscle+label-propagation 96.11, 95.83,
99.44, 79.17, 85.00; muscle+mean-teacher+label-propagation 95.83, 95.83, 98.33, 48.33, 92.50. Where
l_s is divided by the batch, an eighth of which is labeled, MUSCLE still takes one class for another
on some draws. Rows without MUSCLE at 50 labels are from before batch_norm_leaky_relu changed the
rounding.

Not a setting of the papers: the data set is embedded, so that a first run needs no download. Views,
network, steps, rows and weight decay are ours, chosen on a validation part of the training images
(`--validation 200`, seeds 10 to 28), never on the test images. So are three settings of MUSCLE's
term. l_s is of the hard views too, where the papers have the weak one alone, and the weight of the
mutual information rises to 2 over the first 20 of 41 epochs: from two labels a class it else takes
one class's images for another's before the labels are learned. Accuracy in % on the training
images, an initialisation each, at a rate of 0.2 and a weight of 1, which rises on a line here:

    seed                                     12      28
    neither                          86 95 95 95   87 96 97 83
    the weight rises                 95 87 95 86   97 97
    l_s of all views, and it rises   95 94 96 94   97 97 97 97

Over seeds 10 to 14 and 28 a weight of 2 or 4 has 97.25 on the validation part, 1 has 96.75. Where
label propagation alone fails (seeds 16, 20, 36: 90, 90, 80) so does this (91, 92, 85). supervised
gains nothing from stronger views of its labels (82.75 over seeds 10 to 15).

Each learning rate was chosen from one grid, there too, MUSCLE's at a weight of 1 and the others'
on another processor; mean validation accuracy in % over seeds 10 to 15:

    optim.lr      0.1     0.2     0.4
    muscle       97.17   97.00   96.50
    supervised   84.58   83.50   79.00

At a weight of 2 muscle has 97.25 at 0.1 and 96.83 at 0.2 over seeds 10 to 14 and 28. The other rows
over seeds 10 and 11:

    optim.lr                                 0.1     0.2     0.4
    label-propagation                      95.50   95.00   49.50
    mean-teacher                           75.25   80.00   85.50
    fixmatch                               94.50   93.25   86.00
    mean-teacher+label-propagation         95.00   95.00   64.75
    muscle+label-propagation               96.75   96.25   59.25
    muscle+mean-teacher                    95.50   95.50   95.75
    muscle+fixmatch                        96.50   97.00   97.25
    muscle+mean-teacher+label-propagation  96.00   94.75   83.25

Rows with label propagation raise the rate over a fifth of each stage; without that the second stage
begins by unlearning the first. mean-teacher's best stands at the grid's edge; muscle+mean-teacher
and muscle+fixmatch keep 0.1 and 0.2, one image of 400 behind. All algorithms take the same steps,
batches, views and, but for the warm-up, schedule; supervised looks at the labeled rows of the weak
view alone. Mean Teacher's weight and FixMatch's decay were chosen on one draw (seed 10).

With two labels a class the draw decides much, and kernels that round otherwise can turn a run. Many
unlabeled rows a step (112 of 128; the papers take half) and a strong weight decay helped on the
validation part; 240 rows, 20 labeled ones, another pooling, dropout, images of 16x16, RandAugment,
more translation, a start without labels, the best of several initialisations by mutual information
and more steps did not.
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
    "muscle": 0.1,
    "mean-teacher": 0.4,
    "fixmatch": 0.1,
    "label-propagation": 0.1,
    "mean-teacher+label-propagation": 0.1,
    "muscle+label-propagation": 0.1,
    "muscle+mean-teacher": 0.1,
    "muscle+mean-teacher+label-propagation": 0.1,
}
FIXMATCH_DECAY = 0.97  # 0.999 needs more than these 500 steps to forget the random start
WARMUP = 0.2  # of a stage: the full rate at once makes the second unlearn the first
MUSCLE = {"alpha": 2.0, "ramp_epochs": 20.0, "supervise_hard": True}  # see above
TEACHER_WEIGHT = 10.0  # the papers' 100 goes with a cross entropy of half the rows, not an eighth


def recipe(algorithm: str) -> Config:
    """The configuration of `algorithm` on the digits."""
    known = named(algorithm)
    config = known.config
    if isinstance(config, FixMatchConfig):
        config = replace(config, decay=FIXMATCH_DECAY)
    if isinstance(config, MeanTeacherConfig):
        config = replace(config, weight=TEACHER_WEIGHT)
    muscle = known.muscle and replace(known.muscle, **MUSCLE)
    return Config.of(
        algorithm,
        algorithm=config,
        muscle=muscle,
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
