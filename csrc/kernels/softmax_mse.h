// The mean squared difference of softmax rows: N rows, C classes,
// 1/(N C) sum_nj (p - q)^2, q = softmax(target_logits), p = softmax(logits). With d = 2 (p - q),
// the gradient of a row's sum is p (d - <p, d>) for the logits; the target has none.
#pragma once

#include "row_loss.h"

namespace fastssl::cpu {

// loss [1].
template <class scalar_t, class acc_t>
void softmax_mse(const scalar_t* target_logits,  // [N, C]
                 const scalar_t* logits,         // [N, C]
                 scalar_t* gradient,             // [N, C] of the rows' sum, or null
                 acc_t* loss, int64_t N, int64_t C);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// workspace [kRowLossWorkspace].
template <class scalar_t, class acc_t>
cudaError_t softmax_mse(const scalar_t* target_logits, const scalar_t* logits, scalar_t* gradient,
                        double* workspace, acc_t* loss, int64_t N, int64_t C, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
