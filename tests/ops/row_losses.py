"""What every loss that is a mean over rows of logits must satisfy.

N rows, C classes. An op's test file subclasses RowLossChecks, which pytest then collects.
"""

import importlib
import itertools
from collections.abc import Callable

import pytest
import torch
from op_checks import (
    accumulation_eps,
    check_allocations,
    check_compiles,
    check_dispatches,
    check_precision,
    check_refuses_higher_derivatives,
    evaluate,
    misaligned,
    nats_floor,
    non_contiguous,
)
from torch import Tensor

import fastssl.ops
from fastssl.ops.registration import accumulator

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Both sides of a vector and of what a thread takes at once.
SIZES = [(1, 1), (2, 2), (41, 10), (512, 17), (130, 100), (9, 401), (3, 20_000)]
# The same for the checker: a warp's 32 columns, 16 bytes, 8 rows a block.
CHECKER_SIZES = [(1, 1), (2, 10), (9, 32), (3, 150), (17, 3)]
GRAD = -1.7


def cases() -> list:
    """(backend, N, C, dtype, strided) for every size and dtype, contiguous or not."""
    found = []
    for backend, sizes in (("cpu", SIZES), ("cuda", SIZES), ("checker", CHECKER_SIZES)):
        orders = ("forward", "reverse", "1") if backend == "checker" else ("",)
        for order, (N, C), dtype in itertools.product(orders, sizes, DTYPES):
            on = f"cuda_on_cpu_{order}" if order else backend
            for strided in (False,) if order else (False, True):
                layout = "strided" if strided else "contiguous"
                name = f"{on}-{N}x{C}-{str(dtype).removeprefix('torch.')}-{layout}"
                found.append(pytest.param(on, N, C, dtype, strided, id=name))
    return found


def extremes(C: int = 10) -> dict[str, Tensor]:
    """Finite logits [N, C] that break a careless implementation."""
    one_hot = torch.full((20, C), -1e4)
    one_hot[:, 3] = 1e4
    unpredicted = torch.randn(20, C)
    unpredicted[:, 7] = -1e4
    return {
        "one-hot": one_hot,
        "a class nobody predicts": unpredicted,
        "logits of ±1e4": torch.randn(20, C).sign() * 1e4,
        "all logits equal": torch.zeros(20, C),
        "a spike in every column": 1e4 * torch.eye(C),
        "confident": torch.randn(20, C) * 8,
    }


class RowLossChecks:
    """The checks of the op `name`, whose input at position `differentiated` has a gradient."""

    name: str
    differentiated: int

    def make(self, N: int, C: int) -> list[Tensor]:
        """Inputs in float32."""
        raise NotImplementedError

    def around(self, logits: Tensor) -> list[Tensor]:
        """Inputs of which the differentiated one is `logits`."""
        inputs = self.make(*logits.shape)
        inputs[self.differentiated] = logits
        return inputs

    def divisor(self, logits: Tensor) -> int:
        """What the sum over rows is divided by."""
        return logits.numel() // logits.shape[-1]

    def floors(self, logits: Tensor) -> list[float]:
        """What the last rounding steps may cost the loss and the gradient."""
        nats = nats_floor(logits.dtype, logits.shape[-1])
        return [nats, nats / self.divisor(logits) + self.storage_floor(logits)]

    def storage_floor(self, logits: Tensor) -> float:
        """The gradient of a row, whose entries are at most 1, is rounded when it is stored."""
        return abs(GRAD) * torch.finfo(logits.dtype).eps / 2 / self.divisor(logits)

    def logarithm_floor(self, logits: Tensor) -> float:
        """Rounding of logarithms as large as the logits' range, where a loss is one of them."""
        return 4 * accumulation_eps(logits.dtype) * (logits.max() - logits.min()).item()

    # ---- the op as a function of its differentiated input ---------------------------------------

    @property
    def reference(self) -> Callable:
        """The specification."""
        return getattr(
            importlib.import_module(f"fastssl.ops.{self.name}"), f"{self.name}_reference"
        )

    def loss(self, op: Callable) -> Callable[..., Tensor]:
        """The op's loss alone."""

        def loss(*inputs):
            found = op(*inputs)
            return found[0] if isinstance(found, tuple) else found

        return loss

    def of_logits(self, op: Callable, inputs: list[Tensor]) -> Callable[[Tensor], Tensor]:
        """The loss as a function of the differentiated input, the others in its dtype."""

        def loss(logits):
            given = [x.to(logits.dtype) if x.is_floating_point() else x for x in inputs]
            given[self.differentiated] = logits
            return self.loss(op)(*given)

        return loss

    def check(self, op: Callable, inputs: list[Tensor], dtype=torch.float32) -> None:
        """The precision rule, for the logits in `dtype`."""
        logits = inputs[self.differentiated]
        logits = logits.to(dtype) if logits.dtype != dtype else logits
        check_precision(
            self.of_logits(op, inputs),
            self.of_logits(self.reference, inputs),
            [logits],
            self.floors(logits),
            torch.tensor(GRAD),
        )

    def inputs(self, N: int, C: int, device, dtype=torch.float32) -> list[Tensor]:
        """Inputs on a device."""
        made = (x.to(dtype) if x.is_floating_point() else x for x in self.make(N, C))
        return [x.to(device) for x in made]

    def differentiable(self, inputs: list[Tensor]) -> list[Tensor]:
        """The inputs, of which the differentiated one requires a gradient."""
        found = [x.detach() for x in inputs]
        found[self.differentiated].requires_grad_()
        return found

    # ---- values and gradients -------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("backend", "N", "C", "dtype", "strided"), cases(), indirect=["backend"]
    )
    def test_precision(self, backend, N, C, dtype, strided):
        inputs = self.inputs(N, C, backend.device, dtype)
        self.check(
            backend.op(self.name), [non_contiguous(x) for x in inputs] if strided else inputs, dtype
        )

    @pytest.mark.parametrize("C", [16, 17])
    def test_misaligned(self, backend, C):
        self.check(
            backend.op(self.name), [misaligned(x) for x in self.inputs(9, C, backend.device)]
        )

    @pytest.mark.parametrize("extreme", extremes())
    @pytest.mark.parametrize("C", [10, 50])
    def test_extremes(self, backend, extreme, C):
        inputs = self.around(extremes(C)[extreme])
        self.check(backend.op(self.name), [x.to(backend.device) for x in inputs])

    @pytest.mark.parametrize("C", [10, 50])
    def test_a_masked_class(self, backend, C):
        """A class at -inf in all logits is as if it were not there, and has no gradient."""
        inputs = self.inputs(20, C, backend.device)
        inputs = [x[:, :-1] if x.dim() == 2 else x.clamp_max(C - 2) for x in inputs]
        masked = [
            torch.cat([x, x.new_full((len(x), 1), -torch.inf)], 1) if x.dim() == 2 else x
            for x in inputs
        ]
        loss = self.loss(backend.op(self.name))
        found = []
        for given in (masked, inputs):
            given = self.differentiable(given)
            value = loss(*given)
            found.append((value, *torch.autograd.grad(value, given[self.differentiated])))
        (value, gradient), (expected, expected_gradient) = found
        assert (gradient[:, -1] == 0).all()
        if "mse" in self.name:  # a mean over one class more
            value, gradient = (x * (C / (C - 1)) for x in (value, gradient))
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient[:, :-1], expected_gradient)

    def test_many_rows(self):
        """More rows than the CUDA kernel's blocks hold, and than the CPU's threads take at once."""
        import kernels_on_cpu

        inputs = self.make(8_200, 2)
        self.check(getattr(kernels_on_cpu, self.name)("forward"), inputs)
        self.check(getattr(fastssl.ops, self.name), inputs)

    @pytest.mark.parametrize("C", [5, 40])
    def test_gradcheck(self, backend, C):
        inputs = self.differentiable(self.inputs(4, C, backend.device, torch.float64))
        logits = inputs[self.differentiated]
        loss = self.of_logits(backend.op(self.name), inputs)
        assert torch.autograd.gradcheck(loss, [logits], fast_mode=C > 32)

    def test_no_gradient_for_the_other_inputs(self, backend):
        inputs = self.inputs(9, 7, backend.device)
        for x in inputs:
            x.requires_grad_(x.is_floating_point())
        value = self.loss(backend.op(self.name))(*inputs)
        gradients = torch.autograd.grad(
            value, [x for x in inputs if x.requires_grad], allow_unused=True
        )
        expected = [x is inputs[self.differentiated] for x in inputs if x.is_floating_point()]
        assert [gradient is not None for gradient in gradients] == expected

    def test_backward_can_be_repeated(self, backend):
        inputs = self.differentiable(self.inputs(9, 7, backend.device))
        value = self.loss(backend.op(self.name))(*inputs)
        logits = inputs[self.differentiated]
        (first,) = torch.autograd.grad(value, logits, retain_graph=True)
        (second,) = torch.autograd.grad(value * 2, logits)
        torch.testing.assert_close(second, 2 * first)

    def test_refuses_higher_derivatives(self, device):
        inputs = self.inputs(6, 4, device)
        loss = self.of_logits(getattr(fastssl.ops, self.name), inputs)
        check_refuses_higher_derivatives(loss, self.name, [inputs[self.differentiated]])

    # ---- how it runs ----------------------------------------------------------------------------

    def test_dispatches(self, device):
        inputs = self.differentiable(self.inputs(20, 6, device))
        loss = self.loss(getattr(fastssl.ops, self.name))
        check_dispatches(loss, inputs, self.name)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_allocations(self, device, dtype):
        """The result and, if it is needed, a gradient of the logits' size each way."""
        inputs = self.inputs(300, 100, device, dtype)
        result = self.results * accumulator(dtype).itemsize
        gradient = inputs[self.differentiated].nbytes
        loss = self.loss(getattr(fastssl.ops, self.name))
        check_allocations(loss, inputs, [result], device)
        inputs = self.differentiable(inputs)
        check_allocations(loss, inputs, [result + gradient, gradient], device)

    results = 1  # scalars that a forward call gives

    def test_opcheck(self, device):
        op = getattr(torch.ops.fastssl, self.name).default
        for make in (self.differentiable, list):
            inputs = make(self.inputs(9, 5, device))
            needed = inputs[self.differentiated].requires_grad
            torch.library.opcheck(op, (*self.arguments(inputs), needed))
        backward = getattr(torch.ops.fastssl, f"{self.name}_backward").default
        gradient = torch.randn(9, 5, device=device)
        torch.library.opcheck(backward, (torch.tensor(GRAD, device=device), gradient, gradient))

    def arguments(self, inputs: list[Tensor]) -> list:
        """What the registered op takes for these inputs, but for its last argument."""
        return inputs

    @pytest.mark.parametrize("backend_name", ["aot_eager", "inductor"])
    def test_compiles(self, device, backend_name):
        loss, at = self.loss(getattr(fastssl.ops, self.name)), self.differentiated
        others = self.inputs(14, 7, device)

        def function(logits):
            given = [x[: len(logits)] for x in others]
            given[at] = logits * 2
            return -loss(*given)

        if backend_name == "inductor" and self.name != "kl_divergence":
            pytest.skip("one op of this frame is enough")
        check_compiles(function, lambda N: [self.inputs(N, 7, device)[at]], backend_name)

    def test_same_under_autocast(self, device):
        inputs = self.inputs(20, 6, device)
        loss = self.loss(getattr(fastssl.ops, self.name))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            inside = loss(*inputs)
        assert torch.equal(inside, loss(*inputs))

    def test_threads_do_not_change_the_result(self):
        inputs, threads = self.make(3000, 130), torch.get_num_threads()
        loss = self.of_logits(getattr(fastssl.ops, self.name), inputs)
        found = []
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                found.append(evaluate(loss, [inputs[self.differentiated]], None))
        finally:
            torch.set_num_threads(threads)
        assert all(map(torch.equal, *found))

    # ---- errors ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("shape", [(3,), (0, 3), (4, 0)])
    def test_shapes(self, shape):
        inputs = [torch.zeros(shape, dtype=x.dtype) if x.dim() == 2 else x for x in self.make(4, 3)]
        with pytest.raises(ValueError, match=f"{self.name}: .*logits") as raised:
            getattr(fastssl.ops, self.name)(*inputs)
        assert str(list(shape)) in str(raised.value)

    def test_dtypes(self):
        inputs = [x.long() for x in self.make(4, 3)]
        with pytest.raises(TypeError, match=rf"{self.name}: .*logits is torch\.int64"):
            getattr(fastssl.ops, self.name)(*inputs)


class TargetedLossChecks(RowLossChecks):
    """The checks of an op of target_logits and logits."""

    differentiated = 1

    def make(self, N, C):
        return [torch.randn(N, C) * 2, torch.randn(N, C) * 2]

    @pytest.mark.parametrize("extreme", extremes())
    @pytest.mark.parametrize("C", [10, 50])
    def test_extreme_targets(self, backend, extreme, C):
        target = extremes(C)[extreme]
        for logits in (torch.randn(target.shape), target.flip(0), target + 1e4):
            inputs = [x.to(backend.device) for x in (target, logits)]
            self.check(backend.op(self.name), inputs)

    def test_same_logits(self, backend):
        """Exactly 0, with a gradient of exactly 0."""
        for C in (10, 50):
            logits = torch.randn(20, C).to(backend.device).requires_grad_()
            value = backend.op(self.name)(logits.detach(), logits)
            assert value == 0
            assert (torch.autograd.grad(value, logits)[0] == 0).all()

    def test_mismatch(self):
        op = getattr(fastssl.ops, self.name)
        with pytest.raises(ValueError, match=r"target_logits is \[4, 3\] and logits \[4, 2\]"):
            op(torch.randn(4, 3), torch.randn(4, 2))
        with pytest.raises(TypeError, match=r"but logits is torch\.float16"):
            op(torch.randn(4, 3), torch.randn(4, 3).half())
