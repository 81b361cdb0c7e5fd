// A plant is a kernel (or a launcher) with one bug: the kind of finding it must give, its name and
// how it is launched stand above it, and the lines the finding may point to are marked with BUG.
// test_checker.py reads all of that from the source.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "runtime/bind.h"

#define PLANT_PARAMETERS \
  const float *input /*[n]*/, float *output /*[n]*/, unsigned *counters /*[8]*/, int n

// After the shape of the launch comes the kernel's body.
#define PLANT(kind, name, grid, block, shared_bytes)                                           \
  __global__ void name(PLANT_PARAMETERS);                                                      \
  BIND(                                                                                        \
      #name, "input, output, counters, n", +[](PLANT_PARAMETERS, cudaStream_t stream) {        \
        return fastssl::cuda::launch(name, {grid, block, shared_bytes, stream}, input, output, \
                                     counters, n);                                             \
      });                                                                                      \
  __global__ void name([[maybe_unused]] const float* input, [[maybe_unused]] float* output,    \
                       [[maybe_unused]] unsigned* counters, [[maybe_unused]] int n)

// The bug is in the launcher, whose body follows.
#define LAUNCHER_PLANT(kind, name)                                                      \
  cudaError_t name(PLANT_PARAMETERS, cudaStream_t stream);                              \
  BIND(#name, "input, output, counters, n", name);                                      \
  cudaError_t name([[maybe_unused]] const float* input, [[maybe_unused]] float* output, \
                   [[maybe_unused]] unsigned* counters, [[maybe_unused]] int n,         \
                   [[maybe_unused]] cudaStream_t stream)
