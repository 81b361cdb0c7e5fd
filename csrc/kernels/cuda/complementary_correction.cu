#include "../complementary_correction.h"

#include "product.cuh"

namespace fastssl::cuda {
namespace {

constexpr int64_t kMostBlocks = 132;          // one a multiprocessor of an H100
constexpr int64_t kSharedBytes = 160 * 1024;  // that a block may have on sm_80 and above

// The layers' outputs for a block of rows; joined is kRaw's, then kFeature2's. Each is replaced by
// its gradient on the way back.
template <class acc>
struct Activations {
  View<acc> feature1, joined, join;

  __host__ __device__ static int64_t elements(const CorrectionShape& shape) {
    return kCorrectionRows * (stride(shape.outputs[kFeature1]) + stride(shape.inputs[kJoin]) +
                              stride(shape.outputs[kJoin]));
  }
  __device__ Activations(acc* memory, const CorrectionShape& shape) {
    feature1 = {memory, stride(shape.outputs[kFeature1])};
    joined = {feature1.data + kCorrectionRows * feature1.stride, stride(shape.inputs[kJoin])};
    join = {joined.data + kCorrectionRows * joined.stride, stride(shape.outputs[kJoin])};
  }
  __device__ View<acc> feature2(const CorrectionShape& shape) const {
    return {joined.data + shape.outputs[kRaw], joined.stride};
  }

 private:
  // Odd, so that a column's entries lie in different banks.
  __host__ __device__ static int64_t stride(int64_t columns) { return columns | 1; }
};

__host__ __device__ int64_t partials_size(const CorrectionShape& shape) {
  int64_t size = 0;
#pragma unroll
  for (int l = 0; l < kCorrectionLayers; ++l) size += shape.outputs[l] * (shape.inputs[l] + 1);
  return size;
}

template <class T>
__device__ __forceinline__ View<T> weight(const CorrectionLayers<T>& parameters,
                                          const CorrectionShape& shape, CorrectionLayer l) {
  return {parameters.weight[l], shape.inputs[l]};
}

// out = leaky_relu(in weight^T + bias).
template <class acc, class in_t, class param_t>
__device__ __forceinline__ void apply_layer(CorrectionLayer l, const View<in_t>& in,
                                            const CorrectionLayers<const param_t>& parameters,
                                            acc slope, const View<acc>& out, int rows,
                                            const CorrectionShape& shape, acc* stage) {
  const param_t* bias = parameters.bias[l];
  multiply<false, true>(in, weight(parameters, shape, l), rows, int(shape.outputs[l]),
                        int(shape.inputs[l]), stage, [=](int i, int j, acc sum) {
                          const acc x = sum + load(bias[j]);
                          out.data[i * out.stride + j] = x > acc(0) ? x : slope * x;
                        });
}

template <class acc, class scalar_t, class param_t>
__device__ __forceinline__ void activate(const View<const scalar_t>& raw,
                                         const View<const scalar_t>& features,
                                         const CorrectionLayers<const param_t>& parameters,
                                         acc slope, const Activations<acc>& activations, int rows,
                                         const CorrectionShape& shape, acc* stage) {
  const View<acc> feature1 = activations.feature1, feature2 = activations.feature2(shape);
  apply_layer(kRaw, raw, parameters, slope, activations.joined, rows, shape, stage);
  apply_layer(kFeature1, features, parameters, slope, feature1, rows, shape, stage);
  apply_layer(kFeature2, feature1, parameters, slope, feature2, rows, shape, stage);
  apply_layer(kJoin, activations.joined, parameters, slope, activations.join, rows, shape, stage);
}

// The gradient of a layer's input, itself an output of LeakyReLU, in its place.
template <class acc, class grad_t, class param_t>
__device__ __forceinline__ void propagate(CorrectionLayer l, const View<grad_t>& grad_out,
                                          const CorrectionLayers<const param_t>& parameters,
                                          acc slope, const View<acc>& in, int rows,
                                          const CorrectionShape& shape, acc* stage) {
  multiply<false, false>(grad_out, weight(parameters, shape, l), rows, shape.inputs[l],
                         shape.outputs[l], stage, [=](int i, int j, acc sum) {
                           acc& x = in.data[i * in.stride + j];
                           x = x > acc(0) ? sum : slope * sum;
                         });
}

// Adds the rows' part of the gradients of a layer's parameters to a block's partial sums, or begins
// them. Every entry always belongs to the same thread.
template <class acc, class grad_t, class in_t>
__device__ __forceinline__ void accumulate(CorrectionLayer l, const View<grad_t>& grad_out,
                                           const View<in_t>& in, bool begins, acc* partials,
                                           int rows, const CorrectionShape& shape, acc* stage) {
#pragma unroll
  for (int k = 0; k < kCorrectionLayers; ++k) {
    if (k < l) partials += shape.outputs[k] * (shape.inputs[k] + 1);
  }
  const int inputs = int(shape.inputs[l]), outputs = int(shape.outputs[l]);
  multiply<true, false>(grad_out, in, outputs, inputs, rows, stage, [=](int i, int j, acc sum) {
    acc& total = partials[int64_t(i) * inputs + j];
    total = begins ? sum : total + sum;
  });
  acc* bias = partials + int64_t(outputs) * inputs;
  for (int o = threadIdx.x; o < outputs; o += kProductThreads) {
    acc sum = 0;
    for (int n = 0; n < rows; ++n) sum += load(grad_out.data[n * grad_out.stride + o]);
    bias[o] = begins ? sum : bias[o] + sum;
  }
}

template <class scalar_t, class param_t>
__global__ void __launch_bounds__(kProductThreads, 1)
    correction_kernel(const scalar_t* __restrict__ raw_output,
                      const scalar_t* __restrict__ features,
                      const CorrectionLayers<const param_t> parameters, acc_t<scalar_t> slope,
                      acc_t<scalar_t>* __restrict__ workspace, scalar_t* __restrict__ corrected,
                      const CorrectionShape shape) {
  using acc = acc_t<scalar_t>;
  const int C = int(shape.C), D = int(shape.D);
  const int64_t elements = Activations<acc>::elements(shape);
  SharedMemory shared;
  acc* stage = shared.take<acc>(kProductStage);
  const Activations<acc> activations(
      workspace != nullptr ? workspace + blockIdx.x * elements : shared.take<acc>(elements), shape);
  for (int64_t first = blockIdx.x * kCorrectionRows; first < shape.N;
       first += gridDim.x * kCorrectionRows) {
    const int rows = int(shape.N - first < kCorrectionRows ? shape.N - first : kCorrectionRows);
    const View<const scalar_t> raw{raw_output + first * C, C};
    activate(raw, {features + first * D, D}, parameters, slope, activations, rows, shape, stage);
    const param_t* bias = parameters.bias[kOut];
    multiply<false, true>(activations.join, weight(parameters, shape, kOut), rows, C,
                          shape.inputs[kOut], stage, [=](int i, int j, acc sum) {
                            store(corrected + (first + i) * C + j,
                                  load(raw.data[i * C + j]) + sum + load(bias[j]));
                          });
  }
}

template <class scalar_t, class param_t>
__global__ void __launch_bounds__(kProductThreads, 1) correction_gradients_kernel(
    const scalar_t* __restrict__ grad, const scalar_t* __restrict__ raw_output,
    const scalar_t* __restrict__ features, const CorrectionLayers<const param_t> parameters,
    acc_t<scalar_t> slope, acc_t<scalar_t>* __restrict__ workspace,
    scalar_t* __restrict__ grad_raw_output, scalar_t* __restrict__ grad_features,
    acc_t<scalar_t>* __restrict__ partials, const CorrectionShape shape) {
  using acc = acc_t<scalar_t>;
  const int C = int(shape.C), D = int(shape.D);
  const int64_t elements = Activations<acc>::elements(shape);
  SharedMemory shared;
  acc* stage = shared.take<acc>(kProductStage);
  const Activations<acc> activations(
      workspace != nullptr ? workspace + blockIdx.x * elements : shared.take<acc>(elements), shape);
  const View<acc> feature1 = activations.feature1, feature2 = activations.feature2(shape),
                  joined = activations.joined, join = activations.join;
  if (partials != nullptr) partials += blockIdx.x * partials_size(shape);
  bool begins = true;
  for (int64_t first = blockIdx.x * kCorrectionRows; first < shape.N;
       first += gridDim.x * kCorrectionRows) {
    const int rows = int(shape.N - first < kCorrectionRows ? shape.N - first : kCorrectionRows);
    const View<const scalar_t> raw{raw_output + first * C, C}, of_output{grad + first * C, C},
        feature{features + first * D, D};
    activate(raw, feature, parameters, slope, activations, rows, shape, stage);
    const auto add = [&](CorrectionLayer l, const auto& grad_out, const auto& in) {
      if (partials != nullptr) accumulate(l, grad_out, in, begins, partials, rows, shape, stage);
    };
    add(kOut, of_output, join);
    propagate(kOut, of_output, parameters, slope, join, rows, shape, stage);
    add(kJoin, join, joined);
    propagate(kJoin, join, parameters, slope, joined, rows, shape, stage);
    add(kFeature2, feature2, feature1);
    propagate(kFeature2, feature2, parameters, slope, feature1, rows, shape, stage);
    add(kRaw, joined, raw);
    add(kFeature1, feature1, feature);
    if (grad_raw_output != nullptr) {
      multiply<false, false>(joined, weight(parameters, shape, kRaw), rows, C, shape.outputs[kRaw],
                             stage, [=](int i, int j, acc sum) {
                               store(grad_raw_output + (first + i) * C + j,
                                     load(of_output.data[i * C + j]) + sum);
                             });
    }
    if (grad_features != nullptr) {
      multiply<false, false>(
          feature1, weight(parameters, shape, kFeature1), rows, D, shape.outputs[kFeature1], stage,
          [=](int i, int j, acc sum) { store(grad_features + (first + i) * D + j, sum); });
    }
    begins = false;
  }
}

constexpr int kSumEntries = 32, kSumGroups = 8;

// A block owns kSumEntries entries; its groups share the partials and are added in order.
template <class param_t, class acc>
__global__ void __launch_bounds__(kSumEntries* kSumGroups)
    sum_partials_kernel(const acc* __restrict__ partials, int64_t count, int64_t size,
                        const CorrectionLayers<param_t> gradients, const CorrectionShape shape) {
  FASTSSL_SHARED(acc, sums, [kSumGroups][kSumEntries]);
  const int x = threadIdx.x % kSumEntries, group = threadIdx.x / kSumEntries;
  int64_t entry = int64_t(blockIdx.x) * kSumEntries + x;
  acc sum = 0;
  if (entry < size) {
    for (int64_t k = group; k < count; k += kSumGroups) sum += partials[k * size + entry];
  }
  sums[group][x] = sum;
  __syncthreads();
  if (group != 0 || entry >= size) return;
  for (int g = 1; g < kSumGroups; ++g) sum += sums[g][x];
#pragma unroll
  for (int l = 0; l < kCorrectionLayers; ++l) {
    const int64_t weights = shape.outputs[l] * shape.inputs[l];
    if (entry >= 0 && entry < weights) store(gradients.weight[l] + entry, sum);
    entry -= weights;
    if (entry >= 0 && entry < shape.outputs[l]) store(gradients.bias[l] + entry, sum);
    entry -= shape.outputs[l];
  }
}

template <class acc>
Launch launch_shape(const CorrectionShape& shape, const acc* workspace, cudaStream_t stream) {
  const size_t bytes =
      shared_bytes<acc>(kProductStage) +
      (workspace != nullptr ? 0 : shared_bytes<acc>(Activations<acc>::elements(shape)));
  return {dim3(unsigned(correction_partials_count(shape.N))), dim3(kProductThreads), bytes, stream};
}

}  // namespace

template <class acc>
int64_t correction_workspace(const CorrectionShape& shape) {
  const int64_t elements = Activations<acc>::elements(shape);
  const size_t bytes = shared_bytes<acc>(kProductStage) + shared_bytes<acc>(elements);
  return bytes <= kSharedBytes ? 0 : correction_partials_count(shape.N) * elements;
}

int64_t correction_partials_count(int64_t N) {
  const int64_t blocks = ceil_div(N, kCorrectionRows);
  return blocks < kMostBlocks ? blocks : kMostBlocks;
}

int64_t correction_partials_size(const CorrectionShape& shape) { return partials_size(shape); }

template <class scalar_t, class param_t, class acc>
cudaError_t complementary_correction(const scalar_t* raw_output, const scalar_t* features,
                                     const CorrectionLayers<const param_t>& parameters,
                                     acc negative_slope, acc* workspace, scalar_t* corrected,
                                     const CorrectionShape& shape, cudaStream_t stream) {
  return launch(correction_kernel<scalar_t, param_t>, launch_shape(shape, workspace, stream),
                raw_output, features, parameters, negative_slope, workspace, corrected, shape);
}

template <class scalar_t, class param_t, class acc>
cudaError_t complementary_correction_backward(const scalar_t* grad, const scalar_t* raw_output,
                                              const scalar_t* features,
                                              const CorrectionLayers<const param_t>& parameters,
                                              acc negative_slope, acc* workspace,
                                              scalar_t* grad_raw_output, scalar_t* grad_features,
                                              acc* partials, const CorrectionShape& shape,
                                              cudaStream_t stream) {
  return launch(correction_gradients_kernel<scalar_t, param_t>,
                launch_shape(shape, workspace, stream), grad, raw_output, features, parameters,
                negative_slope, workspace, grad_raw_output, grad_features, partials, shape);
}

template <class param_t, class acc>
cudaError_t sum_correction_partials(const acc* partials,
                                    const CorrectionLayers<param_t>& grad_parameters,
                                    const CorrectionShape& shape, cudaStream_t stream) {
  const int64_t size = partials_size(shape);
  const Launch blocks{dim3(unsigned(ceil_div(size, kSumEntries))), dim3(kSumEntries * kSumGroups),
                      0, stream};
  return launch(sum_partials_kernel<param_t, acc>, blocks, partials,
                correction_partials_count(shape.N), size, grad_parameters, shape);
}

#define FASTSSL_INSTANTIATE(scalar_t, param_t)                                                   \
  template cudaError_t complementary_correction(                                                 \
      const scalar_t*, const scalar_t*, const CorrectionLayers<const param_t>&, acc_t<scalar_t>, \
      acc_t<scalar_t>*, scalar_t*, const CorrectionShape&, cudaStream_t);                        \
  template cudaError_t complementary_correction_backward(                                        \
      const scalar_t*, const scalar_t*, const scalar_t*, const CorrectionLayers<const param_t>&, \
      acc_t<scalar_t>, acc_t<scalar_t>*, scalar_t*, scalar_t*, acc_t<scalar_t>*,                 \
      const CorrectionShape&, cudaStream_t);
FASTSSL_INSTANTIATE(float, float)
FASTSSL_INSTANTIATE(double, double)
FASTSSL_INSTANTIATE(__half, __half)
FASTSSL_INSTANTIATE(__half, float)
FASTSSL_INSTANTIATE(__nv_bfloat16, __nv_bfloat16)
FASTSSL_INSTANTIATE(__nv_bfloat16, float)
#undef FASTSSL_INSTANTIATE
#define FASTSSL_INSTANTIATE(param_t)                                             \
  template cudaError_t sum_correction_partials(const acc_t<param_t>*,            \
                                               const CorrectionLayers<param_t>&, \
                                               const CorrectionShape&, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
FASTSSL_INSTANTIATE(__half)
FASTSSL_INSTANTIATE(__nv_bfloat16)
#undef FASTSSL_INSTANTIATE
template int64_t correction_workspace<float>(const CorrectionShape&);
template int64_t correction_workspace<double>(const CorrectionShape&);

}  // namespace fastssl::cuda
