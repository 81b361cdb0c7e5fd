// Accesses that nothing orders.
#include "plant.h"

namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

// Whoever reads before the writer ran finds nothing written at all.
PLANT("race or uninitialised read", missing_barrier, 1, 64, 0) {
  FASTSSL_SHARED(float, row, [64]);
  row[threadIdx.x] = input[threadIdx.x];        // BUG
  output[threadIdx.x] = row[63 - threadIdx.x];  // BUG
}

PLANT("race", missing_trailing_barrier, 1, 64, 0) {
  FASTSSL_SHARED(float, first, [1]);
  for (int i = 0; i < 3; ++i) {
    if (threadIdx.x == 40) first[0] = input[i];  // BUG: while others still read the last one
    __syncthreads();
    output[threadIdx.x] = first[0];  // BUG
  }
}

PLANT("race", missing_barrier_between_buffers, 1, 64, 0) {
  FASTSSL_SHARED(float, tile, [2][64]);
  tile[0][threadIdx.x] = tile[1][threadIdx.x] = 0;
  __syncthreads();
  for (int i = 0; i < 4; ++i) {
    const int use = i % 2;
    tile[use][threadIdx.x] = input[threadIdx.x];        // BUG
    if (i % 2 == 0) __syncthreads();                    // every second barrier is missing
    output[threadIdx.x] = tile[use][63 - threadIdx.x];  // BUG
  }
}

PLANT("race", missing_syncwarp, 2, 32, 0) {
  FASTSSL_SHARED(float, row, [32]);
  row[threadIdx.x] = 0;
  __syncwarp();
  row[threadIdx.x] = input[threadIdx.x];                          // BUG
  output[blockIdx.x * 32 + threadIdx.x] = row[31 - threadIdx.x];  // BUG
}

PLANT("race", shuffle_as_fence, 1, 32, 0) {
  FASTSSL_SHARED(float, row, [32]);
  row[threadIdx.x] = input[threadIdx.x];  // BUG
  const float own = __shfl_sync(kAllLanes, input[threadIdx.x], threadIdx.x);
  output[threadIdx.x] = own + row[31 - threadIdx.x];  // BUG
}

PLANT("race", vote_as_fence, 1, 32, 0) {
  FASTSSL_SHARED(float, row, [32]);
  row[threadIdx.x] = input[threadIdx.x];                                      // BUG
  if (__any_sync(kAllLanes, 1)) output[threadIdx.x] = row[31 - threadIdx.x];  // BUG
}

PLANT("race", half_a_syncwarp, 1, 32, 0) {
  FASTSSL_SHARED(float, row, [32]);
  row[threadIdx.x] = 0;
  __syncwarp();
  row[threadIdx.x] = input[threadIdx.x];  // BUG
  const unsigned half = threadIdx.x < 16 ? 0xffffu : 0xffff0000u;
  __syncwarp(half);
  output[threadIdx.x] = row[31 - threadIdx.x];  // BUG: the other half's
}

PLANT("race", reader_among_many, 1, 128, 0) {
  FASTSSL_SHARED(float, row, [1]);
  if (threadIdx.x == 0) row[0] = input[0];
  __syncthreads();
  output[threadIdx.x] = row[0];              // BUG: every thread reads
  if (threadIdx.x == 77) row[0] = input[1];  // BUG
}

PLANT("race", same_value_written, 1, 64, 0) {
  FASTSSL_SHARED(int, any_negative, [1]);
  any_negative[0] = 0;  // BUG: a race even if all write 0
  __syncthreads();
  output[threadIdx.x] = float(any_negative[0]);
}

PLANT("race", plain_sum_across_blocks, 4, 32, 0) {
  if (threadIdx.x == 0) counters[0] += 1;  // BUG: atomicAdd
}

PLANT("race", two_blocks_one_element, 2, 64, 0) {
  output[threadIdx.x] = input[threadIdx.x];  // BUG: the block's index is missing
}

PLANT("race", plain_read_beside_atomics, 1, 64, 0) {
  atomicAdd(&counters[0], 1u);               // BUG
  output[threadIdx.x] = float(counters[0]);  // BUG: barrier missing before it
}

PLANT("race", plain_write_beside_atomics, 1, 64, 0) {
  if (threadIdx.x == 33) counters[0] = 5;  // BUG
  atomicAdd(&counters[0], 1u);             // BUG
}

PLANT("race", overlapping_vector_stores, 1, 16, 0) {
  const float4 four = make_float4(1, 2, 3, 4);
  if (threadIdx.x % 2 == 0) reinterpret_cast<float4*>(output)[threadIdx.x] = four;  // BUG
  if (threadIdx.x % 2 == 1) output[4 * threadIdx.x - 2] = 0;                        // BUG
}

PLANT("race", load_through_read_only_cache, 1, 64, 0) {
  output[threadIdx.x] = input[threadIdx.x];
  __syncthreads();
  atomicAdd(&counters[0], unsigned(__ldg(&output[63 - threadIdx.x])));  // BUG
}

// The last block to take a ticket sums what the others wrote.
__device__ void sum_parts(const unsigned* ticket, float* output) {
  if (*ticket != gridDim.x - 1) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) sum += output[block];
  output[64] = sum;
}

PLANT("race", last_block_without_fence, 4, 32, 0) {
  FASTSSL_SHARED(unsigned, ticket, [1]);
  if (threadIdx.x == 0) {
    output[blockIdx.x] = input[blockIdx.x];  // BUG
    ticket[0] = atomicInc(&counters[0], gridDim.x - 1);
    sum_parts(ticket, output);  // BUG
  }
}

PLANT("race", last_block_fences_too_early, 4, 32, 0) {
  FASTSSL_SHARED(unsigned, ticket, [1]);
  if (threadIdx.x == 0) {
    __threadfence();
    output[blockIdx.x] = input[blockIdx.x];  // BUG
    ticket[0] = atomicInc(&counters[0], gridDim.x - 1);
    sum_parts(ticket, output);  // BUG
  }
}

PLANT("race", last_block_fences_its_block_only, 4, 32, 0) {
  FASTSSL_SHARED(unsigned, ticket, [1]);
  if (threadIdx.x == 0) {
    output[blockIdx.x] = input[blockIdx.x];  // BUG
    __threadfence_block();
    ticket[0] = atomicInc(&counters[0], gridDim.x - 1);
    sum_parts(ticket, output);  // BUG
  }
}

PLANT("race", last_block_sums_others_threads, 4, 64, 0) {
  FASTSSL_SHARED(unsigned, ticket, [1]);
  if (threadIdx.x == 33) output[blockIdx.x] = input[blockIdx.x];  // BUG: before no fence
  if (threadIdx.x == 0) {
    __threadfence();
    ticket[0] = atomicInc(&counters[0], gridDim.x - 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) sum_parts(ticket, output);  // BUG
}

}  // namespace
