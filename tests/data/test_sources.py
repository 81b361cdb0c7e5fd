"""The embedded digits, and names that are not a data set."""

import pytest
import torch

from fastssl.data.sources import load_source
from fastssl.errors import InputError


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


def test_digits_have_a_fixed_stratified_test_part(digits):
    assert digits.images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert torch.bincount(digits.test_labels).tolist() == [36] * 10
    # Recorded once: accuracies are comparable only while these bytes and their order stay.
    assert digits.fingerprint.startswith("5a9e37053a6cb139")


def test_digits_fill_the_range_of_uint8(digits):
    assert digits.images.dtype == torch.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 255)


def test_no_test_image_is_a_training_image(digits):
    train = {bytes(image.numpy()) for image in digits.images}
    assert not any(bytes(image.numpy()) in train for image in digits.test_images)


def test_mean_and_std_normalise_the_training_images(digits):
    pixels = (digits.images.double() / 255 - digits.mean) / digits.std
    torch.testing.assert_close(pixels.mean().item(), 0.0, atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.std(correction=0).item(), 1.0, atol=1e-6, rtol=0)


def test_an_unknown_name_points_at_the_nearest():
    with pytest.raises(InputError, match="did you mean 'digits'"):
        load_source("digit")


def test_a_cut_takes_the_classes_in_turn():
    source = load_source("digits")
    cut = source.cut(25)
    counts = cut.labels.bincount().tolist()
    assert sorted(counts) == [2] * 5 + [3] * 5
    positions = [
        int((source.images == image).flatten(1).all(1).nonzero()[0]) for image in cut.images
    ]
    assert positions == sorted(positions)
    assert torch.equal(source.labels[positions], cut.labels)
    assert len(cut.test_labels) == len(source.test_labels)
    assert cut.fingerprint != source.fingerprint
    for n in (0, len(source.labels) + 1):
        with pytest.raises(InputError, match=f"data.images: {n}; expected 1 to 1437"):
            source.cut(n)
