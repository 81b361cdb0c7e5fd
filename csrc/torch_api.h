// The one header that names torch's stable ABI. Everything an op needs from torch is here: Tensor,
// the checks that memory safety asks for, dtype dispatch, the current stream and the device guard.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <array>
#include <cstdint>
#include <optional>
#include <tuple>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
// Lives in libtorch_cuda: weak, so that one extension serves CPU-only and CUDA builds of torch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);
#endif

#include "kernels/cpu/float_types.h"

namespace fastssl {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace aten = torch::stable;  // the ATen ops of the stable ABI

#define FASTSSL_CHECK(condition, ...) STD_TORCH_CHECK(condition, __VA_ARGS__)

// The C++ type a kernel sees for each dtype of torch's.
struct CpuTypes {
  using half = cpu::Half;
  using bfloat16 = cpu::BFloat16;
};
#ifdef FASTSSL_WITH_CUDA
struct CudaTypes {
  using half = __half;
  using bfloat16 = __nv_bfloat16;
};
#endif

// Calls body.operator()<scalar_t>() for the dtype of `tensor`.
template <class Types, class Body>
void dispatch_floats(const Tensor& tensor, const char* op, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return body.template operator()<float>();
    case ScalarType::Double:
      return body.template operator()<double>();
    case ScalarType::Half:
      return body.template operator()<typename Types::half>();
    case ScalarType::BFloat16:
      return body.template operator()<typename Types::bfloat16>();
    default:
      FASTSSL_CHECK(false, op, ": expected float32, float64, float16 or bfloat16");
  }
}

// The accumulation dtype: float64 for float64, else float32.
inline ScalarType accumulator_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// For aten::contiguous, new_empty and empty_like, which look their op up by its name on every call:
// for a dozen small tensors that costs as much as a kernel.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : aten::contiguous(tensor);
}
inline Tensor allocate_strided(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                               torch::headeronly::IntHeaderOnlyArrayRef strides,
                               std::optional<ScalarType> dtype = std::nullopt) {
  int32_t device_type, device_index, type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &type));
  if (dtype) type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(*dtype));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(sizes.size(), sizes.data(), strides.data(), type,
                                                  device_type, device_index, &handle));
  return Tensor(handle);
}
inline Tensor allocate(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                       std::optional<ScalarType> dtype = std::nullopt) {
  constexpr size_t kMostDimensions = 8;
  FASTSSL_CHECK(sizes.size() <= kMostDimensions, "a tensor of too many dimensions");
  int64_t strides[kMostDimensions], stride = 1;
  for (size_t d = sizes.size(); d-- > 0; stride *= sizes[d]) strides[d] = stride;
  return allocate_strided(like, sizes, {strides, sizes.size()}, dtype);
}
inline Tensor allocate_like(const Tensor& like) { return allocate(like, like.sizes()); }

// a [M, K] times b [K, N] by the BLAS behind torch. Into a tensor given beforehand, since autocast
// would turn a plain product of float32 into one of 16 bits.
inline Tensor product(const Tensor& a, const Tensor& b) {
  const Tensor result = allocate(a, {a.size(0), b.size(1)});
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(result)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Typed pointers without the stable API's own type check, which does not know the kernels' 16-bit
// types.
template <class T>
const T* pointer(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* mutable_pointer(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

#ifdef FASTSSL_WITH_CUDA
inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline void check_launch(cudaError_t status, const char* op) {
  FASTSSL_CHECK(status == cudaSuccess, op, ": ", cudaGetErrorString(status));
}
#endif

}  // namespace fastssl
