"""The configuration of a run: frozen dataclasses, overrides by dotted key, JSON both ways."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastssl.algorithms import named
from fastssl.algorithms.contrastive import Contrastive
from fastssl.algorithms.label_propagation import LabelPropagationConfig
from fastssl.algorithms.muscle import Muscle
from fastssl.errors import InputError, unknown_name
from fastssl.ops.augment import MOST_SIZE
from fastssl.ops.policies import POLICIES, Policy
from fastssl.recipes.optim import OptimConfig, check
from fastssl.recipes.views import ViewsConfig, policy_for, policy_name
from fastssl.training.schedules import Stages
from fastssl.training.step import COMPILERS

PARTS = ("muscle", "propagation", "contrastive")  # that an algorithm of that name has, or has not
PRECISIONS = ("bf16", "fp32")
POLICY = "policy"  # the key under which a view's policy has its name, in front of its values


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
        if self.image_size is not None:
            within = 8 <= self.image_size <= MOST_SIZE
            check("data.image_size", self.image_size, within, f"8 to {MOST_SIZE} pixels")


@dataclass(frozen=True)
class ModelConfig:
    """The network, and its options where they are not its own defaults."""

    name: str
    dropout: float | None = None
    weight_norm: bool | None = None
    unit_features: bool | None = None
    stem: str | None = None  # of resnet18
    pretrained: bool | None = None  # of a network of torchvision or timm, which download weights

    @property
    def options(self) -> dict[str, float | bool | str]:
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
class CheckpointConfig:
    """When a run is saved, and which checkpoints stay beside the last two and the best."""

    every: int = 200  # steps
    minutes: float | None = None  # at most from one to the next; None for no limit
    keep_every: int | None = None  # steps; those of each multiple stay; None for no such

    def __post_init__(self) -> None:
        check("checkpoint.every", self.every, self.every >= 1, "1 or more")
        if self.minutes is not None:
            check("checkpoint.minutes", self.minutes, self.minutes > 0, "a number above 0")
        if self.keep_every is not None:
            check("checkpoint.keep_every", self.keep_every, self.keep_every >= 1, "1 or more")


@dataclass(frozen=True)
class Config:
    """Everything a run is a function of.

    `algorithm` is the config dataclass of the named one, or of MUSCLE's base; `muscle` and
    `contrastive` are the terms on it and `propagation` its second stage, None for an algorithm
    without.
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
    precision: str = "fp32"  # or "bf16": autocast to bfloat16 around the loss
    compile: str = "none"  # or "inductor" or "graph": how a step is run
    eval: EvalConfig = EvalConfig()
    log_every: int = 10
    contrastive: Contrastive | None = None
    init: str | None = None  # the folder of a finished run whose networks this one starts from
    checkpoint: CheckpointConfig = CheckpointConfig()
    sync_bn: bool = False  # batch statistics of all processes' rows, on GPUs

    @classmethod
    def of(cls, name: str, /, **values: Any) -> "Config":
        """Of a named algorithm: what its name stands for, and `values` of the other fields."""
        known = named(name)
        parts = {"algorithm": known.config} | {part: getattr(known, part) for part in PARTS}
        return cls(name, **(parts | values))

    def __post_init__(self) -> None:
        for key in ("steps", "log_every"):
            value = getattr(self, key)
            check(key, value, value >= 1, "1 or more")
        known = named(self.algorithm_name)
        for part in PARTS:
            if type(getattr(self, part)) is not type(getattr(known, part)):
                raise ValueError(f"{part}: not that of {self.algorithm_name}")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.compile not in COMPILERS:
            raise unknown_name("compile", self.compile, COMPILERS)
        check("seed", self.seed, 0 <= self.seed < 2**63, "0 or more, below 2**63")

    @property
    def stages(self) -> Stages:
        """Of the run: one, or two with label propagation."""
        if self.propagation is None:
            return Stages((0,), self.steps)
        return Stages((0, round(self.propagation.first_stage * self.steps)), self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and values, for run.json."""
        return _plain(self)


def from_json(fields: Any) -> Config:
    """Inverse of `Config.to_json`.

    Raises:
        InputError: a field is missing, unknown or of the wrong type.
    """
    try:
        known = named(fields["algorithm_name"])
        kinds = {"algorithm": known.kind.config_type}
        kinds |= {part: type(getattr(known, part)) for part in PARTS}
        return _build(Config, fields, kinds)
    except InputError:
        raise
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"configuration: not one that fastssl wrote ({error})") from error


def leaves(config: Any, prefix: str = "", declared: Any = None) -> dict[str, Any]:
    """Every value of a configuration by its dotted key: {"optim.lr": 0.05, ...}."""
    values: dict[str, Any] = {}
    for name, value, hint in _fields(config, declared):
        if dataclasses.is_dataclass(value):
            values |= leaves(value, f"{prefix}{name}.", hint)
        else:
            values[prefix + name] = value
    return values


def settable(config: Config) -> dict[str, Any]:
    """The leaves of a configuration that `override` takes: all but what its algorithm is."""
    fixed = ("algorithm_name", *PARTS)
    return {k: v for k, v in leaves(config).items() if k not in fixed}


def override(config: Config, changes: dict[str, Any]) -> Config:
    """A copy with values replaced by dotted key; a string is read as the type of the field.

    A view's policy comes with the values that suit the data; those that are given beside it are
    changed in it, in whichever order they stand.

    Raises:
        InputError: a key that does not exist (the nearest is named), a value of the wrong type, or
            one that its dataclass refuses.
    """
    for key in sorted(changes, key=lambda key: not key.endswith(f".{POLICY}")):
        path, value, known = key.split("."), changes[key], settable(config)
        if f"{key}.{POLICY}" in known:
            raise InputError(f"set: {key} is a policy and its values; set {key}.{POLICY} to a name")
        if key not in known:
            raise unknown_name("set", key, known)
        if path[-1] == POLICY:
            data = config.data
            path.pop()
            value = policy_for(value, data.source, data.image_size, key=key)
        try:
            config = _replace(config, path, value, key)
        except InputError:
            raise
        except ValueError as error:  # of a policy, which knows no InputError
            raise InputError(f"{key}: {error}") from error
    return config


def _replace(config: Any, path: list[str], value: Any, key: str) -> Any:
    name, *rest = path
    if rest:
        new = _replace(getattr(config, name), rest, value, key)
    elif dataclasses.is_dataclass(value):
        new = value
    else:
        new = _as_type(value, typing.get_type_hints(type(config))[name], key)
    return dataclasses.replace(config, **{name: new})


def _fields(config: Any, declared: Any) -> Iterator[tuple[str, Any, Any]]:
    """Names, values and declared types of a dataclass's fields.

    In front of a policy's own comes its name, where it was declared as any policy.
    """
    if declared == Policy:
        yield POLICY, policy_name(config), str
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        yield field.name, getattr(config, field.name), hints[field.name]


def _plain(value: Any, declared: Any = None) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _plain(each, hint) for name, each, hint in _fields(value, declared)}
    return list(value) if isinstance(value, tuple) else value


def _build(kind: type, fields: dict[str, Any], known: dict[str, type], prefix: str = "") -> Any:
    """A dataclass from its JSON; `known` gives the types that annotations leave open."""
    if kind == Policy:
        kind = POLICIES[fields[POLICY]]
        fields = {name: value for name, value in fields.items() if name != POLICY}
    hints = typing.get_type_hints(kind) | known
    names = [field.name for field in dataclasses.fields(kind)]
    if difference := sorted(set(names) ^ set(fields)):
        raise KeyError(f"{prefix}{difference[0]}")
    values = {}
    for name in names:
        key = prefix + name
        if hints[name] == Policy or dataclasses.is_dataclass(hints[name]):
            values[name] = _build(hints[name], fields[name], {}, f"{key}.")
        else:
            values[name] = _as_type(fields[name], hints[name], key)
    return kind(**values)


def _as_type(value: Any, hint: Any, key: str) -> Any:
    """A value or the text of one as the type a field declares.

    That is int, float, bool or str, one of them `| None`, or a tuple of them, with commas as text.
    """
    if typing.get_origin(hint) is tuple:
        parts, kinds = value.split(",") if isinstance(value, str) else value, typing.get_args(hint)
        if not isinstance(parts, list | tuple) or len(parts) != len(kinds):
            raise InputError(f"{key}: {json.dumps(value)}; expected {len(kinds)} values")
        return tuple(_as_type(part, kind, key) for part, kind in zip(parts, kinds, strict=True))
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
