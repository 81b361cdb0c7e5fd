// Cross entropy with a weight a row: N rows, C classes,
// loss = 1/N sum_n w_n * -ln p_n[target_n], p = softmax(logits).
//
// A row of weight 0 adds exactly 0 and its logits are not read, so that its loss may be infinite.
// Neither targets nor weights have a gradient. A target outside [0, C) makes the loss and the row's
// gradient NaN.
#pragma once

#include "row_loss.h"

namespace fastssl::cpu {

// loss [1], in nats. weight_t is scalar_t or acc_t.
template <class scalar_t, class weight_t, class acc_t>
void weighted_cross_entropy(const scalar_t* logits,   // [N, C]
                            const int64_t* targets,   // [N]
                            const weight_t* weights,  // [N]
                            scalar_t* gradient,       // [N, C] of the rows' sum, or null
                            acc_t* loss, int64_t N, int64_t C);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// workspace [kRowLossWorkspace].
template <class scalar_t, class weight_t, class acc_t>
cudaError_t weighted_cross_entropy(const scalar_t* logits, const int64_t* targets,
                                   const weight_t* weights, scalar_t* gradient, double* workspace,
                                   acc_t* loss, int64_t N, int64_t C, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
