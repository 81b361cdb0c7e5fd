"""The configuration of a run: frozen dataclasses, overrides by dotted key, JSON both ways."""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from typing import Any

from fastssl.algorithms import named
from fastssl.algorithms.label_propagation import LabelPropagationConfig
from fastssl.algorithms.muscle import Muscle
from fastssl.data.views import ViewPolicy
from fastssl.errors import InputError, unknown_name
from fastssl.recipes.optim import OptimConfig, check
from fastssl.training.schedules import Stages


@dataclass(frozen=True)
class DataConfig:
    """The images and how many of each kind a step takes."""

    source: str
    labels: int | None = None  # images that keep their label, over all classes; None for all
    rule: str = "balanced"  # by which the classes share the labels, see data.splits
    ratio: float | None = None  # of rule imbalanced
    validation: int = 0  # training images held out
    holdout: float | None = None  # part to test on, of a source without a test part; None for 0.2
    split: str | None = None  # a file that says all this
    data_dir: str | None = None  # root of named data sets; None for $FASTSSL_DATA or the user cache
    images: int | None = None  # training images used, the classes in turn; None for all
    image_size: int | None = None  # that a folder's images are resized to
    skip_bad: bool = False  # leave a folder's broken images out
    labeled_rows: int = 64
    unlabeled_rows: int = 64

    def __post_init__(self) -> None:
        for key, least in (("labeled_rows", 1), ("unlabeled_rows", 0)):
            value = getattr(self, key)
            check(f"data.{key}", value, value >= least, f"{least} or more")


@dataclass(frozen=True)
class ViewsConfig:
    """What the weak and the hard views of an image may do to it."""

    weak: ViewPolicy
    hard: ViewPolicy


@dataclass(frozen=True)
class ModelConfig:
    """The network, and its options where they are not its own defaults."""

    name: str
    dropout: float | None = None
    weight_norm: bool | None = None
    unit_features: bool | None = None

    @property
    def options(self) -> dict[str, float | bool]:
        """The options that were given, as the network takes them."""
        fields = dataclasses.asdict(self)
        return {key: x for key, x in fields.items() if key != "name" and x is not None}


@dataclass(frozen=True)
class EvalConfig:
    """When the networks are evaluated, and on how much."""

    every: int = 50  # steps
    images: int | None = None  # of a part, its first ones; None for all

    def __post_init__(self) -> None:
        check("eval.every", self.every, self.every >= 1, "1 or more")
        if self.images is not None:
            check("eval.images", self.images, self.images >= 1, "1 or more, or none")


@dataclass(frozen=True)
class Config:
    """Everything a run is a function of.

    `algorithm` is the config dataclass of the named one, or of MUSCLE's base; `muscle` is the term
    on it and `propagation` its second stage, None for an algorithm without.
    """

    algorithm_name: str
    algorithm: Any
    muscle: Muscle | None
    data: DataConfig
    views: ViewsConfig
    model: ModelConfig
    optim: OptimConfig
    steps: int  # of all stages
    propagation: LabelPropagationConfig | None = None
    seed: int = 0
    device: str = "auto"
    eval: EvalConfig = EvalConfig()
    log_every: int = 10
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for key in ("steps", "log_every", "checkpoint_every"):
            value = getattr(self, key)
            check(key, value, value >= 1, "1 or more")
        check("seed", self.seed, 0 <= self.seed < 2**63, "0 or more, below 2**63")

    @property
    def stages(self) -> Stages:
        """Of the run: one, or two with label propagation."""
        if self.propagation is None:
            return Stages((0,), self.steps)
        return Stages((0, round(self.propagation.first_stage * self.steps)), self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and values, for run.json."""
        return dataclasses.asdict(self)


def from_json(fields: Any) -> Config:
    """Inverse of `Config.to_json`.

    Raises:
        InputError: a field is missing, unknown or of the wrong type.
    """
    try:
        known = named(fields["algorithm_name"])
        kinds = {"algorithm": known.kind.config_type}
        kinds |= {key: type(getattr(known, key)) for key in ("muscle", "propagation")}
        return _build(Config, fields, kinds)
    except (TypeError, KeyError) as error:
        raise InputError(f"configuration: not one that fastssl wrote ({error})") from error


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a configuration by its dotted key: {"optim.lr": 0.05, ...}."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            values |= leaves(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = value
    return values


def settable(config: Config) -> dict[str, Any]:
    """The leaves of a configuration that `override` takes: all but what its algorithm is."""
    fixed = ("algorithm_name", "muscle", "propagation")
    return {k: v for k, v in leaves(config).items() if k not in fixed}


def override(config: Config, changes: dict[str, Any]) -> Config:
    """A copy with values replaced by dotted key; a string is read as the type of the field.

    Raises:
        InputError: a key that does not exist (the nearest is named), a value of the wrong type, or
            one that its dataclass refuses.
    """
    known = settable(config)
    for key, value in changes.items():
        if key not in known:
            raise unknown_name("set", key, known)
        config = _replace(config, key.split("."), value, key)
    return config


def _replace(config: Any, path: list[str], value: Any, key: str) -> Any:
    name, *rest = path
    if rest:
        new = _replace(getattr(config, name), rest, value, key)
    else:
        new = _as_type(value, typing.get_type_hints(type(config))[name], key)
    return dataclasses.replace(config, **{name: new})


def _build(kind: type, fields: dict[str, Any], known: dict[str, type], prefix: str = "") -> Any:
    """A dataclass from its JSON; `known` gives the types that annotations leave open."""
    hints = typing.get_type_hints(kind) | known
    names = [field.name for field in dataclasses.fields(kind)]
    if difference := sorted(set(names) ^ set(fields)):
        raise KeyError(f"{prefix}{difference[0]}")
    values = {}
    for name in names:
        key = prefix + name
        if dataclasses.is_dataclass(hints[name]):
            values[name] = _build(hints[name], fields[name], {}, f"{key}.")
        else:
            values[name] = _as_type(fields[name], hints[name], key)
    return kind(**values)


def _as_type(value: Any, hint: Any, key: str) -> Any:
    """A value or the text of one as the type a field declares.

    That is int, float, bool or str, or one of them `| None`.
    """
    kinds = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    if types.NoneType in kinds and value in (None, "none"):
        return None
    kind = kinds[0]
    expected = f"{kind.__name__}{' or none' if types.NoneType in kinds else ''}"
    try:
        if kind is bool:
            return {False: False, True: True, "false": False, "true": True}[value]
        if value is None or isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        return kind(value)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{key}: {json.dumps(value)}; expected {expected}") from error
