// What losses share that are means over rows of logits, each a function of its row's softmax.
//
// The forward kernel writes the gradient of the rows' losses, too, where one is asked for: made
// from the softmax that the loss needs anyway, it costs less than the softmax once more. It is kept
// without the factor 1/N, at which float16 would underflow; the backward kernel scales it.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl::cpu {

// scaled [count] = grad / divisor * gradient.
template <class scalar_t, class acc_t>
void scale_gradient(acc_t grad, double divisor, const scalar_t* gradient, scalar_t* scaled,
                    int64_t count);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// Blocks of a row loss's kernel at most. Each leaves partial sums in the workspace: of the loss in
// its first half, of the rows that count in the second.
constexpr int64_t kRowLossBlocks = 1024;
constexpr int64_t kRowLossWorkspace = 2 * kRowLossBlocks;

// loss [1] = sum of the loss's partials / divisor; counted [1], or null = sum of the rows' / N.
template <class acc_t>
cudaError_t average_partials(const double* workspace, int64_t blocks, double divisor, acc_t* loss,
                             acc_t* counted, int64_t N, cudaStream_t stream);

// scaled [count] = grad [1] / divisor * gradient.
template <class scalar_t, class acc_t>
cudaError_t scale_gradient(const acc_t* grad, double divisor, const scalar_t* gradient,
                           scalar_t* scaled, int64_t count, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
