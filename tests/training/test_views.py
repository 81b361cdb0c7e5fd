"""The views of a run: policies by name, the papers' own, JSON both ways, every mistake named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_trees import save

from fastssl.algorithms import ALGORITHMS
from fastssl.data.sources import SOURCES, Source, load_source
from fastssl.errors import InputError
from fastssl.ops.policies import (
    POLICY_NAMES,
    Digits,
    IICHard,
    NoAugment,
    RandAugment,
    Weak,
)
from fastssl.recipes import RECIPES, ccn, recipe
from fastssl.recipes.config import from_json, leaves, override, settable
from fastssl.recipes.experiment import configure
from fastssl.recipes.views import SIDES, check_views

CIFAR_WEAK = Weak(translate=4, flip=True)
IIC = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.125}


def stored(config):
    """The configuration as run.json gives it back."""
    return from_json(json.loads(json.dumps(config.to_json())))


@pytest.mark.parametrize("name", POLICY_NAMES)
@pytest.mark.parametrize("data", ["digits", "mnist", "cifar10", "mini_imagenet"])
def test_every_policy_goes_through_json_and_fits_the_images(data, name):
    config = override(recipe("muscle", data), {"views.hard.policy": name})
    assert stored(config) == config
    kind = name if name in ("none", "weak", "iic_hard", "digits") else "rand_augment"
    assert config.to_json()["views"]["hard"]["policy"] == kind
    images = torch.zeros(1, 3, SIDES[data], SIDES[data], dtype=torch.uint8)
    check_views(source_of(images), [config.views.weak, config.views.hard])
    assert override(recipe("muscle", data), settable(config)) == config


def source_of(images):
    """A data set of these images."""
    label = torch.zeros(len(images), dtype=torch.int64)
    return Source("made", images, label, images[:0], label[:0], ("one",))


def test_a_policy_comes_with_its_values_and_those_beside_it_are_changed_in_it():
    config = recipe("muscle", "cifar10")
    usb = override(config, {"views.hard.policy": "rand_augment_usb"})
    assert usb.views.hard == RandAugment.preset("usb", CIFAR_WEAK)
    assert usb.views.weak == config.views.weak
    changes = {
        "views.hard.cutout": "0,0.25",
        "views.hard.magnitudes.levels": "none",
        "views.hard.weak.flip": "false",
        "views.hard.policy": "rand_augment",
    }
    hard = override(config, changes).views.hard
    assert hard.cutout == (0.0, 0.25)
    assert hard.magnitudes.levels is None
    assert not hard.weak.flip
    assert stored(override(config, changes)).views.hard == hard


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views.hard.policy": "hard"}, "views.hard.policy: unknown name 'hard'"),
        ({"views.hard.policy": "weak", "views.hard.crop": "20"}, "unknown name 'views.hard.crop'"),
        (
            {"views.hard.crop": "1"},
            "views.hard.crop: IICHard: crop is 1; expected 2 pixels",
        ),
        ({"views.hard.policy": "rand_augment", "views.hard.cutout": "1"}, "expected 2 values"),
        ({"views.hard.policy": "rand_augment", "views.hard.cutout": "a,b"}, "expected float"),
        ({"views.hard.policy": "rand_augment", "views.hard.magnitudes": "usb"}, "unknown name"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        override(recipe("muscle", "cifar10"), changes)


def test_edited_json_is_refused():
    fields = recipe("muscle", "cifar10").to_json()
    hard = fields["views"]["hard"]
    for broken in (
        {},
        hard | {"policy": "weak"},
        hard | {"policy": "other"},
        hard | {"policy": ["iic_hard"]},
        hard | {"crop": 1},
        {key: value for key, value in hard.items() if key != "policy"},
        None,
        "iic_hard",
    ):
        views = fields["views"] | {"hard": broken}
        with pytest.raises(InputError):
            from_json(fields | {"views": views})


def test_the_papers_views():
    for data in ("cifar10", "cifar100", "cifar20"):
        muscle, fixmatch = (
            recipe(name, data).views for name in ("muscle+mean-teacher", "muscle+fixmatch")
        )
        assert muscle.weak == fixmatch.weak == CIFAR_WEAK
        assert muscle.hard == IICHard(crop=20, flip=True, **IIC)
        assert fixmatch.hard == RandAugment(
            n=2, weak=replace(CIFAR_WEAK, fill=127), cutout=(0.5, 0.5)
        )
    views = recipe("muscle", "mini_imagenet").views
    assert views.weak == Weak(rotate=10, padding=8, flip=True)
    assert views.hard == IICHard(crop=52, flip=True, **IIC)
    for data, weak in {
        "cifar10": Weak(translate=2, flip=True),
        "mnist": Weak(translate=2),
        "svhn": Weak(translate=2),
        "two_spirals": NoAugment(),
    }.items():
        assert recipe("ccn", data).views.weak == weak


@pytest.mark.parametrize("algorithm", ["muscle", "fixmatch", "ccn"])
def test_every_recipes_views_fit_its_images(algorithm):
    for data in ccn.SETTINGS if algorithm == "ccn" else SIDES:
        views = recipe(algorithm, data).views
        if data in SIDES:
            source = source_of(torch.zeros(1, 3, SIDES[data], SIDES[data], dtype=torch.uint8))
        else:
            source = load_source(data)
        check_views(source, [views.weak, views.hard])


def test_figures_are_never_mirrored():
    for data in ("digits", "mnist", "svhn"):
        for algorithm in ALGORITHMS:
            config = recipe(algorithm, data)
            for name in POLICY_NAMES:
                values = leaves(override(config, {"views.hard.policy": name}).views)
                assert not any(value for key, value in values.items() if key.endswith("flip"))


def test_a_folders_views_are_scaled_to_its_images(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / name / "1.png", np.zeros((26, 40), dtype=np.uint8), "RGB")
    for size, changes in ((24, {}), (96, {"data.image_size": "96"}), (8, {"data.image_size": 8})):
        config = configure("muscle", str(tmp_path), changes)
        assert config.data.image_size == size
        assert config.views.weak == Weak(translate=size // 8, flip=True)
        assert config.views.hard == IICHard(crop=size * 20 // 32)
    changes = {"data.image_size": 96, "views.weak.translate": 3}
    assert configure("muscle", str(tmp_path), changes).views.weak.translate == 3


def test_sides_are_those_of_the_data_sets():
    assert set(SIDES) == set(SOURCES) - {"two_spirals"} == set(RECIPES) - {"two_spirals"}
    assert load_source("digits").shape[-1] == SIDES["digits"]


def test_views_that_the_images_cannot_have_are_refused():
    digits, points = load_source("digits"), load_source("two_spirals")
    check_views(points, [NoAugment()])
    for source, policy, message in (
        (digits, IICHard(crop=20), "views: IICHard: crop is 20; expected at most the 8 pixels"),
        (points, Digits(translate=1), "views: two_spirals has points, not images"),
    ):
        with pytest.raises(InputError, match=message):
            check_views(source, [NoAugment(), policy])
