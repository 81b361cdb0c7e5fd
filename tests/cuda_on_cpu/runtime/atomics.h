// Atomic operations, for exactly the types CUDA has them for. Only one fiber runs at a time, so
// each is atomic already; atomic_access tells the checker so.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "runtime.h"

namespace cuda_on_cpu {

template <class T, class... Allowed>
using enable_for = std::enable_if_t<(std::is_same_v<T, Allowed> || ...), T>;

// The operand's type does not take part in deduction: atomicAdd(&floats[0], 1) is fine.
template <class T>
struct identity {
  using type = T;
};
template <class T>
using operand = typename identity<T>::type;

template <class T, class Update>
__forceinline__ T atomic_update(T* address, Update update) {
  atomic_access(address, sizeof(T));
  T old;
  copy_unchecked(&old, address, sizeof old);
  const T updated = update(old);
  copy_unchecked(address, &updated, sizeof updated);
  return old;
}

}  // namespace cuda_on_cpu

template <class T>
__forceinline__ auto atomicAdd(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, unsigned long long, float, double, __half, __half2,
                               __nv_bfloat16, __nv_bfloat162> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return T(old + value); });
}
template <class T>
__forceinline__ auto atomicSub(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return T(old - value); });
}
template <class T>
__forceinline__ auto atomicMax(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, long long, unsigned long long> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
__forceinline__ auto atomicMin(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, long long, unsigned long long> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
__forceinline__ auto atomicExch(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, unsigned long long, float> {
  return cuda_on_cpu::atomic_update(address, [=](T) { return value; });
}
template <class T>
__forceinline__ auto atomicCAS(T* address, cuda_on_cpu::operand<T> expected,
                               cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, unsigned long long, unsigned short> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return old == expected ? value : old; });
}
template <class T>
__forceinline__ auto atomicAnd(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, unsigned long long> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return old & value; });
}
template <class T>
__forceinline__ auto atomicOr(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, unsigned long long> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return old | value; });
}
template <class T>
__forceinline__ auto atomicXor(T* address, cuda_on_cpu::operand<T> value)
    -> cuda_on_cpu::enable_for<T, int, unsigned, unsigned long long> {
  return cuda_on_cpu::atomic_update(address, [=](T old) { return old ^ value; });
}
__forceinline__ unsigned atomicInc(unsigned* address, unsigned limit) {
  return cuda_on_cpu::atomic_update(address,
                                    [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
__forceinline__ unsigned atomicDec(unsigned* address, unsigned limit) {
  return cuda_on_cpu::atomic_update(
      address, [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}
