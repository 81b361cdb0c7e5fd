// The g++ half of launch.cuh: FASTSSL_SHARED, SharedMemory and launch(), with nvcc's meaning.
#pragma once

#include <tuple>
#include <type_traits>

#include "runtime.h"

// The address of the key tells one declaration from another, and one instantiation of a template
// from the next, as it does for nvcc.
#define FASTSSL_SHARED(type, name, ...)                                        \
  typedef type name##_shared_type __VA_ARGS__;                                 \
  static const char name##_shared_key = 0;                                     \
  auto& name = *static_cast<name##_shared_type*>(cuda_on_cpu::shared_variable( \
      &name##_shared_key, #name, sizeof(name##_shared_type),                   \
      sizeof(std::remove_all_extents_t<name##_shared_type>), alignof(name##_shared_type)))

namespace fastssl::cuda {

// launch.cuh includes this file first and defines these two right after.
struct Launch;
template <class T>
constexpr size_t shared_bytes(size_t count);

class SharedMemory {
 public:
  template <class T>
  T* take(size_t count) {
    const size_t offset = offset_, padded_bytes = shared_bytes<T>(count);
    offset_ += padded_bytes;
    return static_cast<T*>(
        cuda_on_cpu::shared_piece(offset, count * sizeof(T), padded_bytes, sizeof(T)));
  }

 private:
  size_t offset_ = 0;
};

// A template of the shape only because Launch is not complete yet. Inlined, so that a finding about
// the launch has the launcher's line.
template <class Shape, class... Parameters>
__forceinline__ cudaError_t launch_on_fibers(void (*kernel)(Parameters...), const Shape& shape,
                                             std::tuple<Parameters...> arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return cudaSuccess;
  using Bound = std::pair<void (*)(Parameters...), std::tuple<Parameters...>>;
  const Bound bound(kernel, arguments);
  cuda_on_cpu::KernelCall call;
  call.kernel = reinterpret_cast<const void*>(kernel);
  call.run_thread = [](const void* opaque) {
    const Bound& bound = *static_cast<const Bound*>(opaque);
    std::apply(bound.first, bound.second);
  };
  call.arguments = &bound;
  call.arguments_bytes = sizeof bound;
  call.grid = shape.grid;
  call.block = shape.block;
  call.shared_bytes = shape.shared_bytes;
  return cuda_on_cpu::run_grid(call);
}

template <class... Parameters, class... Arguments>
__forceinline__ cudaError_t launch(void (*kernel)(Parameters...), const Launch& shape,
                                   Arguments... arguments) {
  return launch_on_fibers(kernel, shape,
                          std::tuple<Parameters...>(static_cast<Parameters>(arguments)...));
}

}  // namespace fastssl::cuda
