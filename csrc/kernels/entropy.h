// The mean entropy of softmax rows (CCN eq. 2): N rows, C classes,
// H = -1/N sum_nj p ln p, p = softmax(logits), and 0 where p is 0.
//
// With z the logits less their row's maximum and m = <p, z>, a row's H is ln sum e^z - m, and its
// gradient p (m - z).
#pragma once

#include "row_loss.h"

namespace fastssl::cpu {

// loss [1], in nats.
template <class scalar_t, class acc_t>
void entropy(const scalar_t* logits,  // [N, C]
             scalar_t* gradient,      // [N, C] of the rows' sum, or null
             acc_t* loss, int64_t N, int64_t C);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// workspace [kRowLossWorkspace].
template <class scalar_t, class acc_t>
cudaError_t entropy(const scalar_t* logits, scalar_t* gradient, double* workspace, acc_t* loss,
                    int64_t N, int64_t C, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
