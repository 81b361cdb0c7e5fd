#include "../mutual_information.h"

#include "numeric.cuh"
#include "reduce.cuh"

namespace fastssl::cuda {
namespace {

constexpr int kRowsPerBlock = 4;
constexpr int kEntryThreads = 256;

// log_marginals[i] = ln sum_j P_ij; a warp owns a row.
template <class acc>
__global__ void __launch_bounds__(kRowsPerBlock* kWarp)
    log_marginals_kernel(const acc* __restrict__ joint, acc* __restrict__ log_marginals,
                         int64_t C) {
  const int lane = threadIdx.x % kWarp;
  const int64_t i = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (i >= C) return;  // whole warps
  acc sum = 0;
  for (int64_t j = lane; j < C; j += kWarp) sum += joint[i * C + j];
  sum = warp_sum(sum);
  if (lane == 0) log_marginals[i] = log_clamped(sum);
}

// rows[i] = sum_j P_ij (ln P_ij - ln P_i - ln P_j); a warp owns a row.
template <class acc>
__global__ void __launch_bounds__(kRowsPerBlock* kWarp)
    information_rows_kernel(const acc* __restrict__ joint, const acc* __restrict__ log_marginals,
                            acc* __restrict__ rows, int64_t C) {
  const int lane = threadIdx.x % kWarp;
  const int64_t i = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (i >= C) return;  // whole warps
  const acc own = log_marginals[i];
  acc sum = 0;
  for (int64_t j = lane; j < C; j += kWarp) {
    const acc p = joint[i * C + j];
    sum += p * (log_clamped(p) - own - log_marginals[j]);
  }
  sum = warp_sum(sum);
  if (lane == 0) rows[i] = sum;
}

// information = sum of rows [C], by one warp, always in the same order.
template <class acc>
__global__ void __launch_bounds__(kWarp)
    sum_kernel(const acc* __restrict__ rows, acc* __restrict__ information, int64_t C) {
  acc sum = 0;
  for (int64_t i = threadIdx.x; i < C; i += kWarp) sum += rows[i];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) *information = sum;
}

template <class acc>
__global__ void __launch_bounds__(kEntryThreads)
    grad_joint_kernel(const acc* __restrict__ joint, const acc* __restrict__ log_marginals,
                      acc* __restrict__ grad_joint, int64_t C) {
  const int64_t entry = int64_t(blockIdx.x) * kEntryThreads + threadIdx.x;
  if (entry >= C * C) return;
  grad_joint[entry] =
      log_clamped(joint[entry]) - log_marginals[entry / C] - log_marginals[entry % C];
}

Launch warp_per_row(int64_t C, cudaStream_t stream) {
  return {dim3(unsigned(ceil_div(C, kRowsPerBlock))), dim3(kRowsPerBlock * kWarp), 0, stream};
}

}  // namespace

template <class acc>
cudaError_t mutual_information(const acc* joint, acc* log_marginals, acc* rows, acc* information,
                               int64_t C, cudaStream_t stream) {
  const Launch shape = warp_per_row(C, stream);
  cudaError_t status = launch(log_marginals_kernel<acc>, shape, joint, log_marginals, C);
  if (status != cudaSuccess) return status;
  status = launch(information_rows_kernel<acc>, shape, joint, log_marginals, rows, C);
  if (status != cudaSuccess) return status;
  return launch(sum_kernel<acc>, {dim3(1), dim3(kWarp), 0, stream}, rows, information, C);
}

template <class acc>
cudaError_t mutual_information_grad_joint(const acc* joint, acc* log_marginals, acc* grad_joint,
                                          int64_t C, cudaStream_t stream) {
  const cudaError_t status =
      launch(log_marginals_kernel<acc>, warp_per_row(C, stream), joint, log_marginals, C);
  if (status != cudaSuccess) return status;
  const Launch shape{dim3(unsigned(ceil_div(C * C, kEntryThreads))), dim3(kEntryThreads), 0,
                     stream};
  return launch(grad_joint_kernel<acc>, shape, joint, log_marginals, grad_joint, C);
}

#define FASTSSL_INSTANTIATE(acc)                                                                \
  template cudaError_t mutual_information(const acc*, acc*, acc*, acc*, int64_t, cudaStream_t); \
  template cudaError_t mutual_information_grad_joint(const acc*, acc*, acc*, int64_t, cudaStream_t);
FASTSSL_INSTANTIATE(float)
FASTSSL_INSTANTIATE(double)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cuda
