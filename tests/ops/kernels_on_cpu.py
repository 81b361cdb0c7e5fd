"""The ops as csrc/ops composes their CUDA kernels, on the CPU checker of tests/cuda_on_cpu.

Each is a function of torch tensors with a gradient, so that the checks of op_checks.py take it
like the op itself. Products of many classes, which are torch's on a GPU, are NumPy's here.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from cuda_on_cpu import checker
from torch import Tensor

from fastssl.ops import policies as view_policies

ORDERS = checker.ORDERS
FEW_CLASSES = 32  # kFewClasses of kernels/joint_distribution.h
BLOCK_ROWS, MOST_BLOCKS = 128, 264  # kRowThreads and kMaxBlocks of joint_distribution.cu


@functools.cache
def kernels() -> checker.Kernels:
    """The project's kernels, built by g++."""
    checker.require()
    return checker.load("csrc/kernels/cuda/*.cu", "tests/cuda_on_cpu/*bindings.cpp")


class Pair:
    """logits_a [N, C] and logits_b [N, C] or [V, N, C] as arrays, and the ops' steps on them."""

    def __init__(self, order: checker.Order, logits_a: Tensor, logits_b: Tensor) -> None:
        self.order = order
        self.name = str(logits_a.dtype).removeprefix("torch.")
        self.accumulator = "float64" if self.name == "float64" else "float32"
        self.N, self.C = logits_a.shape
        self.V = len(logits_b) if logits_b.dim() == 3 else 1
        self.shape_b = tuple(logits_b.shape)
        self.a, self.b = (self._array(x) for x in (logits_a, logits_b))

    @staticmethod
    def _array(tensor: Tensor) -> np.ndarray:
        tensor = tensor.detach().contiguous()
        return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def launch(self, kernel: str, *arguments) -> None:
        """Launch the kernel of that name for the inputs' type, their accumulation type, or any."""
        suffixes = [f"_{self.name}", f"_{self.accumulator}", ""]
        launchers = kernels().launchers
        found = next(kernel + s for s in suffixes if kernel + s in launchers)
        launchers[found](*arguments, order=self.order)

    def empty(self, *shape: int) -> np.ndarray:
        """An uninitialised array of the accumulation type."""
        return np.empty(shape, self.accumulator)

    def pooled(self, logits: np.ndarray, V: int) -> np.ndarray:
        """Softmax summed over views, [N, C]."""
        probabilities = self.empty(self.N, self.C)
        self.launch("pooled_softmax", logits, probabilities, self.N, self.C, V)
        return probabilities

    def joint(self) -> np.ndarray:
        """joint_cuda of csrc/ops/joint_distribution.cpp."""
        N, C, V = self.N, self.C, self.V
        if C > FEW_CLASSES:
            sums = (self.pooled(self.a, 1).T @ self.pooled(self.b, V))[None]
        else:
            sums = self.empty(min(-(-N // BLOCK_ROWS), MOST_BLOCKS), C, C)
            self.launch("joint_partials", self.a, self.b, sums, N, C, V)
        joint = self.empty(C, C)
        self.launch("symmetrize", np.ascontiguousarray(sums), len(sums), 1 / (N * V), joint, C)
        return joint

    def joint_backward(
        self, grad_joint: np.ndarray, grad: np.ndarray | None, needed: tuple[bool, bool]
    ) -> list[np.ndarray | None]:
        """joint_backward_cuda of csrc/ops/joint_distribution.cpp."""
        N, C, V = self.N, self.C, self.V
        logits = self.a, self.b
        grads = [np.empty_like(x) if n else None for x, n in zip(logits, needed, strict=True)]
        if C <= FEW_CLASSES:
            self.launch("joint_gradients", grad_joint, grad, self.a, self.b, *grads, N, C, V)
            return grads
        symmetric = self.empty(C, C)
        self.launch("symmetrize", grad_joint[None], 1, 1.0, symmetric, C)
        for logits, other, views, other_views, gradient in (
            (self.a, self.b, 1, V, grads[0]),
            (self.b, self.a, V, 1, grads[1]),
        ):
            if gradient is None:
                continue
            t = self.pooled(other, other_views) @ symmetric
            scale = 1 / (N * V)
            self.launch("softmax_gradient", logits, t, grad, scale, gradient, N, C, views)
        return grads

    def tensors(self, *arrays: np.ndarray | None) -> tuple[Tensor | None, ...]:
        """Gradients as tensors of the logits' dtype."""
        found = [None if array is None else torch.from_numpy(array) for array in arrays]
        if self.name == "bfloat16":
            found = [None if x is None else x.view(torch.bfloat16) for x in found]
        return tuple(found)


def augment(order: checker.Order) -> Callable[..., Tensor]:
    """The op in one order of threads."""

    def op(images, policies, *, seed, step, index, mean, std, dtype, memory_format):
        plans, integers, factors = view_policies.plan(tuple(policies), images.shape[-1])
        V, (N, K, S, _) = len(policies), images.shape
        last = memory_format == torch.channels_last
        name = str(dtype).removeprefix("torch.")
        carrier = "uint16" if name == "bfloat16" else name
        views = np.empty((V, N, S, S, K) if last else (V, N, K, S, S), carrier)
        getattr(kernels(), f"augment_{name}")(
            *(images.numpy(), np.array(integers, "int32"), np.array(factors, "float32")),
            *(
                np.array(plans, "int32"),
                np.uint64(seed).astype(np.int64),
                step.numpy(),
                index.numpy(),
            ),
            *(mean.numpy(), std.numpy(), views, N, V, K, S, last),
            order=order,
        )
        found = torch.from_numpy(views)
        found = found.view(torch.bfloat16) if name == "bfloat16" else found
        return found.permute(0, 1, 4, 2, 3) if last else found

    return op


def joint_distribution(order: checker.Order) -> Callable[[Tensor, Tensor], Tensor]:
    """The op in one order of threads."""

    class JointDistribution(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits_a, logits_b):
            ctx.pair = Pair(order, logits_a, logits_b)
            return torch.from_numpy(ctx.pair.joint())

        @staticmethod
        def backward(ctx, grad):
            grad_joint = np.ascontiguousarray(grad.numpy())
            pair = ctx.pair
            return pair.tensors(*pair.joint_backward(grad_joint, None, ctx.needs_input_grad))

    return JointDistribution.apply


def mutual_information(order: checker.Order) -> Callable[[Tensor, Tensor], Tensor]:
    """The op in one order of threads."""

    class MutualInformation(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits_a, logits_b):
            pair = ctx.pair = Pair(order, logits_a, logits_b)
            ctx.joint = pair.joint()
            information, C = pair.empty(1), pair.C
            workspace = pair.empty(C), pair.empty(C)
            pair.launch("mutual_information", ctx.joint, *workspace, information, C)
            return torch.from_numpy(information)[0]

        @staticmethod
        def backward(ctx, grad):
            pair, C = ctx.pair, ctx.pair.C
            grad_joint = pair.empty(C, C)
            pair.launch("mutual_information_grad_joint", ctx.joint, pair.empty(C), grad_joint, C)
            scale = grad.numpy().reshape(1).astype(pair.accumulator)
            grads = pair.joint_backward(grad_joint, scale, ctx.needs_input_grad)
            return pair.tensors(*grads)

    return MutualInformation.apply


class Correction(Pair):
    """raw_output, features and the network's ten parameters as arrays, and the op's steps."""

    def __init__(
        self, order: checker.Order, raw_output: Tensor, features: Tensor, *parameters: Tensor
    ) -> None:
        super().__init__(order, raw_output, features)
        self.parameters = [self._array(parameter) for parameter in parameters]
        self.parameter_name = str(parameters[0].dtype).removeprefix("torch.")
        R, E, F, J = (len(parameter) for parameter in parameters[:8:2])
        self.shape = self.N, self.C, features.shape[1], R, E, F, J
        sizes = [np.empty(1, np.int64) for _ in range(3)]
        self.launch("correction_sizes", *sizes, *self.shape)
        workspace, *self.partials_shape = (int(size[0]) for size in sizes)
        self.workspace = self.empty(workspace) if workspace else None

    def run(self, kernel: str, *inputs: np.ndarray, slope: float, outputs: Sequence) -> None:
        """Launch the kernel for these dtypes on inputs, parameters and outputs."""
        launcher = kernels().launchers[f"{kernel}_{self.name}_{self.parameter_name}"]
        arguments = *inputs, *self.parameters, slope, self.workspace, *outputs, *self.shape
        launcher(*arguments, order=self.order)

    def correct(self, slope: float) -> Tensor:
        """Cuda::correct of csrc/ops/complementary_correction.cpp."""
        corrected = np.empty_like(self.a)
        self.run("correct", self.a, self.b, slope=slope, outputs=[corrected])
        return self.tensors(corrected)[0]

    def differentiate(self, slope: float, grad: Tensor, needs: Sequence[bool]) -> list:
        """Cuda::differentiate; None for what is not needed."""
        wanted = [
            np.empty_like(x) if need else None
            for x, need in zip((self.a, self.b), needs[:2], strict=True)
        ]
        partials = self.empty(*self.partials_shape) if any(needs[2:]) else None
        inputs = self._array(grad), self.a, self.b
        self.run("correct_backward", *inputs, slope=slope, outputs=[*wanted, partials])
        gradients = [None if x is None else self.tensors(x)[0] for x in wanted]
        if partials is None:
            return gradients + [None] * len(self.parameters)
        sums = [np.empty_like(parameter) for parameter in self.parameters]
        kernels().launchers[f"sum_partials_{self.parameter_name}"](
            partials, *sums, *self.shape, order=self.order
        )
        found = [torch.from_numpy(x) for x in sums]
        if self.parameter_name == "bfloat16":
            found = [x.view(torch.bfloat16) for x in found]
        return gradients + found


def complementary_correction(order: checker.Order) -> Callable[..., Tensor]:
    """The op in one order of threads."""

    class ComplementaryCorrection(torch.autograd.Function):
        @staticmethod
        def forward(ctx, negative_slope, *tensors):
            ctx.slope, ctx.call = negative_slope, Correction(order, *tensors)
            return ctx.call.correct(negative_slope)

        @staticmethod
        def backward(ctx, grad):
            return None, *ctx.call.differentiate(ctx.slope, grad, ctx.needs_input_grad[1:])

    def op(raw_output, features, parameters, negative_slope=0.1):
        return ComplementaryCorrection.apply(negative_slope, raw_output, features, *parameters)

    return op


class Contrast(Pair):
    """features_a and features_b [N, D] as arrays, and the op's steps on them."""

    def __init__(
        self, order: checker.Order, temperature: float, features_a: Tensor, features_b: Tensor
    ) -> None:
        super().__init__(order, features_a, features_b)
        self.temperature, self.M, self.D = temperature, 2 * self.N, self.C
        self.log_sums = self.empty(self.M)
        sizes = [np.empty(1, np.int64) for _ in range(2)]
        self.launch("contrast_sizes", *sizes, self.N)
        self.tiles, self.groups = (int(size[0]) for size in sizes)

    def contrast(self) -> Tensor:
        """Cuda::contrast of csrc/ops/nt_xent.cpp."""
        M, loss = self.M, self.empty(1)
        workspace = [self.empty(*shape) for shape in ((M, self.D), (M,), (self.tiles, M), (M,))]
        inputs = self.a, self.b, self.temperature
        self.launch("nt_xent", *inputs, *workspace, loss, self.log_sums, self.N, self.D)
        return torch.from_numpy(loss)[0]

    def differentiate(self, grad: Tensor, needs: Sequence[bool]) -> Sequence[Tensor | None]:
        """Cuda::differentiate; None for what is not needed."""
        M, D, rows = self.M, self.D, self.N * sum(needs)
        workspace = [self.empty(*shape) for shape in ((M, D), (M,), (self.groups, rows, D))]
        inputs = grad.numpy().reshape(1), self.log_sums, self.a, self.b, self.temperature
        wanted = [np.empty_like(self.a) if need else None for need in needs]
        self.launch("nt_xent_backward", *inputs, *workspace, *wanted, self.N, D)
        return self.tensors(*wanted)


def nt_xent(order: checker.Order) -> Callable[..., Tensor]:
    """The op in one order of threads."""

    class NtXent(torch.autograd.Function):
        @staticmethod
        def forward(ctx, temperature, *features):
            ctx.call = Contrast(order, temperature, *features)
            return ctx.call.contrast()

        @staticmethod
        def backward(ctx, grad):
            return None, *ctx.call.differentiate(grad, ctx.needs_input_grad[1:])

    def op(features_a, features_b, temperature=0.5):
        return NtXent.apply(temperature, features_a, features_b)

    return op


def softmax_hessian_product(order: checker.Order) -> Callable[[Tensor, Tensor], Tensor]:
    """The op in one order of threads."""

    def op(logits: Tensor, tangent: Tensor) -> Tensor:
        rows = Pair(order, logits, tangent)
        product = np.empty_like(rows.a)
        rows.launch("softmax_hessian_product", rows.a, rows.b, product, rows.N, rows.C)
        return rows.tensors(product)[0]

    return op


def unit_perturbation(order: checker.Order) -> Callable[[Tensor, float], Tensor]:
    """The op in one order of threads."""

    def op(direction: Tensor, radius: float) -> Tensor:
        samples = direction.reshape(len(direction), -1)
        rows = Pair(order, samples, samples)
        perturbation = np.empty_like(rows.a)
        rows.launch("unit_perturbation", rows.a, radius, perturbation, rows.N, rows.C)
        return rows.tensors(perturbation)[0].reshape(direction.shape)

    return op
