// Every sample scaled to one L2 norm, whatever its own: the gradients of a confident network are as
// small as 1e-30, and their squares would all be zero.
//
// N samples of D numbers. A sample of zeros stays zero; one that holds a NaN or an infinity has no
// direction and becomes NaN throughout.
#pragma once

#include <cstdint>
#include <limits>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl {

// What a sample is multiplied by before it is squared: one over its largest magnitude, within the
// normal numbers, which brings even the smallest subnormal to where its square is one too.
template <class acc_t>
constexpr acc_t scale_before_squaring(acc_t largest) {
  constexpr acc_t least = std::numeric_limits<acc_t>::min();
  const acc_t inverse = 1 / (largest > least ? largest : least);
  return inverse > least ? inverse : least;
}

// What the scaled sample, of that norm, is multiplied by.
template <class acc_t>
constexpr acc_t scale_to_radius(acc_t norm, acc_t radius) {
  if (norm == 0) return 0;
  return norm <= std::numeric_limits<acc_t>::max() ? radius / norm
                                                   : std::numeric_limits<acc_t>::quiet_NaN();
}

}  // namespace fastssl

namespace fastssl::cpu {

template <class scalar_t, class acc_t>
void unit_perturbation(const scalar_t* direction,  // [N, D]
                       acc_t radius,
                       scalar_t* perturbation,  // [N, D]
                       int64_t N, int64_t D);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

template <class scalar_t, class acc_t>
cudaError_t unit_perturbation(const scalar_t* direction, acc_t radius, scalar_t* perturbation,
                              int64_t N, int64_t D, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
