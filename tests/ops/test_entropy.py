import math

import torch
from row_losses import RowLossChecks


class TestEntropy(RowLossChecks):
    name = "entropy"
    differentiated = 0

    def make(self, N, C):
        return [torch.randn(N, C) * 2]

    def test_known_values(self, backend):
        op = backend.op("entropy")
        uniform = torch.full((20, 10), -3.0, device=backend.device)
        torch.testing.assert_close(op(uniform).item(), math.log(10))
        two = torch.full((20, 10), -torch.inf, device=backend.device)
        two[:, 3:5] = 1.0
        torch.testing.assert_close(op(two).item(), math.log(2))
        one_hot = 1e3 * torch.eye(10, device=backend.device)
        assert op(one_hot).item() == 0
