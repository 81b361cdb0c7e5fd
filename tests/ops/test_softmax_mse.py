import torch
from op_checks import accumulation_eps
from row_losses import TargetedLossChecks


class TestSoftmaxMse(TargetedLossChecks):
    name = "softmax_mse"

    def divisor(self, logits):
        return logits.numel()

    def floors(self, logits):
        """A row's squares sum to at most 2, and its gradient's entries are at most 1."""
        floor = 8 * accumulation_eps(logits.dtype)
        return [floor / logits.shape[1], floor / self.divisor(logits) + self.storage_floor(logits)]

    def test_known_values(self, backend):
        one_hot = 1e3 * torch.eye(10, device=backend.device)
        op = backend.op("softmax_mse")
        torch.testing.assert_close(op(one_hot, one_hot.roll(1, 0)).item(), 0.2)
