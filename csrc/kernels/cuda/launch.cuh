// The only way a kernel is launched, and the only file that knows which compiler reads the .cu:
// nvcc builds it for a GPU; g++ builds the very same source for the CPU checker
// (tests/cuda_on_cpu).
//
//   FASTSSL_SHARED(float, tile, [32][33]);     a static shared array
//   SharedMemory shared;                       dynamic shared memory, carved piece by piece:
//   float* rows = shared.take<float>(n);       16-byte aligned; size it with shared_bytes<float>(n)
//   launch(kernel, {grid, block, bytes, stream}, arguments...)  returns cudaSuccess or the error
#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda_on_cpu.h"
#endif

#include <cstddef>
#include <cstdint>

namespace fastssl::cuda {

struct Launch {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

constexpr int kWarp = 32;

// Bytes that `SharedMemory::take<T>(count)` uses up.
template <class T>
__host__ __device__ constexpr size_t shared_bytes(size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}

#ifdef __CUDACC__

#define FASTSSL_SHARED(type, name, ...) __shared__ type name __VA_ARGS__

class SharedMemory {
 public:
  __device__ SharedMemory() {
    extern __shared__ __align__(16) unsigned char fastssl_dynamic_shared[];
    next_ = fastssl_dynamic_shared;
  }
  template <class T>
  __device__ T* take(size_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += shared_bytes<T>(count);
    return piece;
  }

 private:
  unsigned char* next_;
};

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const Launch& shape, Arguments... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return cudaSuccess;
  // Static and dynamic shared memory together may pass the default of 48 KB only after an opt-in.
  if (shape.shared_bytes > 0) {
    const cudaError_t status =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, int(shape.shared_bytes));
    if (status != cudaSuccess) return status;
  }
  kernel<<<shape.grid, shape.block, shape.shared_bytes, shape.stream>>>(
      static_cast<Parameters>(arguments)...);
  return cudaGetLastError();
}

#endif  // for g++: cuda_on_cpu.h defines the same names

}  // namespace fastssl::cuda
