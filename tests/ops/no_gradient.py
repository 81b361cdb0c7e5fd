"""What the ops without a gradient must satisfy, beside op_checks.py for those that have one."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor


def check_values(
    function: Callable, reference: Callable, inputs: Sequence[Tensor], floor: float
) -> None:
    """err(function) <= 2 err(eager in the same dtype) + floor, as op_checks.check_precision."""
    exact = reference(*(x.double() for x in inputs))
    eager, ours = reference(*inputs), function(*inputs)
    assert ours.dtype == eager.dtype
    assert ours.shape == eager.shape
    assert torch.isfinite(ours).all()
    error = (ours.double() - exact).abs().max()
    allowed = 2 * (eager.double() - exact).abs().max() + floor
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"


def check_is_a_constant(function: Callable, name: str, inputs: Sequence[Tensor]) -> None:
    """The result requires no gradient though the inputs do; forward-mode AD names the op."""
    assert not function(*(x.detach().requires_grad_() for x in inputs)).requires_grad
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs[0], torch.ones_like(inputs[0]))
        with pytest.raises(RuntimeError, match=f"fastssl::{name} .*forward-mode"):
            function(dual, *inputs[1:])


def check_compiles(
    function: Callable, make_inputs: Callable[[int], list[Tensor]], backend: str
) -> None:
    """torch.compile(fullgraph=True), dynamic batch, gives what the eager op gives."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for N in (6, 9, 14):
        inputs = make_inputs(N)
        torch.testing.assert_close(compiled(*inputs), function(*inputs))
