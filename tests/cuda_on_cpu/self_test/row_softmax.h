// A kernel in the project's own shape, to test the checker and to show how one is bound and tested:
// the softmax of every row, and its mean over the rows.
#pragma once

#include <driver_types.h>

#include <cstdint>

namespace fastssl::cuda {

// probabilities [N, C]; mean [C], which starts as zeros.
template <class scalar_t, class acc_t>
cudaError_t row_softmax(const scalar_t* logits,  // [N, C]
                        scalar_t* probabilities, acc_t* mean, int64_t N, int64_t C,
                        cudaStream_t stream);

}  // namespace fastssl::cuda
