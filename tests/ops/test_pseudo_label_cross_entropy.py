import itertools
import math

import pytest
import torch
from op_checks import misaligned, non_contiguous
from row_losses import DTYPES, RowLossChecks, extremes

import fastssl.ops


class TestPseudoLabelCrossEntropy(RowLossChecks):
    name = "pseudo_label_cross_entropy"
    differentiated = 1
    results = 2

    def floors(self, logits):
        value, gradient = super().floors(logits)
        return [value + self.logarithm_floor(logits), gradient]

    def make(self, N, C):
        """Half the rows are sure of a class, and none is near the threshold."""
        weak = torch.randn(N, C)
        weak[torch.arange(N), torch.randint(C, (N,))] += 20 * (torch.arange(N) % 2 == 0)
        if C == 1:
            return [weak, torch.randn(N, C)]
        return [weak.clamp_min(-3), torch.randn(N, C) * 2]

    def arguments(self, inputs):
        return [*inputs, 0.95]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("N", "C", "V"), [(9, 10, 3), (3, 40, 2), (5, 3, 1)])
    def test_views(self, backend, N, C, V, dtype):
        weak, strong = self.make(N, C)[0], torch.randn(V, N, C)
        for layout in (torch.clone, non_contiguous, misaligned):
            inputs = [layout(x.to(backend.device, dtype)) for x in (weak, strong)]
            self.check(backend.op(self.name), inputs, dtype)

    @pytest.mark.parametrize("extreme", extremes())
    @pytest.mark.parametrize("C", [10, 50])
    def test_extreme_pseudo_labels(self, backend, extreme, C):
        weak = extremes(C)[extreme]
        inputs = [x.to(backend.device) for x in (weak, torch.randn(2, *weak.shape))]
        self.check(backend.op(self.name), inputs)
        op, reference = backend.op(self.name), self.reference
        assert op(*inputs)[1] == reference(*inputs)[1]

    def test_nothing_kept(self, backend):
        """Exactly 0 with gradients of exactly 0, even where the cross entropy is infinite."""
        weak = torch.zeros(9, 10, device=backend.device)
        strong = torch.randn(2, 9, 10, device=backend.device)
        strong[:, :, 0] = -torch.inf
        strong[1, 3] = torch.nan
        strong.requires_grad_()
        loss, kept = backend.op(self.name)(weak, strong)
        assert (loss, kept) == (0, 0)
        assert (torch.autograd.grad(loss, strong)[0] == 0).all()

    def test_kept_fraction(self, backend):
        """The threshold is reached, not passed; NaN reaches none; the first of two classes wins."""
        weak = torch.zeros(8, 4, device=backend.device)
        weak[1:4, 2] = 50.0
        weak[4, 1:3] = 50.0
        weak[5] = torch.nan
        strong = torch.zeros(8, 4, device=backend.device)
        strong[4, 1] = 2.0
        strong.requires_grad_()
        op = backend.op(self.name)
        for threshold, fraction in ((0.0, 7 / 8), (0.25, 7 / 8), (0.5, 4 / 8), (1.0, 3 / 8)):
            loss, kept = op(weak, strong, threshold)
            assert not kept.requires_grad
            assert kept.dtype == torch.float32
            assert kept == fraction
        loss, _ = op(weak, strong, 0.5)
        expected = 3 * math.log(4) + math.log(math.exp(2) + 3) - 2
        torch.testing.assert_close(loss.item(), expected / 8)

    @pytest.mark.parametrize("place", range(0, 70, 3))
    def test_a_pseudo_label_in_any_column(self, backend, place):
        weak = torch.zeros(1, 70, device=backend.device)
        weak[0, place] = 30.0
        strong = torch.randn(1, 70, device=backend.device)
        loss, kept = backend.op(self.name)(weak, strong)
        torch.testing.assert_close(loss, -strong.log_softmax(1)[0, place])
        assert kept == 1


OP = fastssl.ops.pseudo_label_cross_entropy


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.nan])
def test_threshold(threshold):
    with pytest.raises(ValueError, match=f"threshold is {threshold}"):
        OP(torch.randn(4, 3), torch.randn(4, 3), threshold)


def test_mismatch():
    for weak, strong in itertools.product([(4, 3)], [(4, 2), (2, 3, 3), (1, 2, 4, 3)]):
        with pytest.raises(
            ValueError, match=r"weak_logits is \[4, 3\] and strong_logits"
        ) as raised:
            OP(torch.randn(weak), torch.randn(strong))
        assert str(list(strong)) in str(raised.value)
    with pytest.raises(ValueError, match=r"strong_logits \[0, 4, 3\] must not be empty"):
        OP(torch.randn(4, 3), torch.randn(0, 4, 3))
    with pytest.raises(TypeError, match=r"strong_logits is torch\.float64"):
        OP(torch.randn(4, 3), torch.randn(4, 3).double())
