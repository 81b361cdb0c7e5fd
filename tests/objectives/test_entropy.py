import torch

from fastssl.objectives.entropy import entropy


def test_is_the_entropy_of_the_predictions():
    logits = torch.randn(8, 5)
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(entropy(logits), expected)


def test_minimising_it_sharpens_predictions():
    logits = torch.randn(8, 5, requires_grad=True)
    before = entropy(logits)
    before.backward()
    assert entropy(logits.detach() - logits.grad) < before
