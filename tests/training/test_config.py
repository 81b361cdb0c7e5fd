"""Configurations: overrides with types, JSON both ways, every mistake named."""

import json

import pytest

from fastssl.algorithms.ccn import VARIANTS
from fastssl.errors import InputError
from fastssl.recipes import ccn, recipe
from fastssl.recipes.config import from_json, leaves, override


@pytest.fixture(params=["muscle", "supervised", "muscle+mean-teacher", "ccn-no-ml", "contrastive"])
def config(request):
    return recipe(request.param, "digits")


def test_json_gives_the_configuration_back(config):
    assert from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("data", ccn.SETTINGS)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_of_ccn_differs_by_what_it_leaves_out_and_what_was_chosen_for_it(name, data):
    full, other = (leaves(recipe(algorithm, data)) for algorithm in ("ccn", f"ccn-{name}"))
    changed = {f"algorithm.{key}": value for key, value in VARIANTS[name].items()}
    for key, value in ccn.CHOSEN.get((data, f"ccn-{name}"), {}).items():
        changed["algorithm.radius" if key == "radius" else f"optim.{key}"] = value
    assert other == full | changed | {"algorithm_name": f"ccn-{name}"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optim.lr", "0.02", 0.02),
        ("optim.lr", "1e-3", 0.001),
        ("steps", "7", 7),
        ("views.weak.rotate", "12", 12.0),
        ("data.labels", "20", 20),
        ("data.labels", "none", None),
        ("model.name", "conv_large", "conv_large"),
        ("model.dropout", "0.25", 0.25),
        ("model.dropout", "none", None),
        ("model.weight_norm", "true", True),
    ],
)
def test_an_override_has_the_type_of_its_field(config, key, text, value):
    changed = leaves(override(config, {key: text}))
    assert changed[key] == value
    assert type(changed[key]) is type(value)
    before = leaves(config)
    assert {k for k in changed if changed[k] != before[k]} <= {key}


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("optim.lrr", "1", "did you mean 'optim.lr'"),
        ("lr", "1", "unknown name 'lr'"),
        ("optim", "1", "unknown name 'optim'"),
        ("algorithm_name", "muscle", "unknown name 'algorithm_name'"),
        ("steps", "1.5", 'steps: "1.5"; expected int'),
        ("steps", "many", "expected int"),
        ("optim.lr", "fast", "expected float"),
        ("data.labels", "all", "expected int or none"),
        ("model.weight_norm", "yes", "expected bool or none"),
        ("optim.lr", "0", "optim.lr: 0.0; expected a number above 0"),
        ("optim.lr", "nan", "optim.lr: nan"),
        ("optim.momentum", "1", "between 0 and 1"),
        ("optim.weight_decay", "-1", "0 or more"),
        ("steps", "0", "steps: 0; expected 1 or more"),
        ("log_every", "0", "log_every: 0"),
        ("checkpoint_every", "5", "did you mean 'checkpoint.every'"),
        ("checkpoint.every", "0", "checkpoint.every: 0; expected 1 or more"),
        ("checkpoint.minutes", "0", "checkpoint.minutes: 0.0; expected a number above 0"),
        ("checkpoint.keep_every", "0", "checkpoint.keep_every: 0; expected 1 or more"),
        ("seed", "-1", "seed: -1"),
        ("data.labeled_rows", "0", "data.labeled_rows: 0; expected 1 or more"),
        ("data.unlabeled_rows", "-1", "data.unlabeled_rows: -1; expected 0 or more"),
        ("views.weak.scale", "1", "views.weak.scale: Digits: scale is 1.0; expected at most 0.9"),
        ("views.weak.policy", "rand_augmant", "did you mean 'rand_augment"),
        ("views.weak", "weak", "set views.weak.policy to a name"),
        ("views.weak.flip", "true", "unknown name 'views.weak.flip'"),
        ("data.image_size", "200", "data.image_size: 200; expected 8 to 160 pixels"),
    ],
)
def test_a_wrong_override_is_named(config, key, text, message):
    with pytest.raises(InputError, match=message):
        override(config, {key: text})


def test_only_muscle_has_alpha():
    assert override(recipe("muscle", "digits"), {"muscle.alpha": "0.5"}).muscle.alpha == 0.5
    for key in ("muscle.alpha", "muscle"):
        with pytest.raises(InputError, match="unknown name"):
            override(recipe("supervised", "digits"), {key: "0.5"})


def test_edited_json_is_refused(config):
    fields = config.to_json()
    for broken in (
        None,
        {},
        fields | {"extra": 1},
        {key: value for key, value in fields.items() if key != "steps"},
        fields | {"steps": "many"},
        fields | {"steps": 2.5},
        fields | {"steps": True},
        fields | {"algorithm_name": "other"},
        fields | {"muscle": {"alpha": 1.0}},
        fields | {"muscle": None if fields["muscle"] else {"alpha": 1.0, "hard_views": 3}},
        fields | {"optim": 3},
    ):
        with pytest.raises(InputError):
            from_json(broken)
