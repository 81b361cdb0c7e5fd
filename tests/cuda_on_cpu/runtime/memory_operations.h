// Loads and stores with a cache hint, and the memory functions of the C library.
#pragma once

#include <cstring>

#include "runtime.h"

// Calls of these would pass the checker by, so they get other symbols, which runtime/hooks.cpp
// defines. (The copies of structs that g++ writes itself are announced by -fsanitize=thread.)
extern "C" {
void* memcpy(void* to, const void* from, size_t bytes) noexcept __asm__("cuda_on_cpu_memcpy");
void* memmove(void* to, const void* from, size_t bytes) noexcept __asm__("cuda_on_cpu_memmove");
void* memset(void* to, int value, size_t bytes) noexcept __asm__("cuda_on_cpu_memset");
}

// The read-only cache: nobody may have written there in this launch.
template <class T>
__forceinline__ T __ldg(const T* address) {
  cuda_on_cpu::read_only_load(address, sizeof(T));
  return *address;
}

template <class T>
__forceinline__ T __ldca(const T* address) {
  return *address;
}
template <class T>
__forceinline__ T __ldcg(const T* address) {
  return *address;
}
template <class T>
__forceinline__ T __ldcs(const T* address) {
  return *address;
}
template <class T>
__forceinline__ void __stcg(T* address, T value) {
  *address = value;
}
template <class T>
__forceinline__ void __stcs(T* address, T value) {
  *address = value;
}
template <class T>
__forceinline__ void __stwt(T* address, T value) {
  *address = value;
}
