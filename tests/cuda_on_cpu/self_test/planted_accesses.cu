// Accesses that are wrong by themselves: out of bounds, uninitialised, misaligned.
#include <cstring>

#include "plant.h"

namespace {

using fastssl::cuda::shared_bytes;
using fastssl::cuda::SharedMemory;

__constant__ float table[4] = {1, 2, 3, 4};

struct Sixteen {
  float values[16];
};

// ---- out of bounds ------------------------------------------------------------------------------
PLANT("out of bounds", read_past_input, 2, 64, 0) {
  const int i = blockIdx.x * 64 + threadIdx.x;
  output[i] = input[i + 1];  // BUG
}

PLANT("out of bounds", read_before_input, 2, 64, 0) {
  const int i = blockIdx.x * 64 + threadIdx.x;
  output[i] = input[i - 1];  // BUG
}

PLANT("out of bounds", missing_guard, 3, 64, 0) {
  const int i = blockIdx.x * 64 + threadIdx.x;
  output[i] = 1;  // BUG
}

PLANT("out of bounds", far_past_output, 1, 1, 0) {
  output[100000] = 1;  // BUG
}

PLANT("out of bounds", atomic_past_counters, 1, 9, 0) {
  atomicAdd(&counters[threadIdx.x], 1u);  // BUG
}

PLANT("out of bounds", vector_load_over_the_end, 1, 1, 0) {
  const float4* wide = reinterpret_cast<const float4*>(input + n - 4);
  const float2 last = *reinterpret_cast<const float2*>(wide + 1);  // BUG
  output[0] = last.x;
}

PLANT("out of bounds", shared_overrun, 1, 64, 0) {
  FASTSSL_SHARED(float, row, [64]);
  row[threadIdx.x + 1] = input[threadIdx.x];  // BUG
}

PLANT("out of bounds", shared_overrun_by_pointer, 1, 64, 0) {
  FASTSSL_SHARED(float, row, [64]);
  float* next = row + 1;
  next[threadIdx.x] = input[threadIdx.x];  // BUG
}

PLANT("out of bounds", shared_row_overrun, 1, 64, 0) {
  FASTSSL_SHARED(float, tile, [2][32]);
  tile[0][threadIdx.x] = input[threadIdx.x];  // BUG: within the array, past its row
}

PLANT("out of bounds", carved_overrun, 1, 65, 2 * shared_bytes<float>(64)) {
  SharedMemory shared;
  float* first = shared.take<float>(64);
  float* second = shared.take<float>(64);
  first[threadIdx.x] = input[threadIdx.x];  // BUG: thread 64 writes to second[0]
  if (threadIdx.x < 64) second[threadIdx.x] = 0;
}

PLANT("out of bounds", carved_padding_overrun, 1, 4, shared_bytes<float>(3)) {
  SharedMemory shared;
  float* three = shared.take<float>(3);
  three[threadIdx.x] = input[threadIdx.x];  // BUG
}

PLANT("out of bounds", carved_more_than_launched, 1, 64, 64 * sizeof(float)) {
  SharedMemory shared;
  float* first = shared.take<float>(63);
  float* second = shared.take<float>(4);  // BUG
  first[0] = second[0] = 0;
}

PLANT("out of bounds", shared_memory_not_launched, 1, 64, 0) {
  SharedMemory shared;
  float* row = shared.take<float>(64);  // BUG
  row[threadIdx.x] = 0;
}

PLANT("out of bounds", memset_overrun, 1, 1, shared_bytes<float>(8)) {
  SharedMemory shared;
  float* row = shared.take<float>(8);
  memset(row, 0, (8 + (n > 0)) * sizeof(float));  // BUG
  output[0] = row[0];
}

PLANT("out of bounds", memcpy_overrun, 1, 1, 0) {
  std::memcpy(output, input, (n + 1) * sizeof(float));  // BUG
}

PLANT("out of bounds", struct_copy_overrun, 1, 9, 0) {
  const Sixteen copy = reinterpret_cast<const Sixteen*>(input)[threadIdx.x];  // BUG
  output[threadIdx.x] = copy.values[n % 16];
}

PLANT("out of bounds", constant_index, 1, 8, 0) {
  output[threadIdx.x] = table[threadIdx.x];  // BUG
}

PLANT("out of bounds", local_index, 1, 8, 0) {
  float local[4] = {};
  for (int i = 0; i <= 4; ++i) local[i] += input[i];  // BUG
  output[threadIdx.x] = local[0] + local[3];
}

PLANT("out of bounds", null_pointer, 1, 1, 0) {
  const float* nothing = n > 0 ? nullptr : input;
  output[0] = *nothing;  // BUG
}

PLANT("out of bounds", local_of_another_thread, 1, 2, 0) {
  FASTSSL_SHARED(float*, pointers, [2]);
  float local = input[threadIdx.x];
  pointers[threadIdx.x] = &local;
  __syncthreads();
  output[threadIdx.x] = *pointers[1 - threadIdx.x];  // BUG
}

LAUNCHER_PLANT("out of bounds", host_memset_overrun) {
  return cudaMemsetAsync(output, 0, (n + 1) * sizeof(float), stream);  // BUG
}

// ---- read-only memory ---------------------------------------------------------------------------
PLANT("read-only memory", write_to_input, 1, 64, 0) {
  const_cast<float*>(input)[threadIdx.x] = 0;  // BUG
}

PLANT("read-only memory", write_to_constant, 1, 1, 0) {
  table[n % 4] = 0;  // BUG
}

// ---- uninitialised reads ------------------------------------------------------------------------
PLANT("uninitialised read", accumulates_into_output, 1, 64, 0) {
  output[threadIdx.x] += input[threadIdx.x];  // BUG
}

PLANT("uninitialised read", atomic_into_output, 1, 64, 0) {
  atomicAdd(&output[0], input[threadIdx.x]);  // BUG: no memset
}

PLANT("uninitialised read", shared_never_cleared, 1, 64, 0) {
  FASTSSL_SHARED(float, sums, [64]);
  sums[threadIdx.x] += input[threadIdx.x];  // BUG
}

PLANT("uninitialised read", carved_never_cleared, 1, 64, shared_bytes<float>(64)) {
  SharedMemory shared;
  float* sums = shared.take<float>(64);
  sums[threadIdx.x] += input[threadIdx.x];  // BUG
}

PLANT("uninitialised read", shared_of_an_earlier_block, 2, 64, 0) {
  FASTSSL_SHARED(float, row, [64]);
  if (blockIdx.x == 0) row[threadIdx.x] = input[threadIdx.x];
  output[blockIdx.x * 64 + threadIdx.x] = row[threadIdx.x];  // BUG
}

PLANT("uninitialised read", vector_load_half_written, 1, 1, shared_bytes<float>(4)) {
  SharedMemory shared;
  float* row = shared.take<float>(4);
  row[0] = row[1] = input[0];
  *reinterpret_cast<float4*>(output) = *reinterpret_cast<const float4*>(row);  // BUG
}

// ---- misaligned accesses ------------------------------------------------------------------------
PLANT("misaligned access", misaligned_vector_load, 1, 8, 0) {
  const float4 four = reinterpret_cast<const float4*>(input + 1)[threadIdx.x];  // BUG
  output[threadIdx.x] = four.x;
}

PLANT("misaligned access", misaligned_shared_vector, 1, 8, 0) {
  FASTSSL_SHARED(float, row, [32]);
  reinterpret_cast<float4*>(row)[threadIdx.x] = make_float4(1, 2, 3, 4);  // BUG: __align__(16)
}

PLANT("misaligned access", misaligned_atomic, 1, 1, 0) {
  auto* wide = reinterpret_cast<unsigned long long*>(counters + 1);
  atomicAdd(wide, 1ull);  // BUG
}

// ---- others -------------------------------------------------------------------------------------
PLANT("shared memory layout", more_asked_than_carved, 1, 64, 1024) {
  float* values = SharedMemory().take<float>(252);
  values[threadIdx.x] = input[threadIdx.x];
  output[threadIdx.x] = values[threadIdx.x];
}

PLANT("shared memory layout", threads_carve_differently, 1, 64, 1024) {
  SharedMemory shared;
  float* row = shared.take<float>(threadIdx.x == 40 ? 8 : 64);  // BUG
  if (row == nullptr) output[0] = 0;
}

PLANT("division by zero", division_by_zero, 1, 2, 0) {
  output[threadIdx.x] = float(n / int(threadIdx.x));  // BUG
}

}  // namespace
