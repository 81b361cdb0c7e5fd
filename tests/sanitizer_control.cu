// One bug for each tool of compute-sanitizer that on_gpu.sh uses, which the tool must find before
// its silence about the project's kernels means anything. Called like those, so that the filter on
// kernel names is tried too.
#include <cuda_runtime.h>

#include <cstring>

namespace fastssl {

__global__ void write_behind_the_end(float* one) { one[1 + threadIdx.x] = 0; }

__global__ void read_without_barrier(float* sums) {
  __shared__ float values[64];
  values[threadIdx.x] = float(threadIdx.x);
  sums[threadIdx.x] = values[63 - threadIdx.x];
}

}  // namespace fastssl

int main(int count, char** arguments) {
  float* memory = nullptr;
  if (count != 2 || cudaMalloc(&memory, 64 * sizeof(float)) != cudaSuccess) return 1;
  if (std::strcmp(arguments[1], "memcheck") == 0) {
    fastssl::write_behind_the_end<<<1, 1>>>(memory + 63);
  } else {
    fastssl::read_without_barrier<<<1, 64>>>(memory);
  }
  return cudaDeviceSynchronize() == cudaSuccess ? 0 : 1;
}
