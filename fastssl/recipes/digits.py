"""MUSCLE, its bases and the supervised baseline on scikit-learn's digits, 8x8.

Command:
    fastssl train muscle --data digits --labels 20 --seed 0
    fastssl train supervised --data digits --labels 20 --seed 0

Cost: about 30 s (muscle) and 3 s (supervised) on one core of a 2026 server processor.

Result: test accuracy in %, mean ± std over seeds 0 to 9 (20 labels) and 0 to 4 (50 labels), from
`fastssl reproduce digits --seeds 10`:

    labels                                          20             50
    supervised                            82.00 ± 4.16   93.11 ± 0.84
    label-propagation                     95.67 ± 1.37   97.94 ± 0.46
    mean-teacher                          86.33 ± 4.19   96.50 ± 1.63
    fixmatch                              89.14 ± 3.80   96.00 ± 0.99
    mean-teacher+label-propagation        95.58 ± 1.48   97.56 ± 1.42
    muscle                                95.78 ± 2.76   98.50 ± 1.81
    muscle+label-propagation              93.69 ± 6.05   98.56 ± 1.61
    muscle+mean-teacher                   94.78 ± 3.43   98.17 ± 1.69
    muscle+fixmatch                       95.64 ± 3.19   98.56 ± 1.46
    muscle+mean-teacher+label-propagation 94.58 ± 3.61   97.89 ± 1.66

By seed, 20 labels: muscle 94.72, 95.83, 98.33, 98.06, 89.17, 95.56, 96.94, 95.56, 98.89, 94.72;
muscle+label-propagation 79.17 and 87.22 on seeds 3 and 4, 94.72 to 99.44 on the others. Where l_s
is divided by the batch, an eighth of which is labeled, MUSCLE still takes one class for another on
some draws. Over 37 others (of seeds 10 to 54, 200 images held out, no cut of zeta)
label-propagation has 94.46 and muscle+label-propagation 96.61, 2.1 ± 0.6 more.

Not a setting of the papers: the data set is embedded, so that a first run needs no download. Views,
network, steps, rows and weight decay are ours, chosen on a validation part of the training images
(`--validation 200`, seeds from 10 on), never on the test images. So are three settings of MUSCLE's
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
over seeds 10 and 11, all with 16 labeled rows a step:

    optim.lr                                 0.1     0.2     0.4
    label-propagation                      95.50   95.00   49.50
    mean-teacher                           75.25   80.00   85.50
    fixmatch                               94.50   93.25   86.00
    mean-teacher+label-propagation         95.00   95.00   64.75
    muscle+label-propagation               96.75   96.25   59.25
    muscle+mean-teacher                    95.50   95.50   95.75
    muscle+fixmatch                        96.50   97.00   97.25
    muscle+mean-teacher+label-propagation  96.00   94.75   83.25

How many of a step's 128 rows are labeled was chosen likewise, at these rates and without a cut of
zeta (see below), over seeds 10 to 14 and 28:

    labeled rows                              16      64
    supervised                             85.58   84.42
    label-propagation                      95.33   88.67
    mean-teacher                           84.00   87.25
    fixmatch                               91.50   91.42
    mean-teacher+label-propagation         97.33   96.08
    muscle+mean-teacher                    92.50   95.42
    muscle+mean-teacher+label-propagation  95.33   96.67

muscle has 97.25 with 16 and, over four of them, 95.50 with 64; muscle+label-propagation, over seeds
15 to 24, 97.50 and 95.05. muscle+fixmatch was not tried with 64.

Rows with label propagation raise the rate over a fifth of each stage; without that the second stage
begins by unlearning the first. They cut off a class's weight, too: once one class is taken for
another, no image but the class's own two is given its label, zeta is 72, and these two outweigh a
batch of the others. Without the cut muscle+mean-teacher+label-propagation fell from 82 to 10 %
within 25 steps on seed 4, the one time that a seed of the table led to a setting; 5 was not tuned.
mean-teacher's best rate stands at the grid's edge; muscle+mean-teacher and muscle+fixmatch keep 0.1
and 0.2, one image of 400 behind. All algorithms take the same steps of 128 rows, views and, but for
the warm-up, schedule; supervised looks at the labeled rows of the weak view alone. Mean Teacher's
weight and FixMatch's decay were chosen on one draw (seed 10).

With two labels a class the draw decides much, and kernels that round otherwise can turn a run. Many
unlabeled rows a step (the papers take half) and a strong weight decay helped on the validation
part; 240 rows, 20 labeled ones, another pooling, dropout, images of 16x16, RandAugment, more
translation, a start without labels, the best of several initialisations by mutual information and
more steps did not. For muscle+label-propagation neither did 32 labeled rows, a weight of 0.5 at
twice the rate, a ramp of 40 epochs, or a first stage of 0.3 or 0.7 of the steps (92.08, 89.25,
86.17, 90.83 and 90.92 over seeds 12, 23, 24, 28, 29 and 36, against 93.00). At higher rates its
first stage ends better, and its second no better; over seeds 23, 24, 36 and 63:

    optim.lr             0.1     0.4     0.4     0.4     0.2
    muscle.alpha         2       1       0.5     0.25    1
    after half         76.13   88.13   88.38   88.00   88.50
    at the end         90.50   89.75   90.50   90.13   89.13
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
ROWS = 128  # a step
LABELED_ROWS = {  # of them; 16 for all others
    "mean-teacher": 64,
    "muscle+mean-teacher": 64,
    "muscle+mean-teacher+label-propagation": 64,
}
FIXMATCH_DECAY = 0.97  # 0.999 needs more than these 500 steps to forget the random start
WARMUP = 0.2  # of a stage: the full rate at once makes the second unlearn the first
MAX_CLASS_WEIGHT = 5.0  # a class that only its own two images reach would weigh 72
MUSCLE = {"alpha": 2.0, "ramp_epochs": 20.0, "supervise_hard": True}  # see above
TEACHER_WEIGHT = 10.0  # chosen with 16 labeled rows; the papers' is 100


def recipe(algorithm: str) -> Config:
    """The configuration of `algorithm` on the digits."""
    known = named(algorithm)
    config = known.config
    if isinstance(config, FixMatchConfig):
        config = replace(config, decay=FIXMATCH_DECAY)
    if isinstance(config, MeanTeacherConfig):
        config = replace(config, weight=TEACHER_WEIGHT)
    muscle = known.muscle and replace(known.muscle, **MUSCLE)
    propagation = known.propagation and replace(
        known.propagation, max_class_weight=MAX_CLASS_WEIGHT
    )
    labeled = LABELED_ROWS.get(algorithm, 16)
    return Config.of(
        algorithm,
        algorithm=config,
        muscle=muscle,
        propagation=propagation,
        data=DataConfig(source="digits", labeled_rows=labeled, unlabeled_rows=ROWS - labeled),
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
