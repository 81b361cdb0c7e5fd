// The correction network of CCN (table 1, eq. 7): corrected = raw output + delta, with five linear
// layers, all but the last followed by LeakyReLU:
//
//   raw output [C] -> kRaw -----------------+
//   features [D] -> kFeature1 -> kFeature2 -+- concatenated -> kJoin -> kOut -> delta [C]
//
// N rows, C classes, D features. The gradient recomputes the activations from the inputs, so that
// none outlives a call.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl {

enum CorrectionLayer { kRaw, kFeature1, kFeature2, kJoin, kOut, kCorrectionLayers };

struct CorrectionShape {
  int64_t N, C, D;
  int64_t inputs[kCorrectionLayers], outputs[kCorrectionLayers];
};

// Parameters or their gradients, in the layout of nn.Linear.
template <class T>
struct CorrectionLayers {
  T* weight[kCorrectionLayers];  // [outputs, inputs]
  T* bias[kCorrectionLayers];    // [outputs]
};

}  // namespace fastssl

namespace fastssl::cpu {

template <class scalar_t, class param_t>
void complementary_correction(const scalar_t* raw_output,  // [N, C]
                              const scalar_t* features,    // [N, D]
                              const CorrectionLayers<const param_t>& parameters,
                              double negative_slope,
                              scalar_t* corrected,  // [N, C]
                              const CorrectionShape& shape);

// Null outputs are not computed; all of grad_parameters are null, or none.
template <class scalar_t, class param_t>
void complementary_correction_backward(const scalar_t* grad,  // [N, C]
                                       const scalar_t* raw_output, const scalar_t* features,
                                       const CorrectionLayers<const param_t>& parameters,
                                       double negative_slope,
                                       scalar_t* grad_raw_output,  // [N, C] or null
                                       scalar_t* grad_features,    // [N, D] or null
                                       const CorrectionLayers<param_t>& grad_parameters,
                                       const CorrectionShape& shape);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// A block works on kCorrectionRows rows at a time and keeps their activations in shared memory if
// correction_workspace says 0; otherwise they are in device memory, that many elements.
constexpr int64_t kCorrectionRows = 64;
template <class acc_t>
int64_t correction_workspace(const CorrectionShape& shape);

// How many partial sums of the parameters' gradients, and elements of one: kRaw's weight and bias,
// then the other layers'.
int64_t correction_partials_count(int64_t N);
int64_t correction_partials_size(const CorrectionShape& shape);

template <class scalar_t, class param_t, class acc_t>
cudaError_t complementary_correction(const scalar_t* raw_output, const scalar_t* features,
                                     const CorrectionLayers<const param_t>& parameters,
                                     acc_t negative_slope, acc_t* workspace, scalar_t* corrected,
                                     const CorrectionShape& shape, cudaStream_t stream);

// Gradients of the inputs, and partials [count, size] of the parameters'; null outputs are not
// computed.
template <class scalar_t, class param_t, class acc_t>
cudaError_t complementary_correction_backward(const scalar_t* grad, const scalar_t* raw_output,
                                              const scalar_t* features,
                                              const CorrectionLayers<const param_t>& parameters,
                                              acc_t negative_slope, acc_t* workspace,
                                              scalar_t* grad_raw_output, scalar_t* grad_features,
                                              acc_t* partials, const CorrectionShape& shape,
                                              cudaStream_t stream);

// The parameters' gradients: the sum of the partials, always in the same order.
template <class param_t, class acc_t>
cudaError_t sum_correction_partials(const acc_t* partials,
                                    const CorrectionLayers<param_t>& grad_parameters,
                                    const CorrectionShape& shape, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
