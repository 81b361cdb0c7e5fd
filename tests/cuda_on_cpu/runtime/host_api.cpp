// The calls of the CUDA runtime API that launchers make. A launcher that needs another one fails to
// load, with the name of the missing function.
#include <cuda_runtime_api.h>

#include <cstring>

#include "findings.h"
#include "host_api.h"
#include "memory.h"

namespace cuda_on_cpu {

int multiprocessors = 132;
Requests requests;

cudaError_t request(const void* caller) {
  ++requests.made;
  if (requests.refused == 0 || requests.made < requests.refused) return cudaSuccess;
  if (requests.made > requests.refused) {
    report_host(Kind::kLaunch, caller, "the launcher goes on although its request %d was refused",
                requests.refused);
  }
  return kRefusal;
}

namespace {

constexpr int kThreadsPerMultiprocessor = 2048;
constexpr int kBlocksPerMultiprocessor = 32;

// A range that a launcher fills or copies must lie in one array; memory near no array is the
// launcher's own, on the host.
cudaError_t check_range(const void* address, size_t bytes, Access access, const void* caller) {
  if (bytes == 0 || memory.nearest(address) == nullptr) return cudaSuccess;
  const char* verb = access == Access::kWrite ? "written" : "read";
  Buffer* buffer = memory.find(address, bytes);
  if (buffer == nullptr) {
    report_host(Kind::kOutOfBounds, caller, "%zu bytes %s at %s", bytes, verb,
                memory.describe(address).c_str());
    return cudaErrorInvalidValue;
  }
  if (access == Access::kWrite && !buffer->traits().writable) {
    report_host(Kind::kReadOnly, caller, "%zu bytes %s to %s, passed as const", bytes, verb,
                buffer->traits().name.c_str());
    return cudaErrorInvalidValue;
  }
  if (access == Access::kWrite) {
    buffer->mark_initialised(static_cast<const char*>(address), bytes);
  }
  return cudaSuccess;
}

}  // namespace
}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

extern "C" {

// Every launch reports at once, so that no error is ever pending.
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  cudaError_t status = request(__builtin_return_address(0));
  if (status == cudaSuccess)
    status = check_range(to, bytes, Access::kWrite, __builtin_return_address(0));
  if (status == cudaSuccess) std::memset(to, value, bytes);
  return status;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  cudaError_t status = request(__builtin_return_address(0));
  if (status == cudaSuccess)
    status = check_range(from, bytes, Access::kRead, __builtin_return_address(0));
  if (status == cudaSuccess)
    status = check_range(to, bytes, Access::kWrite, __builtin_return_address(0));
  if (status == cudaSuccess) std::memcpy(to, from, bytes);
  return status;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = multiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = int(kMaximumStaticSharedBytes);
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(kMaximumSharedBytes);
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute attribute, int value) {
  const bool too_much = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize &&
                        size_t(value) > kMaximumSharedBytes;
  return too_much ? cudaErrorInvalidValue : cudaSuccess;
}

// By threads and shared memory alone: registers are not known here.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads,
                                                          size_t shared_bytes) {
  *blocks = kThreadsPerMultiprocessor / threads;
  if (*blocks > kBlocksPerMultiprocessor) *blocks = kBlocksPerMultiprocessor;
  const size_t fitting = kMaximumSharedBytes / (shared_bytes + 1024);
  if (size_t(*blocks) > fitting) *blocks = int(fitting);
  return cudaSuccess;
}

}  // extern "C"
