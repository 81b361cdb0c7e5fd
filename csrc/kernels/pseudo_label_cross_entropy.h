// Cross entropy against confident pseudo-labels (FixMatch, Sohn et al., 2020, eq. 4): N rows, C
// classes, V strong views. Row n is kept if the largest probability of its weak view reaches the
// threshold; its pseudo-label is the first class that has it.
//
// loss = 1/(V N) sum over kept n and v of -ln p_vn[label], p = softmax(strong_logits); a row that
// is not kept adds nothing, and its strong logits are not read. The weak logits have no gradient.
#pragma once

#include "row_loss.h"

namespace fastssl::cpu {

// loss [1], in nats; kept [1], the fraction of the rows.
template <class scalar_t, class acc_t>
void pseudo_label_cross_entropy(const scalar_t* weak_logits,    // [N, C]
                                const scalar_t* strong_logits,  // [V, N, C]
                                double threshold,
                                scalar_t* gradient,  // [V, N, C] of the rows' sum, or null
                                acc_t* loss, acc_t* kept, int64_t N, int64_t C, int64_t V);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// workspace [kRowLossWorkspace].
template <class scalar_t, class acc_t>
cudaError_t pseudo_label_cross_entropy(const scalar_t* weak_logits, const scalar_t* strong_logits,
                                       double threshold, scalar_t* gradient, double* workspace,
                                       acc_t* loss, acc_t* kept, int64_t N, int64_t C, int64_t V,
                                       cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
