// SimCLR's contrastive loss NT-Xent (Chen et al., 2020, eq. 1) and its gradient.
//
// N pairs, D features. The M = 2N rows z_i are those of a, then those of b, each divided by its
// length (at least kLeastLength); s_ij = <z_i, z_j> / temperature. The positive of row i is the
// other view of its pair, p(i) = (i + N) mod M:
//
//   loss = 1/M sum_i (log_sums_i - s_ip(i)),   log_sums_i = ln sum_{j != i} exp s_ij.
//
// With P_ij = exp(s_ij - log_sums_i) and w_ij = P_ij + P_ji - 2 [j = p(i)], w_ii = 0, the gradient
// of z_i is sum_j w_ij z_j / (M temperature). s and w are symmetric. Neither is ever stored: they
// are made tile by tile, forward and again backward, and log_sums is all that is kept.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl {

constexpr double kLeastLength = 1e-12;  // that of torch's F.normalize
// A row of zeros has gradients of about 1 / kLeastLength, which float16 holds only if clamped.
constexpr float kLargestHalf = 65504;

}  // namespace fastssl

namespace fastssl::cpu {

template <class scalar_t, class acc_t>
void nt_xent(const scalar_t* features_a,  // [N, D]
             const scalar_t* features_b,  // [N, D]
             double temperature,
             acc_t* loss,      // [1]
             acc_t* log_sums,  // [2N]
             int64_t N, int64_t D);

// A null gradient is not computed.
template <class scalar_t, class acc_t>
void nt_xent_backward(acc_t grad, const acc_t* log_sums, const scalar_t* features_a,
                      const scalar_t* features_b, double temperature,
                      scalar_t* grad_a,  // [N, D]
                      scalar_t* grad_b,  // [N, D]
                      int64_t N, int64_t D);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// How many parts a row's sum of exponentials, and how many a row's gradient is made of.
int64_t contrast_tiles(int64_t N);
int64_t contrast_groups(int64_t N);

// unit, lengths, partials and positives are workspace.
template <class scalar_t, class acc_t>
cudaError_t nt_xent(const scalar_t* features_a, const scalar_t* features_b, acc_t temperature,
                    acc_t* unit,       // [2N, D]
                    acc_t* lengths,    // [2N]
                    acc_t* partials,   // [tiles, 2N]
                    acc_t* positives,  // [2N]
                    acc_t* loss, acc_t* log_sums, int64_t N, int64_t D, cudaStream_t stream);

// unit, lengths and sums are workspace; of two null gradients there must be at most one.
template <class scalar_t, class acc_t>
cudaError_t nt_xent_backward(const acc_t* grad, const acc_t* log_sums, const scalar_t* features_a,
                             const scalar_t* features_b, acc_t temperature,
                             acc_t* unit,     // [2N, D]
                             acc_t* lengths,  // [2N]
                             acc_t* sums,     // [groups, rows with a gradient, D]
                             scalar_t* grad_a, scalar_t* grad_b, int64_t N, int64_t D,
                             cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
