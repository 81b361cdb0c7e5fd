// Barriers, warp operations and launches that cannot work.
#include "plant.h"

namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

// ---- barriers -----------------------------------------------------------------------------------
PLANT("divergent barrier", barrier_in_conditional, 1, 64, 0) {
  if (threadIdx.x < 40) __syncthreads();  // BUG
  output[threadIdx.x] = 0;
}

PLANT("divergent barrier", barrier_after_exit, 1, 64, 0) {
  if (threadIdx.x >= 32) return;
  __syncthreads();  // BUG
  output[threadIdx.x] = 0;
}

PLANT("divergent barrier", barrier_in_uneven_loop, 1, 64, 0) {
  for (int i = threadIdx.x; i < n - 10; i += 64) {
    output[i] = input[i];
    __syncthreads();  // BUG
  }
}

PLANT("divergent barrier", barriers_in_both_branches, 1, 64, 0) {
  if (threadIdx.x < 32) {
    __syncthreads();  // BUG
  } else {
    __syncthreads();  // BUG
  }
}

PLANT("divergent barrier", counting_barrier_in_conditional, 1, 64, 0) {
  if (threadIdx.x % 2 == 0) {
    output[threadIdx.x] = float(__syncthreads_count(1));  // BUG
  }
}

// ---- warp operations ----------------------------------------------------------------------------
PLANT("warp mask", mask_without_caller, 1, 32, 0) {
  output[threadIdx.x] = __shfl_sync(0xffffu, input[threadIdx.x], 0);  // BUG
}

PLANT("warp mask", mask_names_exited_lane, 1, 32, 0) {
  if (threadIdx.x >= 20) return;
  output[threadIdx.x] = __shfl_sync(kAllLanes, input[threadIdx.x], 0);  // BUG
}

PLANT("warp mask", mask_names_missing_lane, 1, 48, 0) {
  output[threadIdx.x] = __shfl_xor_sync(kAllLanes, input[threadIdx.x], 1);  // BUG
}

PLANT("warp mask", mask_misses_half_a_reduction, 1, 32, 0) {
  float sum = input[threadIdx.x];
  if (threadIdx.x < 16) sum += __shfl_down_sync(0xffffu, sum, 16);  // BUG
  output[threadIdx.x] = sum;
}

PLANT("warp mask", masks_disagree, 1, 32, 0) {
  const unsigned mask = threadIdx.x < 16 ? kAllLanes : 0xffff0000u;
  output[threadIdx.x] = __shfl_sync(mask, input[threadIdx.x], 31);  // BUG
}

PLANT("warp mask", operations_disagree, 1, 32, 0) {
  float value = 0;
  if (threadIdx.x < 16) {
    value = __shfl_sync(kAllLanes, 1.0f, 31);  // BUG
  } else {
    __syncwarp();  // BUG
  }
  output[threadIdx.x] = value;
}

PLANT("warp mask", shuffle_in_a_divergent_loop, 1, 32, 0) {
  float sum = 0;
  for (unsigned i = threadIdx.x; i < 40; i += 32) {
    sum += __shfl_xor_sync(kAllLanes, input[i], 1);  // BUG
  }
  output[threadIdx.x] = sum;
}

// ---- deadlocks ----------------------------------------------------------------------------------
PLANT("deadlock", warp_waits_for_barrier, 1, 32, 0) {
  if (threadIdx.x == 7) {
    __syncthreads();  // BUG
  } else {
    __syncwarp();  // BUG
  }
}

// Each passes on what the other has passed on.
PLANT("deadlock", threads_wait_in_turn, 1, 2, 0) {
  const unsigned other = 1 - threadIdx.x;
  while (atomicAdd(&counters[other], 0u) == 0) continue;  // BUG
  atomicExch(&counters[threadIdx.x], 1u);
}

// ---- launches -----------------------------------------------------------------------------------
PLANT("launch", static_shared_memory_too_large, 1, 32, 0) {
  FASTSSL_SHARED(float, row, [13 * 1024]);  // BUG
  row[threadIdx.x] = 0;
  output[threadIdx.x] = row[threadIdx.x];
}

PLANT("launch", all_shared_memory_too_large, 1, 32, 226 * 1024) {
  FASTSSL_SHARED(float, row, [1024]);  // BUG
  row[threadIdx.x] = 0;
  output[threadIdx.x] = row[threadIdx.x];
}

__global__ void nothing() {}

LAUNCHER_PLANT("launch", block_too_large) {
  return fastssl::cuda::launch(nothing, {1, 1025, 0, stream});  // BUG
}

LAUNCHER_PLANT("launch", block_empty) {
  return fastssl::cuda::launch(nothing, {1, 0, 0, stream});  // BUG
}

LAUNCHER_PLANT("launch", block_too_deep) {
  return fastssl::cuda::launch(nothing, {1, dim3(1, 1, 65), 0, stream});  // BUG
}

LAUNCHER_PLANT("launch", grid_too_high) {
  return fastssl::cuda::launch(nothing, {dim3(1, 65536), 32, 0, stream});  // BUG
}

LAUNCHER_PLANT("launch", shared_memory_too_large) {
  return fastssl::cuda::launch(nothing, {1, 32, 227 * 1024 + 1, stream});  // BUG
}

LAUNCHER_PLANT("launch", error_ignored) {
  fastssl::cuda::launch(nothing, {1, 2048, 0, stream});  // BUG
  return cudaSuccess;
}

LAUNCHER_PLANT("launch", error_returned) { return cudaErrorInvalidValue; }

LAUNCHER_PLANT("launch", goes_on_after_a_refusal) {
  const cudaError_t status = fastssl::cuda::launch(nothing, {1, 32, 0, stream});
  const cudaError_t later = fastssl::cuda::launch(nothing, {1, 32, 0, stream});  // BUG
  return status != cudaSuccess ? status : later;
}

LAUNCHER_PLANT("launch", refusal_ignored) {
  fastssl::cuda::launch(nothing, {1, 32, 0, stream});
  return cudaSuccess;
}

LAUNCHER_PLANT("launch", refused_fill_ignored) {
  cudaMemsetAsync(output, 0, n * sizeof(float), stream);
  return cudaSuccess;
}

}  // namespace
