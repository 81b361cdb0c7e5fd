"""Views: reproducible under any batching, different in every step, view and row, and sound."""

import pytest
import torch

from fastssl.data.views import ViewPolicy, augment, normalise
from fastssl.errors import InputError

WEAK = ViewPolicy(rotate=5, scale=0.05, shear=0.05, translate=0.5, noise=0.02)
HARD = ViewPolicy(rotate=30, scale=0.3, shear=0.3, translate=1, noise=0.1)
MEAN, STD = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.3, 0.4])
N, K, H, W = 6, 3, 8, 11


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (N, K, H, W), dtype=torch.uint8, generator=generator)


def views(policies, *, rows=slice(None), seed=0, step=0, index=None):
    index = torch.arange(N) if index is None else index
    return augment(
        images()[rows], policies, seed=seed, step=step, index=index[rows], mean=MEAN, std=STD
    )


def test_shape_and_dtype():
    drawn = views([WEAK, HARD, HARD])
    assert drawn.shape == (3, N, K, H, W)
    assert drawn.dtype == torch.float32


def test_an_image_has_the_same_views_in_any_batch():
    together = views([WEAK, HARD])
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        assert torch.equal(views([WEAK, HARD], rows=rows), together[:, rows])


def test_a_view_does_not_depend_on_the_views_after_it():
    assert torch.equal(views([WEAK]), views([WEAK, HARD, HARD])[:1])


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}, {"index": torch.arange(N) + N}])
def test_views_differ_by_seed_step_and_index(change):
    before, after = views([WEAK, HARD]), views([WEAK, HARD], **change)
    assert (before != after).flatten(2).any(2).all()


def test_views_and_rows_differ_from_each_other():
    same = torch.full((N, K, H, W), 128, dtype=torch.uint8)
    drawn = augment(
        same, [HARD] * 3, seed=0, step=0, index=torch.arange(N), mean=MEAN, std=STD
    ).flatten(0, 1)
    assert len(drawn.flatten(1).unique(dim=0)) == 3 * N


def test_the_empty_policy_only_normalises():
    plain = views([ViewPolicy()])[0]
    torch.testing.assert_close(plain, normalise(images(), MEAN, STD), atol=1e-4, rtol=0)


def test_translation_moves_whole_pixels_where_it_should():
    # Over many draws a lone bright pixel stays within the range, reaches its ends, and is centred.
    dot = torch.zeros(500, 1, 9, 9, dtype=torch.uint8)
    dot[:, :, 4, 4] = 255
    one = torch.ones(1)
    drawn = augment(
        dot,
        [ViewPolicy(translate=2)],
        seed=0,
        step=0,
        index=torch.arange(500),
        mean=0 * one,
        std=one,
    )[0, :, 0]
    axis = torch.arange(9.0) - 4
    x, y = (drawn.sum(1) * axis).sum(1), (drawn.sum(2) * axis).sum(1)
    for shift in (x, y):
        assert shift.abs().max() <= 2 + 1e-4
        assert shift.min() < -1.9
        assert shift.max() > 1.9
        assert shift.mean().abs() < 0.2  # 2 / sqrt(3) / sqrt(500) is one standard error: 0.05
    assert torch.corrcoef(torch.stack([x, y]))[0, 1].abs() < 0.2


def test_rotation_and_scale_keep_angles_on_an_oblong_image():
    # A disc stays a disc only if the transform works in pixels, not in fractions of each side.
    y, x = torch.meshgrid(torch.arange(15.0) - 7, torch.arange(31.0) - 15, indexing="ij")
    disc = (255 * (x**2 + y**2 <= 16)).to(torch.uint8).expand(20, 1, 15, 31)
    one = torch.ones(1)
    policy = ViewPolicy(rotate=90)
    drawn = augment(disc, [policy], seed=0, step=0, index=torch.arange(20), mean=0 * one, std=one)
    spread_x = (drawn * x**2).sum((3, 4)) / drawn.sum((3, 4))
    spread_y = (drawn * y**2).sum((3, 4)) / drawn.sum((3, 4))
    torch.testing.assert_close(spread_x, spread_y, rtol=0.05, atol=0)


def test_noise_has_the_stated_deviation():
    flat = torch.full((200, 1, 8, 8), 128, dtype=torch.uint8)
    one = torch.ones(1)
    drawn = augment(
        flat,
        [ViewPolicy(noise=0.1)],
        seed=0,
        step=0,
        index=torch.arange(200),
        mean=0 * one,
        std=one,
    )
    noise = drawn - 128 / 255
    assert abs(noise.std().item() - 0.1) < 0.003  # 12,800 draws: one standard error is 0.0006
    assert abs(noise.mean().item()) < 0.003
    assert abs((noise**4).mean().item() / 0.1**4 - 3) < 0.2  # Gaussian kurtosis


@pytest.mark.parametrize("values", [{"rotate": -1}, {"noise": float("nan")}, {"scale": 1.0}])
def test_impossible_policies_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        ViewPolicy(**values)
