// The joint distribution of two predictions (MUSCLE eq. 6): P = (Q + Q^T) / 2 with
// Q = 1/(N V) sum_v softmax(logits_a)^T softmax(logits_b[v]), pooled over V views.
//
// N rows, C classes, V views. The gradient recomputes the probabilities from the logits, so that
// nothing of size N x C outlives a call.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl::cpu {

// joint [C, C], symmetric. On the CPU, probabilities live only as long as the rows being worked on.
template <class scalar_t, class acc_t>
void joint_distribution(const scalar_t* logits_a,  // [N, C]
                        const scalar_t* logits_b,  // [V, N, C]
                        acc_t* joint,              // [C, C]
                        int64_t N, int64_t C, int64_t V);

// Gradients of grad * sum(joint * grad_joint); a null output is not computed.
template <class scalar_t, class acc_t>
void joint_distribution_backward(const acc_t* grad_joint,  // [C, C]
                                 acc_t grad, const scalar_t* logits_a, const scalar_t* logits_b,
                                 scalar_t* grad_a,  // [N, C] or null
                                 scalar_t* grad_b,  // [V, N, C] or null
                                 int64_t N, int64_t C, int64_t V);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// Up to this many classes a block keeps its rows' probabilities in shared memory and forms the
// products itself; beyond it the products are torch's matrix products, between the other three
// kernels below.
constexpr int64_t kFewClasses = 32;

// How many partial sums `joint_partials` writes.
int64_t joint_partials_count(int64_t N);

// Few classes: partials [count, C, C], each block's sum of outer products over its rows.
template <class scalar_t, class acc_t>
cudaError_t joint_partials(const scalar_t* logits_a, const scalar_t* logits_b, acc_t* partials,
                           int64_t N, int64_t C, int64_t V, cudaStream_t stream);

// joint [C, C] = scale / 2 * sum over partials [count, C, C] of (partial + its transpose).
template <class acc_t>
cudaError_t symmetrize(const acc_t* partials, int64_t count, acc_t scale, acc_t* joint, int64_t C,
                       cudaStream_t stream);

// Few classes: both gradients in one kernel. grad is a scalar in device memory, or null for 1.
template <class scalar_t, class acc_t>
cudaError_t joint_gradients(const acc_t* grad_joint, const acc_t* grad, const scalar_t* logits_a,
                            const scalar_t* logits_b, scalar_t* grad_a, scalar_t* grad_b, int64_t N,
                            int64_t C, int64_t V, cudaStream_t stream);

// Many classes: probabilities [N, C] = sum over V views of softmax(logits [V, N, C]).
template <class scalar_t, class acc_t>
cudaError_t pooled_softmax(const scalar_t* logits, acc_t* probabilities, int64_t N, int64_t C,
                           int64_t V, cudaStream_t stream);

// Many classes: gradient [V, N, C] = scale * grad * p_v (t - <p_v, t>), p_v = softmax(logits[v]),
// t [N, C] the gradient of the probabilities.
template <class scalar_t, class acc_t>
cudaError_t softmax_gradient(const scalar_t* logits, const acc_t* t, const acc_t* grad, acc_t scale,
                             scalar_t* gradient, int64_t N, int64_t C, int64_t V,
                             cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
