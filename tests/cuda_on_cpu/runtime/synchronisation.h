// Barriers, shuffles, votes and fences. Only barriers and fences order memory.
#pragma once

#include <type_traits>

#include "runtime.h"

namespace cuda_on_cpu {

template <class T>
__forceinline__ uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8,
                "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
__forceinline__ T from_bits(uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// `width` cuts the warp into segments; a source outside the caller's segment means the caller
// itself.
template <class T>
__forceinline__ T shuffle_from(unsigned mask, T value, int source, bool in_segment, Site site) {
  const unsigned source_lane = in_segment ? unsigned(source) : lane();
  return from_bits<T>(shuffle(mask, to_bits(value), source_lane, site));
}

}  // namespace cuda_on_cpu

// The last parameter of each is the caller's place in the source; kernels leave it out.
__forceinline__ void __syncthreads(cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::block_barrier(false, site);
}
__forceinline__ int __syncthreads_count(int predicate,
                                        cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::block_barrier(predicate != 0, site);
}
__forceinline__ int __syncthreads_or(int predicate,
                                     cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::block_barrier(predicate != 0, site) > 0;
}
__forceinline__ int __syncthreads_and(int predicate,
                                      cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::block_barrier(predicate == 0, site) == 0;
}

__forceinline__ void __syncwarp(unsigned mask = ~0u,
                                cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::warp_barrier(mask, site);
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate,
                                       cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::ballot(mask, predicate != 0, site);
}
__forceinline__ int __any_sync(unsigned mask, int predicate,
                               cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::ballot(mask, predicate != 0, site) != 0;
}
__forceinline__ int __all_sync(unsigned mask, int predicate,
                               cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::ballot(mask, predicate != 0, site) == mask;
}
// Its value depends on how the hardware happened to schedule the warp.
unsigned __activemask() = delete;

template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                              cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int first = int(cuda_on_cpu::lane()) & -width;
  return cuda_on_cpu::shuffle_from(mask, value, first | (source & (width - 1)), true, site);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int lane = int(cuda_on_cpu::lane()), source = lane - int(delta);
  return cuda_on_cpu::shuffle_from(mask, value, source, source >= (lane & -width), site);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                   cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int lane = int(cuda_on_cpu::lane()), source = lane + int(delta);
  return cuda_on_cpu::shuffle_from(mask, value, source, source <= (lane | (width - 1)), site);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                                  cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int lane = int(cuda_on_cpu::lane()), source = lane ^ lane_mask;
  return cuda_on_cpu::shuffle_from(mask, value, source, source <= (lane | (width - 1)), site);
}

__forceinline__ void __threadfence() { cuda_on_cpu::fence(cuda_on_cpu::Scope::kDevice); }
__forceinline__ void __threadfence_block() { cuda_on_cpu::fence(cuda_on_cpu::Scope::kBlock); }
__forceinline__ void __threadfence_system() { cuda_on_cpu::fence(cuda_on_cpu::Scope::kDevice); }
