import pytest
import torch

from fastssl.objectives.consistency import consistency


def test_costs():
    teacher, student = torch.randn(2, 8, 5)
    q, p = teacher.softmax(1), student.softmax(1)
    torch.testing.assert_close(consistency(teacher, student), (p - q).square().mean())
    kl = torch.distributions.kl_divergence(
        *(torch.distributions.Categorical(logits=x) for x in (teacher, student))
    )
    torch.testing.assert_close(consistency(teacher, student, "kl"), kl.mean())


@pytest.mark.parametrize("cost", ["mse", "kl"])
def test_the_teacher_is_constant(cost):
    teacher, student = (torch.randn(8, 5, requires_grad=True) for _ in range(2))
    consistency(teacher, student, cost).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


def test_unknown_cost():
    with pytest.raises(ValueError, match="cost is 'l1'; expected 'mse' or 'kl'"):
        consistency(torch.randn(8, 5), torch.randn(8, 5), "l1")
