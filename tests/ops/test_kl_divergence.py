import math

import torch
from row_losses import TargetedLossChecks


class TestKlDivergence(TargetedLossChecks):
    name = "kl_divergence"

    def floors(self, logits):
        value, gradient = super().floors(logits)
        return [value + self.logarithm_floor(logits), gradient]

    def test_known_values(self, backend):
        target = torch.tensor([[0.0, 0.0], [0.0, 0.0]], device=backend.device)
        logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], device=backend.device)
        expected = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
        torch.testing.assert_close(backend.op("kl_divergence")(target, logits).item(), expected)

    def test_classes_masked_on_one_side(self, backend):
        """Masked in the target alone it adds nothing; in the logits alone KL is infinite."""
        op = backend.op("kl_divergence")
        plain = torch.randn(5, 12, device=backend.device)
        masked = plain.clone()
        masked[:, 4] = -torch.inf
        logits = plain.clone().requires_grad_()
        value = op(masked, logits)
        p, q = plain.softmax(1), masked.softmax(1)
        kept = torch.arange(12, device=backend.device) != 4
        expected = (q * (q / p).log())[:, kept].sum(1).mean()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, logits)[0], (p - q) / 5)
        logits = masked.clone().requires_grad_()
        value = op(plain, logits)
        assert value == torch.inf
        torch.testing.assert_close(torch.autograd.grad(value, logits)[0], (q - p) / 5)
