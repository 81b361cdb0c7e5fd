"""What the views of `augment` may do to an image, as small frozen dataclasses.

Each becomes a plan and tables (plans.py). Images are S x S pixels.
"""

import math
from dataclasses import dataclass, field, fields, replace

from fastssl.ops.plans import (
    LEVEL_ONE,
    NOISE_QUANTILES,
    OPERATIONS,
    UNIFORM_STEPS,
    WARP_ONE,
    WARP_STEPS,
    Plan,
    Tables,
    enlargement,
    fixed_point,
    normal_quantiles,
    rotation,
    translation,
    uniform,
)


def _require(holds: bool, owner: object, name: str, expected: str) -> None:
    if not holds:
        got = getattr(owner, name)
        raise ValueError(f"{type(owner).__name__}: {name} is {got!r}; expected {expected}")


def _require_least(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(math.isfinite(value) and value >= 0, owner, name, "a finite number, 0 or more")


@dataclass(frozen=True)
class NoAugment:
    """The image as it is."""

    def plan(self, size: int, tables: Tables) -> Plan:
        """For images of that size."""
        return Plan()


@dataclass(frozen=True)
class Weak:
    """Rotation, then translation, then crop, then flip; each may be absent.

    Attributes:
        rotate: degrees; uniform in [-rotate, rotate], nearest pixel, as Pillow's Image.rotate.
        translate: pixels; each axis uniform in [-translate, translate], the border reflected.
        padding: pixels; a crop of the image padded on each side with `fill`.
        flip: left-right, half of the time.
        fill: gray level of what lies outside the image.
    """

    rotate: float = 0.0
    translate: int = 0
    padding: int = 0
    flip: bool = False
    fill: int = 0

    def __post_init__(self) -> None:
        _require_least(self, "rotate", "translate", "padding")
        _require(0 <= self.fill <= 255, self, "fill", "a gray level, 0 to 255")

    def plan(self, size: int, tables: Tables) -> Plan:
        """For images of that size."""
        _require(self.translate < size, self, "translate", f"less than the {size} pixels")
        _require(self.padding <= size, self, "padding", f"at most the {size} pixels")
        plan = Plan(
            fill=self.fill, translate=self.translate, padding=self.padding, flip=int(self.flip)
        )
        if self.rotate > 0:
            plan.angles = UNIFORM_STEPS
            plan.angle_table = tables.add_integers(
                [rotation(a, size) for a in uniform(-self.rotate, self.rotate, UNIFORM_STEPS)]
            )
        return plan


@dataclass(frozen=True)
class IICHard:
    """A random crop enlarged to the whole, flip, colour jitter: IIC's second transform.

    Source: Ji, Henriques, Vedaldi, "Invariant information clustering", ICCV 2019. Crop, resize and
    jitter equal torchvision's on Pillow images; the jitters come in random order.

    Attributes:
        crop: side of the crop, pixels.
        flip: left-right, half of the time.
        brightness: factor uniform in [1 - brightness, 1 + brightness].
        contrast: as brightness.
        saturation: as brightness; of images with three channels.
        hue: shift uniform in [-hue, hue] turns; of images with three channels.
    """

    crop: int = 20
    flip: bool = True
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.125

    def __post_init__(self) -> None:
        _require(self.crop >= 2, self, "crop", "2 pixels or more")
        _require_least(self, "brightness", "contrast", "saturation", "hue")
        _require(self.hue <= 0.5, self, "hue", "at most half a turn, 0.5")

    def plan(self, size: int, tables: Tables) -> Plan:
        """For images of that size."""
        _require(self.crop <= size, self, "crop", f"at most the {size} pixels")
        factors = []
        for spread in (self.brightness, self.contrast, self.saturation):
            factors += uniform(max(0.0, 1 - spread), 1 + spread, UNIFORM_STEPS)
        hues = [int(turns * 255) & 255 for turns in uniform(-self.hue, self.hue, UNIFORM_STEPS)]
        return Plan(
            flip=int(self.flip),
            crop=self.crop,
            resize_table=tables.add_integers(enlargement(self.crop, size)),
            jitters=UNIFORM_STEPS,
            jitter_table=tables.add_factors(factors),
            hues=UNIFORM_STEPS,
            hue_table=tables.add_integers(hues),
        )


@dataclass(frozen=True)
class Magnitudes:
    """How strong RandAugment's operations are at level 0 and at level 1, in between linearly.

    Attributes:
        enhance: factor of Brightness, Color, Contrast and Sharpness; 1 leaves the image as it is.
        posterize: bits that Posterize keeps, cut to an integer.
        rotate: degrees.
        shear: tangent.
        solarize: gray level from which Solarize inverts, rounded up.
        translate: pixels, or parts of the side if `relative`.
        relative: see translate.
        whole: whether a translation is cut to whole pixels; else it goes to the nearest.
        levels: uniform among 1/levels ... (levels - 1)/levels, or in [0, 1] if None.
        either_sign: rotations, shears and translations are negated half of the time.
    """

    enhance: tuple[float, float] = (0.1, 1.9)
    posterize: tuple[float, float] = (4, 0)
    rotate: tuple[float, float] = (0, 30)
    shear: tuple[float, float] = (0, 0.3)
    solarize: tuple[float, float] = (256, 0)
    translate: tuple[float, float] = (0, 10)
    relative: bool = False
    whole: bool = True
    levels: int | None = 10
    either_sign: bool = True

    def __post_init__(self) -> None:
        _require(self.levels is None or self.levels >= 2, self, "levels", "None, or 2 or more")
        within = all(0 <= bits <= 8 for bits in self.posterize)
        _require(within, self, "posterize", "bits from 0 to 8")
        within = all(0 <= factor <= 256 for factor in self.enhance)
        _require(within, self, "enhance", "factors from 0 to 256")

    def at_levels(self, ends: tuple[float, float], signed: bool = False) -> list[float]:
        """The magnitudes that are drawn, each as often as any other.

        Args:
            ends: a range of this class.
            signed: whether it is one of those that `either_sign` negates.
        """
        low, high = ends
        if self.levels is None:
            values = uniform(low, high, UNIFORM_STEPS)
        else:
            values = [low + (high - low) * i / self.levels for i in range(1, self.levels)]
        if not self.either_sign:
            return values
        return values + ([-value for value in values] if signed else values)

    def tables(self, size: int) -> tuple[list[list[list[int]]], list[float]]:
        """[14, levels, 6] integers of the operations, and [levels] factors of the enhancements."""

        def one(value: int) -> list[int]:
            return [value, 0, 0, 0, 0, 0]

        def mask(bits: float) -> list[int]:
            kept = int(self.posterize[0]) + int(bits - self.posterize[0])
            return one(256 - (1 << (8 - kept)))

        unit = size if self.relative else 1
        shifts = [unit * value for value in self.at_levels(self.translate, signed=True)]
        shifts = [int(shift) if self.whole else shift for shift in shifts]
        shears = self.at_levels(self.shear, signed=True)
        factors = self.at_levels(self.enhance)
        rows = {
            "Posterize": [mask(bits) for bits in self.at_levels(self.posterize)],
            "Rotate": [rotation(a, size) for a in self.at_levels(self.rotate, signed=True)],
            "ShearX": [fixed_point((1, shear, 0, 0, 1, 0)) for shear in shears],
            "ShearY": [fixed_point((1, 0, 0, shear, 1, 0)) for shear in shears],
            "Solarize": [one(math.ceil(level)) for level in self.at_levels(self.solarize)],
            "TranslateX": [translation(shift, 0) for shift in shifts],
            "TranslateY": [translation(0, shift) for shift in shifts],
        }
        unused = [one(0)] * len(factors)
        return [rows.get(name, unused) for name in OPERATIONS], factors


# google-research/fixmatch, third_party/auto_augment/augmentations.py; kekmodel/FixMatch-pytorch,
# dataset/randaugment.py; microsoft/Semi-supervised-learning (USB),
# semilearn/datasets/augmentation/randaugment.py.
MAGNITUDES = {
    "google": Magnitudes(),
    "kekmodel": Magnitudes(
        enhance=(0.05, 0.95), posterize=(4, 8), translate=(0, 0.3), relative=True
    ),
    "usb": Magnitudes(
        enhance=(0.05, 0.95),
        posterize=(4, 8),
        rotate=(-30, 30),
        shear=(-0.3, 0.3),
        solarize=(0, 256),
        translate=(-0.3, 0.3),
        relative=True,
        whole=False,
        levels=None,
        either_sign=False,
    ),
}


@dataclass(frozen=True)
class RandAugment:
    """The weak view, then `n` of 14 operations, then Cutout: FixMatch's strong view.

    Source: Cubuk et al., "RandAugment", 2020; Sohn et al., "FixMatch", NeurIPS 2020. Each operation
    equals Pillow's.

    Attributes:
        n: operations drawn, with replacement.
        probability: of each to be applied once it is drawn.
        magnitudes: how strong they are.
        weak: what comes first; its fill is that of the geometric operations too.
        cutout: least and most side of the square that is cut out, in parts of the image's side; its
            centre is uniform in the image. (0, 0) cuts none.
        cutout_fill: gray level of the square.
    """

    n: int = 2
    probability: float = 0.5
    magnitudes: Magnitudes = field(default_factory=Magnitudes)
    weak: Weak = Weak(translate=4, flip=True)
    cutout: tuple[float, float] = (0.5, 0.5)
    cutout_fill: int = 127

    def __post_init__(self) -> None:
        _require(0 <= self.n <= 32, self, "n", "0 to 32 operations")
        _require(0 <= self.probability <= 1, self, "probability", "a number from 0 to 1")
        _require(0 <= self.cutout[0] <= self.cutout[1] <= 2, self, "cutout", "0 <= least <= most")
        _require(0 <= self.cutout_fill <= 255, self, "cutout_fill", "a gray level, 0 to 255")

    @classmethod
    def preset(cls, name: str, weak: Weak | None = None) -> "RandAugment":
        """One of the three published variants: google, kekmodel or usb.

        google differs from its source in one point: what a rotation uncovers is `fill` at once, not
        gray after the last operation.
        """
        if name not in MAGNITUDES:
            raise ValueError(f"RandAugment: no preset {name!r}; known: {', '.join(MAGNITUDES)}")
        weak = weak or Weak(translate=4, flip=True, fill=127 if name == "google" else 0)
        if name == "usb":
            return cls(probability=1.0, magnitudes=MAGNITUDES[name], weak=weak, cutout=(0, 0.5))
        return cls(magnitudes=MAGNITUDES[name], weak=weak)

    def plan(self, size: int, tables: Tables) -> Plan:
        """For images of that size."""
        plan = self.weak.plan(size, tables)
        rows, factors = self.magnitudes.tables(size)
        plan.operations = self.n
        plan.chance = round(self.probability * (1 << 16))
        plan.levels = len(factors)
        plan.level_table = tables.add_integers([row for of_level in rows for row in of_level])
        plan.enhance_table = tables.add_factors(factors)
        plan.cutout_least, plan.cutout_most = (round(part * size) for part in self.cutout)
        plan.cutout_fill = self.cutout_fill
        return plan


@dataclass(frozen=True)
class Digits:
    """A random affine map, bilinear, black outside, and Gaussian noise.

    Every parameter is uniform in the symmetric range it names.

    Attributes:
        rotate: degrees.
        scale: 0.2 is a zoom between 0.8 and 1.2.
        shear: horizontal, as the tangent of its angle.
        translate: pixels, each axis.
        noise: standard deviation, of pixels in [0, 1].
    """

    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        _require_least(self, *(f.name for f in fields(self)))
        _require(self.scale <= 0.9, self, "scale", "at most 0.9")

    def plan(self, size: int, tables: Tables) -> Plan:
        """For images of that size."""
        _require(self.translate <= size, self, "translate", f"at most the {size} pixels")
        _require(self.shear <= 16, self, "shear", "at most 16")
        _require(self.noise <= 16, self, "noise", "at most 16")
        angles = uniform(-math.radians(self.rotate), math.radians(self.rotate), WARP_STEPS)
        parameters = [
            [math.cos(angle) for angle in angles],
            [math.sin(angle) for angle in angles],
            [1 / (1 + zoom) for zoom in uniform(-self.scale, self.scale, WARP_STEPS)],
            uniform(-self.shear, self.shear, WARP_STEPS),
            uniform(-self.translate, self.translate, WARP_STEPS),
        ]
        in_bits = [[round(value * WARP_ONE) for value in row] for row in parameters]
        plan = Plan(warps=WARP_STEPS, warp_table=tables.add_integers(in_bits))
        if self.noise > 0:
            one = self.noise * 255 * LEVEL_ONE
            plan.noises = NOISE_QUANTILES
            plan.noise_table = tables.add_integers([round(one * q) for q in normal_quantiles()])
        return plan


Policy = NoAugment | Weak | IICHard | RandAugment | Digits
POLICIES: dict[str, type[Policy]] = {
    "none": NoAugment,
    "weak": Weak,
    "iic_hard": IICHard,
    "rand_augment": RandAugment,
    "digits": Digits,
}
POLICY_NAMES = (*POLICIES, *(f"rand_augment_{preset}" for preset in MAGNITUDES))


def named_policy(name: str, size: int = 32, weak: Weak | None = None) -> Policy:
    """The policy of that name as the papers use it on images of 32 pixels, scaled to `size`.

    Args:
        name: one of `POLICY_NAMES`; `rand_augment` is its google preset.
        size: S.
        weak: the weak view of these images; RandAugment starts with it, and the hard view of IIC
            flips if it does. None for a translation by an eighth of the side, and a flip.

    Raises:
        ValueError: there is no policy of that name.
    """
    weak = weak or Weak(translate=size // 8, flip=True)
    if name == "none":
        return NoAugment()
    if name == "weak":
        return weak
    if name == "iic_hard":
        return IICHard(crop=round(size * 20 / 32), flip=weak.flip)
    if name == "digits":
        return Digits(rotate=30, scale=0.3, shear=0.3, translate=size / 8, noise=0.1)
    if name in POLICY_NAMES:
        preset = name.removeprefix("rand_augment").removeprefix("_") or "google"
        fill = 127 if preset == "google" else weak.fill
        return RandAugment.preset(preset, replace(weak, fill=fill))
    raise ValueError(f"policy: unknown name {name!r}; known: {', '.join(POLICY_NAMES)}")


def plan(policies: tuple[Policy, ...], size: int) -> tuple[list[int], list[int], list[float]]:
    """What `fastssl::augment` takes: the plans of all views, its integers, its factors."""
    tables = Tables()
    plans = [policy.plan(size, tables) for policy in policies]
    numbers = [getattr(each, f.name) for each in plans for f in fields(Plan)]
    return numbers, tables.integers, tables.factors
