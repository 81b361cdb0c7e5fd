import pytest
import torch
from op_checks import evaluate
from row_losses import RowLossChecks

import fastssl.ops

OP = fastssl.ops.weighted_cross_entropy


class TestWeightedCrossEntropy(RowLossChecks):
    name = "weighted_cross_entropy"
    differentiated = 0

    def floors(self, logits):
        value, gradient = super().floors(logits)
        return [value + self.logarithm_floor(logits), gradient]

    def make(self, N, C):
        return [torch.randn(N, C) * 2, torch.randint(C, (N,)), torch.rand(N)]

    def test_rows_without_weight(self, backend):
        """They add exactly 0 and have no gradient, whatever their logits."""
        logits, targets, weights = self.inputs(9, 40, backend.device)
        logits[2:5, 7] = -torch.inf
        logits[5] = torch.nan
        targets[2:5] = 7
        weights[2:6] = 0
        kept = torch.tensor([0, 1, 6, 7, 8], device=backend.device)
        op = backend.op(self.name)
        value, gradient = evaluate(lambda x: op(x, targets, weights), [logits], None)
        of_kept = [x[kept] for x in (logits, targets, weights)]
        expected = evaluate(lambda x: self.reference(x, *of_kept[1:]), of_kept[:1], None)
        torch.testing.assert_close(value, expected[0] * 5 / 9)
        torch.testing.assert_close(gradient[kept], expected[1] * 5 / 9, rtol=1e-5, atol=1e-7)
        assert (gradient[2:6] == 0).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_float32_weights_beside_16_bit_logits(self, backend, dtype):
        """As under autocast: the weights are not rounded to the logits' dtype."""
        logits, targets, weights = self.inputs(41, 10, backend.device)
        weights, logits = weights * 1e-3 + 1, logits.to(dtype)
        op = backend.op(self.name)
        exact = self.reference(logits.double(), targets, weights.double())
        torch.testing.assert_close(op(logits, targets, weights).double(), exact, rtol=1e-6, atol=0)
        gradients = [
            evaluate(lambda x, w=w: op(x, targets, w), [logits], None)[1]
            for w in (weights, weights.to(dtype))
        ]
        assert not torch.equal(*gradients)

    @pytest.mark.parametrize("C", [4, 70])
    def test_every_target(self, backend, C):
        logits = torch.randn(C, C, device=backend.device)
        targets = torch.randperm(C).to(backend.device)
        value = backend.op(self.name)(logits, targets, torch.ones(C, device=backend.device))
        torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits, targets))

    @pytest.mark.parametrize("target", [-1, 10, 2**40])
    def test_kernels_write_nan_for_a_target_out_of_range(self, backend, target):
        if backend.name == "cpu":
            pytest.skip("there it is a ValueError")
        logits, targets, weights = self.inputs(9, 10, backend.device)
        targets[3] = target
        logits.requires_grad_()
        value = backend.op(self.name)(logits, targets, weights)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isnan()
        assert gradient[3].isnan().all()
        assert gradient[[0, 1, 2, 4, 5, 6, 7, 8]].isfinite().all()

    def test_shapes_of_targets_and_weights(self):
        logits, targets, weights = self.make(4, 3)
        with pytest.raises(ValueError, match=r"logits is \[4, 3\] and targets \[3\]"):
            OP(logits, targets[:3], weights)
        with pytest.raises(ValueError, match=r"logits is \[4, 3\] and weights \[1, 4\]"):
            OP(logits, targets, weights[None])

    def test_dtypes_of_targets_and_weights(self):
        logits, targets, weights = self.make(4, 3)
        with pytest.raises(TypeError, match=r"targets is torch\.int32"):
            OP(logits, targets.int(), weights)
        with pytest.raises(
            TypeError, match=r"logits is torch\.float32 but weights is torch\.float64"
        ):
            OP(logits, targets, weights.double())
        with pytest.raises(TypeError, match=r"weights is torch\.int64"):
            OP(logits, targets, weights.long())


@pytest.mark.parametrize("target", [-1, 3, -100])
def test_a_target_out_of_range(target):
    with pytest.raises(ValueError, match=rf"targets\[2\] is {target}; .*between 0 and 2"):
        OP(torch.randn(4, 3), torch.tensor([0, 2, target, 1]), torch.ones(4))
