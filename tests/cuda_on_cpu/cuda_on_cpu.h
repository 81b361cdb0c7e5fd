// CUDA on the CPU: builds the project's .cu files with g++, unchanged, and runs them under a
// checker.
//
// How it works. Types (dim3, float4, __half, cudaStream_t) come from the real CUDA headers in host
// mode; the files of runtime/ add the device side. Every CUDA thread is a fiber: it runs until it
// exits or waits at a barrier or a warp operation, then another one runs, in forward, reverse or
// shuffled order. Blocks run one after another. The .cu files are compiled with
// -fsanitize=thread,alignment,bounds but without libtsan and libubsan: the calls those options
// insert at each memory access land in runtime/hooks.cpp, so the checker sees blocks, warps and
// barriers where the stock libraries would see one thread. A finding ends the launch and becomes a
// Python exception with kernel, block, thread, file and line (checker.py).
//
// What it finds.
// - Races within a warp, within a block and between blocks, by happens-before: __syncthreads orders
//   a block, __syncwarp the lanes of its mask, and a __threadfence followed by an atomic orders
//   whoever does an atomic on the same address later. Shuffles and votes order nothing. Atomics do
//   not race each other. Two plain writes race even if they write the same value.
// - Accesses out of bounds: of an array, of a static shared array, of a row of either, of one piece
//   of dynamic shared memory (SharedMemory::take), memcpy and memset included. Writes to arrays
//   passed as const.
// - Uninitialised reads of outputs and of shared memory, byte by byte.
// - Misaligned accesses, by the alignment of the type. A static shared float array is placed at an
//   address that is no multiple of 8, so that a float4 in it needs __align__(16).
// - Divergent barriers, exited threads at a barrier, wrong warp masks, shuffles from lanes outside
//   the mask, deadlocks and endless waits.
// - Blocks, grids and shared memory beyond the limits of compute capability 9.0; division by zero.
//
// What it does not model: cp.async, TMA, wgmma, mbarrier, inline PTX, CUB, cooperative groups,
// several streams, __launch_bounds__, bank conflicts, the accuracy of __expf and friends, time. Of
// three or more concurrent readers two are remembered, so a race with another one alone can be
// missed. Indices of local arrays are checked, arithmetic on pointers to them is not.
//
// Rules for kernel authors.
// - Launch with launch(); declare shared memory with FASTSSL_SHARED or SharedMemory (launch.cuh).
// - Whole warps may return early before warp operations, but nobody before a __syncthreads.
// - A mask names exactly the lanes that arrive: take it from __ballot_sync, never __activemask.
// - All threads carve dynamic shared memory alike, and a kernel carves it once.
// - Neither blocks nor threads wait for each other in a loop.
#pragma once

#if !defined(__x86_64__) || !defined(__linux__) || !defined(__GNUC__) || defined(__clang__)
#error "CUDA on the CPU switches stacks and reads sanitiser hooks as g++ on x86-64 Linux does"
#endif

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <vector_functions.h>

// What nvcc reads as keywords and g++ must not see.
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __shared__
#define __shared__ shared_memory_is_declared_with_FASTSSL_SHARED

#include "runtime/arithmetic.h"
#include "runtime/atomics.h"
#include "runtime/host_templates.h"
#include "runtime/launching.h"
#include "runtime/memory_operations.h"
#include "runtime/synchronisation.h"

#define threadIdx (cuda_on_cpu::thread_index())
#define blockIdx (cuda_on_cpu::block_index())
#define blockDim (cuda_on_cpu::block_shape())
#define gridDim (cuda_on_cpu::grid_shape())
constexpr int warpSize = 32;
