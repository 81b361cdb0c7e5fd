"""Plans: what a policy of policies.py becomes for the kernels of `augment`.

A plan is ViewPlan of csrc/kernels/augment.h, and tables of all that needs trigonometry or another
library's rounding, indexed by the random integers of the kernels. Images are S x S pixels.
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from statistics import NormalDist

OPERATIONS = (
    "AutoContrast", "Brightness", "Color", "Contrast", "Equalize", "Identity", "Posterize",
    "Rotate", "Sharpness", "ShearX", "ShearY", "Solarize", "TranslateX", "TranslateY",
)  # fmt: skip
UNIFORM_STEPS = 256  # of a magnitude that its source draws from a continuous interval
WARP_STEPS = 1024
NOISE_QUANTILES = 4096
WARP_ONE = 1 << 24  # kWarpBits
LEVEL_ONE = 1 << 16  # kLevelBits
RESIZE_ONE = 1 << 22  # Pillow's PRECISION_BITS


@dataclass
class Plan:
    """ViewPlan, field by field, and the tables it points into."""

    fill: int = 0
    angles: int = 0
    angle_table: int = 0
    translate: int = 0
    padding: int = 0
    flip: int = 0
    crop: int = 0
    resize_table: int = 0
    jitters: int = 0
    jitter_table: int = 0
    hues: int = 0
    hue_table: int = 0
    operations: int = 0
    chance: int = 0
    levels: int = 0
    level_table: int = 0
    enhance_table: int = 0
    cutout_least: int = 0
    cutout_most: int = 0
    cutout_fill: int = 0
    warps: int = 0
    warp_table: int = 0
    noises: int = 0
    noise_table: int = 0


PLAN_FIELDS = len(fields(Plan))


class Tables:
    """The tables of all views of a call, one behind the other."""

    def __init__(self) -> None:
        self.integers: list[int] = []
        self.factors: list[float] = []

    def add_integers(self, rows: list) -> int:
        """Appends numbers, or rows of them; returns where they start."""
        start = len(self.integers)
        for row in rows:
            self.integers.extend(row if isinstance(row, list) else [row])
        return start

    def add_factors(self, factors: list[float]) -> int:
        """Appends numbers; returns where they start."""
        start = len(self.factors)
        self.factors.extend(factors)
        return start


def uniform(low: float, high: float, steps: int) -> list[float]:
    """The middles of `steps` equal parts of an interval."""
    return [low + (high - low) * (i + 0.5) / steps for i in range(steps)]


def fixed_point(matrix: tuple[float, ...]) -> list[int]:
    """An affine matrix (a, b, c, d, e, f) in 16.16 fixed point, at pixel centres.

    Source: Pillow, affine_fixed in src/libImaging/Geometry.c.
    """
    a, b, c, d, e, f = matrix
    exact = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return [math.floor(value * 65536 + 0.5) for value in exact]


def rotation(degrees: float, size: int) -> list[int]:
    """The fixed-point map of Pillow's Image.rotate(degrees)."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    centre = size / 2
    x = cos * -centre + sin * -centre + 0.0 + centre
    y = -sin * -centre + cos * -centre + 0.0 + centre
    return fixed_point((cos, sin, x, -sin, cos, y))


def translation(x: float, y: float) -> list[int]:
    """The map of Pillow's transform by (1, 0, x, 0, 1, y): whole pixels, floor(x + 1/2)."""
    return fixed_point((1, 0, math.floor(x + 0.5), 0, 1, math.floor(y + 0.5)))


def enlargement(crop: int, size: int) -> list[list[int]]:
    """For each of `size` pixels, the first of two neighbours in `crop`, and both weights.

    Source: Pillow, precompute_coeffs in src/libImaging/Resample.c, for BILINEAR.
    """
    rows = []
    for i in range(size):
        centre = (i + 0.5) * crop / size
        first = max(0, int(centre - 0.5))
        taps = range(first, min(crop, int(centre + 1.5)))
        weights = [max(0.0, 1 - abs(tap - centre + 0.5)) for tap in taps]
        whole = [int(0.5 + w / sum(weights) * RESIZE_ONE) for w in weights]
        if len(whole) == 2:
            rows.append([first, *whole])
        elif first + 1 < crop:
            rows.append([first, whole[0], 0])
        else:
            rows.append([first - 1, 0, whole[0]])
    return rows


@lru_cache(maxsize=1)
def normal_quantiles() -> list[float]:
    """Equally likely numbers of unit variance, as nearly normal as NOISE_QUANTILES are."""
    drawn = [NormalDist().inv_cdf(p) for p in uniform(0, 1, NOISE_QUANTILES)]
    variance = sum(q * q for q in drawn) / len(drawn)
    return [q / math.sqrt(variance) for q in drawn]
