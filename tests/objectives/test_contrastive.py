"""The contrastive term against the paper's sums in plain loops."""

import math

import pytest
import torch

from fastssl.objectives.contrastive import contrastive

V, N, D = 3, 5, 4


def equation(weak, hard, temperature):
    """Chen et al., 2020, eq. 1, for the 2N rows of two views."""
    rows = [*weak, *hard]

    def similarity(i, j):
        return (rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm())).item() / temperature

    total = 0.0
    for i in range(2 * N):
        others = sum(math.exp(similarity(i, j)) for j in range(2 * N) if j != i)
        total += math.log(others) - similarity(i, (i + N) % (2 * N))
    return total / (2 * N)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_is_the_papers_sum_over_views(temperature):
    weak = torch.randn(N, D, dtype=torch.float64)
    hard = weak + torch.randn(V, N, D, dtype=torch.float64)
    expected = sum(equation(weak, view, temperature) for view in hard) / V
    assert contrastive(weak, hard, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_pulls_an_images_views_together():
    weak = torch.randn(N, D).requires_grad_()
    hard = torch.randn(V, N, D)
    before = torch.cosine_similarity(weak, hard, dim=2).mean()
    for _ in range(20):
        (grad,) = torch.autograd.grad(contrastive(weak, hard), weak)
        weak = (weak - grad).detach().requires_grad_()
    assert torch.cosine_similarity(weak, hard, dim=2).mean() > before + 0.05


def test_errors():
    weak = torch.randn(N, D)
    with pytest.raises(ValueError, match=r"hard_features is \[5, 4\]; expected \[V,N,D\]"):
        contrastive(weak, weak)
    with pytest.raises(ValueError, match=r"hard_features is \[0, 5, 4\]"):
        contrastive(weak, torch.empty(0, N, D))
    with pytest.raises(ValueError, match=r"features_a is \[5, 4\] and features_b \[4, 4\]"):
        contrastive(weak, torch.randn(V, N - 1, D))
    with pytest.raises(ValueError, match="temperature is 0"):
        contrastive(weak, torch.randn(V, N, D), 0)
