// The mutual information of a symmetric joint distribution (MUSCLE eq. 5):
// I(P) = sum_ij P_ij (ln P_ij - ln P_i - ln P_j), P_i the sum of row i.
//
// Inside logarithms every value is clamped at the smallest normal number, so a class nobody
// predicts contributes 0 and has finite gradients.
#pragma once

#include <cstdint>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl::cpu {

// information [1], in nats.
template <class acc_t>
void mutual_information(const acc_t* joint,  // [C, C], symmetric
                        acc_t* information, int64_t C);

// grad_joint [C, C] = ln P_ij - ln P_i - ln P_j. The derivative's constant -1 is left out: a
// constant adds the same to every class of a row, which softmax's gradient removes.
template <class acc_t>
void mutual_information_grad_joint(const acc_t* joint, acc_t* grad_joint, int64_t C);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// log_marginals [C] and rows [C] are workspace.
template <class acc_t>
cudaError_t mutual_information(const acc_t* joint, acc_t* log_marginals, acc_t* rows,
                               acc_t* information, int64_t C, cudaStream_t stream);

template <class acc_t>
cudaError_t mutual_information_grad_joint(const acc_t* joint, acc_t* log_marginals,
                                          acc_t* grad_joint, int64_t C, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
