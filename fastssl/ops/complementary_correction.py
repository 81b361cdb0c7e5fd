"""The correction network of complementary networks (CCN table 1, eq. 7).

N rows, C classes, D features. Five linear layers, four of them with LeakyReLU, are one call; their
activations are recomputed for the gradient, so that none of them is kept.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastssl.ops.registration import accumulator, check_floats, register_gradient

LAYERS = ("raw", "feature1", "feature2", "join", "out")
PARAMETERS = tuple(f"{layer}_{part}" for layer in LAYERS for part in ("weight", "bias"))


def complementary_correction(
    raw_output: Tensor,
    features: Tensor,
    parameters: Sequence[Tensor],
    negative_slope: float = 0.1,
) -> Tensor:
    """A network's raw output plus the correction that a second network's features suggest.

    corrected = raw_output + δ(raw_output, features) (CCN, eq. 7), δ the network of CCN's table 1:
    r = lrelu(W_raw raw_output), f = lrelu(W_feature2 lrelu(W_feature1 features)),
    δ = W_out lrelu(W_join [r, f]), each W with its bias.

    Args:
        raw_output: [N, C]; float32, float64, float16 or bfloat16.
        features: [N, D], of the same dtype and device.
        parameters: weight and bias of W_raw [R, C], W_feature1 [E, D], W_feature2 [F, E],
            W_join [J, R + F] and W_out [C, J], ten tensors in nn.Linear's layout and the dtype of
            raw_output; float32 beside float16 or bfloat16 inputs, too, as under autocast. R = E =
            F = 64 and J = 32 in the paper; any widths will do.
        negative_slope: of LeakyReLU, not negative.

    Returns:
        Corrected raw output: [N, C], of raw_output's dtype.

    Raises:
        ValueError: shapes do not match, a dimension is empty, devices differ, there are not ten
            parameters, or negative_slope is negative.
        TypeError: a dtype is not supported, or dtypes differ.
        RuntimeError: under forward-mode AD, or when differentiated twice.
    """
    _check(raw_output, features, parameters, negative_slope)
    return torch.ops.fastssl.complementary_correction(
        raw_output, features, *parameters, negative_slope
    )


def complementary_correction_reference(
    raw_output: Tensor,
    features: Tensor,
    parameters: Sequence[Tensor],
    negative_slope: float = 0.1,
) -> Tensor:
    """`complementary_correction` in plain PyTorch: the specification."""

    def layer(x: Tensor, number: int) -> Tensor:
        return F.linear(x, parameters[2 * number], parameters[2 * number + 1])

    r = F.leaky_relu(layer(raw_output, 0), negative_slope)  # [N, R]
    f = F.leaky_relu(layer(features, 1), negative_slope)  # [N, E]
    f = F.leaky_relu(layer(f, 2), negative_slope)  # [N, F]
    joined = F.leaky_relu(layer(torch.cat([r, f], 1), 3), negative_slope)  # [N, J]
    return raw_output + layer(joined, 4)


def _check(
    raw_output: Tensor, features: Tensor, parameters: Sequence[Tensor], negative_slope: float
) -> None:
    op = "complementary_correction"
    check_floats(op, raw_output=raw_output, features=features)
    if len(parameters) != len(PARAMETERS):
        raise ValueError(f"{op}: {len(parameters)} parameters; expected {', '.join(PARAMETERS)}")
    check_floats(op, **dict(zip(PARAMETERS, parameters, strict=True)))
    dtype = parameters[0].dtype
    if dtype != raw_output.dtype and dtype != accumulator(raw_output.dtype):
        raise TypeError(f"{op}: raw_output is {raw_output.dtype} but the parameters are {dtype}")
    if parameters[0].device != raw_output.device:
        raise ValueError(
            f"{op}: raw_output is on {raw_output.device} but the parameters on "
            f"{parameters[0].device}"
        )
    shape, feature_shape = raw_output.shape, features.shape
    if len(shape) != 2 or len(feature_shape) != 2 or shape[0] != feature_shape[0]:
        raise ValueError(
            f"{op}: raw_output is {list(shape)} and features {list(feature_shape)}; "
            "expected [N, C] and [N, D]"
        )
    if 0 in shape or 0 in feature_shape:
        raise ValueError(
            f"{op}: raw_output {list(shape)} and features {list(feature_shape)} must not be empty"
        )
    (_, C), (_, D) = shape, feature_shape
    shapes = [tuple(parameter.shape) for parameter in parameters]
    widths = [sum(weight[:1]) for weight in shapes[:8:2]]
    if 0 in widths or shapes != parameter_shapes(C, D, *widths):
        listed = ", ".join(
            f"{name} {list(found)}" for name, found in zip(PARAMETERS, shapes, strict=True)
        )
        raise ValueError(
            f"{op}: for raw_output {list(shape)} and features {list(feature_shape)} expected raw "
            "[R, C], feature1 [E, D], feature2 [F, E], join [J, R + F], out [C, J], each with a "
            f"bias, none empty; got {listed}"
        )
    if not negative_slope >= 0:
        raise ValueError(f"{op}: negative_slope is {negative_slope}; expected 0 or more")


def parameter_shapes(C: int, D: int, R: int, E: int, F: int, J: int) -> list[tuple[int, ...]]:
    """The shapes of the ten parameters for C classes, D features and the layers' widths."""
    weights = (R, C), (E, D), (F, E), (J, R + F), (C, J)
    return [shape for weight in weights for shape in (weight, weight[:1])]


@torch.library.register_fake("fastssl::complementary_correction")
def _(raw_output, features, *parameters_and_slope):
    return torch.empty_like(raw_output, memory_format=torch.contiguous_format)


@torch.library.register_fake("fastssl::complementary_correction_backward")
def _(grad, raw_output, features, *rest):
    *parameters, _, needs_raw_output, needs_features, needs_parameters = rest
    needed = [(raw_output, needs_raw_output), (features, needs_features)]
    needed += [(parameter, needs_parameters) for parameter in parameters]
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needs
        else tensor.new_empty(0)
        for tensor, needs in needed
    )


def _setup_context(ctx, inputs, output):
    *tensors, ctx.negative_slope = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, gradient_op, grad):
    needs = ctx.needs_input_grad
    any_parameter = any(needs[2:])
    gradients = gradient_op(
        grad, *ctx.saved_tensors, ctx.negative_slope, needs[0], needs[1], any_parameter
    )
    wanted = zip(gradients, needs[:-1], strict=True)
    return *(gradient if needed else None for gradient, needed in wanted), None


register_gradient("complementary_correction", _setup_context, _backward)
