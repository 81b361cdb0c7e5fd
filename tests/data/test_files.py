"""Image files of every common kind become uint8 of the wanted shape."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.data.files import find_images, read_image
from fastssl.errors import InputError

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1"])
def test_every_mode_is_read_as_grey(tmp_path, mode):
    path = tmp_path / "image.png"
    Image.fromarray(RAMP).convert("RGB").convert(mode).save(path)
    image = read_image(path, (1, 8, 8))
    assert image.shape == (1, 8, 8)
    assert image.dtype == torch.uint8
    if mode in ("L", "RGB", "RGBA", "LA"):
        assert torch.equal(image[0], torch.from_numpy(RAMP))


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    assert torch.equal(read_image(path, (1, 8, 8))[0], torch.from_numpy(RAMP))


def test_colours_keep_their_channel(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (4, 4), (200, 10, 0)).save(path)
    assert read_image(path, (3, 2, 2))[:, 0, 0].tolist() == [200, 10, 0]


def test_transparent_parts_are_black(tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(path)
    assert read_image(path, (1, 4, 4)).max() == 0


def test_other_sizes_are_resampled(tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("L", (200, 100), 90).save(path)
    assert read_image(path, (1, 8, 8)).sub(90).max() <= 1


def test_folders_are_searched_below_and_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    names = ["b/two.JPG", "a.png", "b/one.jpeg", "notes.txt"]
    for name in names:
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a.png", "b/one.jpeg", "b/two.JPG"]


def test_unreadable_files_are_named(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        read_image(broken, (1, 8, 8))
    with pytest.raises(InputError, match="there is no"):
        find_images([tmp_path / "absent.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image file"):
        find_images([tmp_path / "empty"])


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8)).save(
        path
    )
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cannot be read"):
        read_image(path, (1, 8, 8))
