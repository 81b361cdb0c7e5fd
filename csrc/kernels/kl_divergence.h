// The mean Kullback-Leibler divergence of softmax rows: N rows, C classes,
// KL = 1/N sum_nj q (ln q - ln p), q = softmax(target_logits), p = softmax(logits), and 0 where q
// is 0. The gradient of a row is p - q for the logits; the target has none.
//
// With z the logits less their row's maximum, a row's KL is <q, z_q - z_p> + ln (sum e^z_p /
// sum e^z_q): exactly 0 where both logits are the same.
#pragma once

#include "row_loss.h"

namespace fastssl::cpu {

// loss [1], in nats.
template <class scalar_t, class acc_t>
void kl_divergence(const scalar_t* target_logits,  // [N, C]
                   const scalar_t* logits,         // [N, C]
                   scalar_t* gradient,             // [N, C] of the rows' sum, or null
                   acc_t* loss, int64_t N, int64_t C);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// workspace [kRowLossWorkspace].
template <class scalar_t, class acc_t>
cudaError_t kl_divergence(const scalar_t* target_logits, const scalar_t* logits, scalar_t* gradient,
                          double* workspace, acc_t* loss, int64_t N, int64_t C,
                          cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
