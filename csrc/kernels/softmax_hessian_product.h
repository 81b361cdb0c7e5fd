// The Hessian of KL(softmax(x) || softmax(x + r)) in r at r = 0, times a tangent: VAT's power
// iteration (Miyato et al., 2018, eq. 11 to 14, for the logits instead of the input).
//
// N rows, C classes: product = p (t - <p, t>), p = softmax(logits). t enters only up to a constant,
// so its value at the likeliest class is taken off first: a row that is all but certain, whose
// product is as small as 1 - max p, then keeps its digits.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl::cpu {

template <class scalar_t>
void softmax_hessian_product(const scalar_t* logits,   // [N, C]
                             const scalar_t* tangent,  // [N, C]
                             scalar_t* product,        // [N, C]
                             int64_t N, int64_t C);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

template <class scalar_t>
cudaError_t softmax_hessian_product(const scalar_t* logits, const scalar_t* tangent,
                                    scalar_t* product, int64_t N, int64_t C, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
