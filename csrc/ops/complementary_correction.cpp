#include "../kernels/complementary_correction.h"

#include <array>

#include "../torch_api.h"

namespace fastssl {
namespace {

constexpr const char* kName = "complementary_correction";

// Weight [outputs, inputs] and bias [outputs] of every layer in turn.
using Parameters = std::array<Tensor, 2 * kCorrectionLayers>;

// The tensors of a call, contiguous: N rows, C classes, D features.
struct Correction {
  Tensor raw_output, features;
  Parameters parameters;
  CorrectionShape shape;
};

CorrectionShape checked_shape(const Tensor& raw_output, const Tensor& features,
                              const Parameters& parameters) {
  FASTSSL_CHECK(raw_output.dim() == 2 && features.dim() == 2 &&
                    raw_output.size(0) == features.size(0) && raw_output.numel() > 0 &&
                    features.numel() > 0,
                kName, ": expected raw_output [N, C] and features [N, D]");
  CorrectionShape shape{raw_output.size(0), raw_output.size(1), features.size(1), {}, {}};
  for (int l = 0; l < kCorrectionLayers; ++l) {
    const Tensor &weight = parameters[2 * l], &bias = parameters[2 * l + 1];
    FASTSSL_CHECK(weight.dim() == 2 && bias.dim() == 1 && weight.numel() > 0 &&
                      bias.size(0) == weight.size(0),
                  kName, ": expected weights [outputs, inputs] and biases [outputs]");
    shape.outputs[l] = weight.size(0);
    shape.inputs[l] = weight.size(1);
  }
  const int64_t *inputs = shape.inputs, *outputs = shape.outputs;
  FASTSSL_CHECK(inputs[kRaw] == shape.C && inputs[kFeature1] == shape.D &&
                    inputs[kFeature2] == outputs[kFeature1] &&
                    inputs[kJoin] == outputs[kRaw] + outputs[kFeature2] &&
                    inputs[kOut] == outputs[kJoin] && outputs[kOut] == shape.C,
                kName, ": the layers' widths do not follow from one another");
  return shape;
}

Correction checked(const Tensor& raw_output, const Tensor& features, const Parameters& parameters) {
  Correction found{as_contiguous(raw_output),
                   as_contiguous(features),
                   {},
                   checked_shape(raw_output, features, parameters)};
  const ScalarType dtype = parameters[0].scalar_type();
  FASTSSL_CHECK(raw_output.scalar_type() == features.scalar_type() &&
                    (dtype == raw_output.scalar_type() || dtype == accumulator_dtype(raw_output)),
                kName, ": expected one dtype, or parameters in that of accumulation");
  FASTSSL_CHECK(raw_output.device() == features.device(), kName, ": inputs differ in device");
  for (size_t p = 0; p < parameters.size(); ++p) {
    FASTSSL_CHECK(
        parameters[p].scalar_type() == dtype && parameters[p].device() == raw_output.device(),
        kName, ": parameters differ in dtype or device");
    found.parameters[p] = as_contiguous(parameters[p]);
  }
  return found;
}

// Calls body.operator()<scalar_t, param_t>() for the dtypes of the inputs and of the parameters.
template <class Types, class Body>
void dispatch_pair(const Correction& call, const Body& body) {
  dispatch_floats<Types>(call.raw_output, kName, [&]<class scalar_t>() {
    if (call.parameters[0].scalar_type() == call.raw_output.scalar_type()) {
      body.template operator()<scalar_t, scalar_t>();
    } else {
      body.template operator()<scalar_t, cpu::acc_t<scalar_t>>();
    }
  });
}

template <class param_t>
CorrectionLayers<const param_t> layers(const Parameters& parameters) {
  CorrectionLayers<const param_t> found;
  for (int l = 0; l < kCorrectionLayers; ++l) {
    found.weight[l] = pointer<param_t>(parameters[2 * l]);
    found.bias[l] = pointer<param_t>(parameters[2 * l + 1]);
  }
  return found;
}

template <class param_t>
CorrectionLayers<param_t> mutable_layers(Parameters& gradients, bool needed) {
  CorrectionLayers<param_t> found{};
  for (int l = 0; needed && l < kCorrectionLayers; ++l) {
    found.weight[l] = mutable_pointer<param_t>(gradients[2 * l]);
    found.bias[l] = mutable_pointer<param_t>(gradients[2 * l + 1]);
  }
  return found;
}

struct Gradients {
  Tensor raw_output, features;
  Parameters parameters;
};

Gradients empty_gradients(const Correction& call, bool needs_raw_output, bool needs_features,
                          bool needs_parameters) {
  const auto empty = [](const Tensor& like, bool needed) {
    return needed ? allocate_like(like) : allocate(like, {0});
  };
  Gradients found{
      empty(call.raw_output, needs_raw_output), empty(call.features, needs_features), {}};
  for (size_t p = 0; p < found.parameters.size(); ++p) {
    found.parameters[p] = empty(call.parameters[p], needs_parameters);
  }
  return found;
}

Tensor checked_grad(const Correction& call, const Tensor& grad) {
  FASTSSL_CHECK(grad.dim() == 2 && grad.size(0) == call.shape.N && grad.size(1) == call.shape.C &&
                    grad.scalar_type() == call.raw_output.scalar_type() &&
                    grad.device() == call.raw_output.device(),
                kName, "_backward: expected a gradient [N, C] like raw_output");
  return as_contiguous(grad);
}

struct Cpu {
  static void correct(const Correction& call, double negative_slope, Tensor& corrected) {
    dispatch_pair<CpuTypes>(call, [&]<class scalar_t, class param_t>() {
      cpu::complementary_correction(pointer<scalar_t>(call.raw_output),
                                    pointer<scalar_t>(call.features),
                                    layers<param_t>(call.parameters), negative_slope,
                                    mutable_pointer<scalar_t>(corrected), call.shape);
    });
  }

  static void differentiate(const Correction& call, double negative_slope, const Tensor& grad,
                            bool needs_raw_output, bool needs_features, bool needs_parameters,
                            Gradients& gradients) {
    dispatch_pair<CpuTypes>(call, [&]<class scalar_t, class param_t>() {
      cpu::complementary_correction_backward(
          pointer<scalar_t>(grad), pointer<scalar_t>(call.raw_output),
          pointer<scalar_t>(call.features), layers<param_t>(call.parameters), negative_slope,
          needs_raw_output ? mutable_pointer<scalar_t>(gradients.raw_output) : nullptr,
          needs_features ? mutable_pointer<scalar_t>(gradients.features) : nullptr,
          mutable_layers<param_t>(gradients.parameters, needs_parameters), call.shape);
    });
  }
};

#ifdef FASTSSL_WITH_CUDA
struct Cuda {
  // Activations that do not fit in shared memory.
  template <class acc>
  static Tensor workspace(const Correction& call) {
    return allocate(call.raw_output, {cuda::correction_workspace<acc>(call.shape)},
                    accumulator_dtype(call.raw_output));
  }
  template <class acc>
  static acc* pointer_or_null(Tensor& tensor) {
    return tensor.numel() > 0 ? mutable_pointer<acc>(tensor) : nullptr;
  }

  static void correct(const Correction& call, double negative_slope, Tensor& corrected) {
    const aten::accelerator::DeviceGuard guard(corrected.get_device_index());
    dispatch_pair<CudaTypes>(call, [&]<class scalar_t, class param_t>() {
      using acc = cpu::acc_t<scalar_t>;
      Tensor activations = workspace<acc>(call);
      check_launch(cuda::complementary_correction(
                       pointer<scalar_t>(call.raw_output), pointer<scalar_t>(call.features),
                       layers<param_t>(call.parameters), acc(negative_slope),
                       pointer_or_null<acc>(activations), mutable_pointer<scalar_t>(corrected),
                       call.shape, current_stream(corrected)),
                   kName);
    });
  }

  static void differentiate(const Correction& call, double negative_slope, const Tensor& grad,
                            bool needs_raw_output, bool needs_features, bool needs_parameters,
                            Gradients& gradients) {
    const aten::accelerator::DeviceGuard guard(grad.get_device_index());
    dispatch_pair<CudaTypes>(call, [&]<class scalar_t, class param_t>() {
      using acc = cpu::acc_t<scalar_t>;
      const cudaStream_t stream = current_stream(grad);
      Tensor activations = workspace<acc>(call);
      const int64_t count = needs_parameters ? cuda::correction_partials_count(call.shape.N) : 0;
      Tensor partials = allocate(grad, {count, cuda::correction_partials_size(call.shape)},
                                 accumulator_dtype(grad));
      check_launch(cuda::complementary_correction_backward(
                       pointer<scalar_t>(grad), pointer<scalar_t>(call.raw_output),
                       pointer<scalar_t>(call.features), layers<param_t>(call.parameters),
                       acc(negative_slope), pointer_or_null<acc>(activations),
                       needs_raw_output ? mutable_pointer<scalar_t>(gradients.raw_output) : nullptr,
                       needs_features ? mutable_pointer<scalar_t>(gradients.features) : nullptr,
                       pointer_or_null<acc>(partials), call.shape, stream),
                   kName);
      if (!needs_parameters) return;
      check_launch(
          cuda::sum_correction_partials(
              pointer<acc>(partials),
              mutable_layers<param_t>(gradients.parameters, needs_parameters), call.shape, stream),
          kName);
    });
  }
};
#endif

template <class Device>
Tensor complementary_correction(const Tensor& raw_output, const Tensor& features,
                                const Tensor& raw_weight, const Tensor& raw_bias,
                                const Tensor& feature1_weight, const Tensor& feature1_bias,
                                const Tensor& feature2_weight, const Tensor& feature2_bias,
                                const Tensor& join_weight, const Tensor& join_bias,
                                const Tensor& out_weight, const Tensor& out_bias,
                                double negative_slope) {
  const Correction call =
      checked(raw_output, features,
              {raw_weight, raw_bias, feature1_weight, feature1_bias, feature2_weight, feature2_bias,
               join_weight, join_bias, out_weight, out_bias});
  Tensor corrected = allocate_like(call.raw_output);
  Device::correct(call, negative_slope, corrected);
  return corrected;
}

template <class Device>
auto complementary_correction_backward(
    const Tensor& grad, const Tensor& raw_output, const Tensor& features, const Tensor& raw_weight,
    const Tensor& raw_bias, const Tensor& feature1_weight, const Tensor& feature1_bias,
    const Tensor& feature2_weight, const Tensor& feature2_bias, const Tensor& join_weight,
    const Tensor& join_bias, const Tensor& out_weight, const Tensor& out_bias,
    double negative_slope, bool needs_raw_output, bool needs_features, bool needs_parameters) {
  const Correction call =
      checked(raw_output, features,
              {raw_weight, raw_bias, feature1_weight, feature1_bias, feature2_weight, feature2_bias,
               join_weight, join_bias, out_weight, out_bias});
  Gradients gradients = empty_gradients(call, needs_raw_output, needs_features, needs_parameters);
  Device::differentiate(call, negative_slope, checked_grad(call, grad), needs_raw_output,
                        needs_features, needs_parameters, gradients);
  return std::tuple_cat(std::make_tuple(gradients.raw_output, gradients.features),
                        gradients.parameters);
}

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("complementary_correction", TORCH_BOX(&fastssl::complementary_correction<fastssl::Cpu>));
  m.impl("complementary_correction_backward",
         TORCH_BOX(&fastssl::complementary_correction_backward<fastssl::Cpu>));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("complementary_correction", TORCH_BOX(&fastssl::complementary_correction<fastssl::Cuda>));
  m.impl("complementary_correction_backward",
         TORCH_BOX(&fastssl::complementary_correction_backward<fastssl::Cuda>));
}
#endif
