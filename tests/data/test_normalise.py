"""Images as networks see them: zero mean, unit variance."""

import torch

from fastssl.data.normalise import normalise

MEAN, STD = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.3, 0.4])


def test_pixels_are_parts_of_255():
    images = torch.randint(256, (4, 3, 5, 7), dtype=torch.uint8)
    found = normalise(images, MEAN, STD)
    for k in range(3):
        expected = (images[:, k].double() / 255 - MEAN[k].double()) / STD[k].double()
        torch.testing.assert_close(found[:, k].double(), expected, rtol=1e-5, atol=1e-6)


def test_points_are_not_pixels():
    points = torch.randn(20, 3)
    torch.testing.assert_close(normalise(points, MEAN, STD), (points - MEAN) / STD)
