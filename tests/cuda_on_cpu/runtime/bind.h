// Makes launchers callable from Python. A bindings file is one line per launcher:
//
//   BIND_FLOATING("joint_distribution", "logits_a, logits_b, joint, N, C, V",
//                 fastssl::cuda::joint_distribution<scalar_t, acc_t>);
//   BIND("segment_sum_int64", "values, segments, sums, N", fastssl::cuda::segment_sum<int64_t>);
//
//   BIND("partials_count", "count, N", +[](int64_t* count, int64_t N, cudaStream_t) {
//     *count = fastssl::cuda::partials_count(N);  // a host function that gives a number
//     return cudaSuccess;
//   });
//
// The names are the launcher's parameters in order, without the stream; they appear in findings.
// BIND_FLOATING binds joint_distribution_float32, _float64, _float16 and _bfloat16, with acc_t
// double for float64 and float for the others. In Python (checker.py) a pointer parameter is a
// NumPy array or None, and any other a number; an array behind a pointer to const is read-only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <driver_types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace cuda_on_cpu {

struct Parameter {
  std::string name;
  std::string type;  // as NumPy calls it, or "bfloat16"; of the element, for a pointer
  bool is_pointer;
  bool is_const;
};

union Argument {
  void* pointer;
  int64_t integer;
  double real;
};

struct Launcher {
  std::string name;
  std::vector<Parameter> parameters;
  std::function<cudaError_t(const Argument*)> call;
  int most_requests = 0;  // of one call; host_api.h
};

std::vector<Launcher>& launchers();  // all that are bound

template <class T>
std::string type_name() {
  if constexpr (std::is_same_v<T, bool>) {
    return "bool";
  } else if constexpr (std::is_same_v<T, __half>) {
    return "float16";
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return "bfloat16";
  } else if constexpr (std::is_void_v<T>) {
    return "uint8";
  } else {
    static_assert(std::is_arithmetic_v<T>, "a launcher takes arrays of numbers, and numbers");
    const char* family = std::is_floating_point_v<T> ? "float"
                         : std::is_signed_v<T>       ? "int"
                                                     : "uint";
    return family + std::to_string(8 * sizeof(T));
  }
}

// How one parameter of type T is described, and taken out of an Argument.
template <class T>
struct ParameterOf {
  static Parameter describe(std::string name) {
    return {std::move(name), type_name<T>(), false, false};
  }
  static T from(const Argument& argument) {
    if constexpr (std::is_floating_point_v<T>) {
      return T(argument.real);
    } else {
      return T(argument.integer);
    }
  }
};
template <class T>
struct ParameterOf<T*> {
  static Parameter describe(std::string name) {
    return {std::move(name), type_name<std::remove_const_t<T>>(), true, std::is_const_v<T>};
  }
  static T* from(const Argument& argument) { return static_cast<T*>(argument.pointer); }
};

// Names are separated by commas.
std::vector<std::string> split_names(const char* names);
constexpr size_t count_names(const char* names) {
  size_t count = *names == '\0' ? 0 : 1;
  for (; *names != '\0'; ++names) count += *names == ',';
  return count;
}

// The parameters of a launcher are all but the last, its stream.
template <size_t Names, class... All, size_t... Index>
bool bind(std::string name, const char* names, cudaError_t (*launcher)(All...),
          std::index_sequence<Index...>) {
  using Types = std::tuple<All...>;
  static_assert(std::is_same_v<std::tuple_element_t<sizeof...(Index), Types>, cudaStream_t>,
                "a launcher's last parameter is its stream");
  static_assert(sizeof...(Index) == Names, "one name for each parameter before the stream");
  const std::vector<std::string> split = split_names(names);
  Launcher bound;
  bound.name = std::move(name);
  bound.parameters = {ParameterOf<std::tuple_element_t<Index, Types>>::describe(split[Index])...};
  bound.call = [launcher](const Argument* arguments) {
    return launcher(ParameterOf<std::tuple_element_t<Index, Types>>::from(arguments[Index])...,
                    cudaStream_t(nullptr));
  };
  launchers().push_back(std::move(bound));
  return true;
}

template <size_t Names, class... All>
bool bind(std::string name, const char* names, cudaError_t (*launcher)(All...)) {
  return bind<Names>(std::move(name), names, launcher,
                     std::make_index_sequence<sizeof...(All) - 1>());
}

template <class Scalar, class Accumulator>
struct FloatingTypes {
  using scalar_t = Scalar;
  using acc_t = Accumulator;
};

// `instantiate` maps FloatingTypes to a launcher.
template <size_t Names, class Instantiate>
bool bind_floating(const std::string& name, const char* names, Instantiate instantiate) {
  return bind<Names>(name + "_float32", names, instantiate(FloatingTypes<float, float>())) &&
         bind<Names>(name + "_float64", names, instantiate(FloatingTypes<double, double>())) &&
         bind<Names>(name + "_float16", names, instantiate(FloatingTypes<__half, float>())) &&
         bind<Names>(name + "_bfloat16", names, instantiate(FloatingTypes<__nv_bfloat16, float>()));
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_JOIN_(a, b) a##b
#define CUDA_ON_CPU_JOIN(a, b) CUDA_ON_CPU_JOIN_(a, b)

#define BIND(name, names, ...)                                               \
  [[maybe_unused]] static const bool CUDA_ON_CPU_JOIN(bound_, __COUNTER__) = \
      cuda_on_cpu::bind<cuda_on_cpu::count_names(names)>(name, names, __VA_ARGS__)

#define BIND_FLOATING(name, names, ...)                                                         \
  [[maybe_unused]] static const bool CUDA_ON_CPU_JOIN(bound_, __COUNTER__) =                    \
      cuda_on_cpu::bind_floating<cuda_on_cpu::count_names(names)>(name, names, [](auto types) { \
        using scalar_t [[maybe_unused]] = typename decltype(types)::scalar_t;                   \
        using acc_t [[maybe_unused]] = typename decltype(types)::acc_t;                         \
        return __VA_ARGS__;                                                                     \
      })
