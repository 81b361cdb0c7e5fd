// The Python module: the list of launchers, and one function that runs one of them on arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "bind.h"
#include "findings.h"
#include "host_api.h"
#include "memory.h"
#include "scheduler.h"

namespace py = pybind11;

namespace cuda_on_cpu {

std::vector<Launcher>& launchers() {
  static std::vector<Launcher> all;
  return all;
}

std::vector<std::string> split_names(const char* names) {
  std::vector<std::string> split;
  for (const char* next = names; *next != '\0';) {
    next += std::strspn(next, ", ");
    const size_t length = std::strcspn(next, ", ");
    if (length != 0) split.emplace_back(next, length);
    next += length;
  }
  return split;
}

namespace {

const char* name_of(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "an error";
  }
}

py::object position(const std::optional<dim3>& at) {
  if (!at) return py::none();
  return py::make_tuple(at->x, at->y, at->z);
}

// Everything KernelError needs (checker.py); places are offsets into this library.
py::dict as_dictionary(const Finding& found) {
  py::list stack;
  for (const void* pc : found.stack) stack.append(code_offset(pc));
  py::dict result;
  result["kind"] = name_of(found.kind);
  result["text"] = found.text;
  result["kernel"] = found.kernel == nullptr ? py::object(py::none())
                                             : py::object(py::int_(code_offset(found.kernel)));
  result["block"] = position(found.block);
  result["thread"] = position(found.thread);
  result["stack"] = stack;
  return result;
}

// A kernel works on a guarded copy of an array. A view that starts at an odd element is as
// misaligned in the copy; a fresh array is aligned as cudaMalloc would.
Buffer& add_copy(const Parameter& parameter, const py::array& array, bool initialised) {
  BufferTraits traits;
  traits.name = parameter.name;
  traits.bytes = size_t(array.nbytes());
  traits.element_bytes = size_t(array.itemsize());
  traits.offset = reinterpret_cast<uintptr_t>(array.data()) % 16;
  traits.writable = !parameter.is_const;
  traits.initialised = parameter.is_const || initialised;
  Buffer& copy = memory.add(std::move(traits));
  if (copy.traits().initialised && copy.traits().bytes != 0) {
    std::memcpy(copy.begin(), array.data(), copy.traits().bytes);
  }
  return copy;
}

Launcher& launcher_named(const std::string& name) {
  for (Launcher& launcher : launchers()) {
    if (launcher.name == name) return launcher;
  }
  throw py::key_error(name);
}

using Output = std::pair<py::array, std::vector<char>>;  // and what a kernel wrote to its copy

// Calls a launcher on copies of the arrays and has one of its requests refused, or none (0).
std::vector<Output> call(const Launcher& launcher, const py::list& values,
                         const std::vector<std::string>& initialised, int refused) {
  memory.clear();
  requests = {0, refused};
  std::vector<Argument> arguments(values.size());
  std::vector<std::pair<py::array, Buffer*>> copies;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const Parameter& parameter = launcher.parameters[i];
    const py::object value = values[i];
    if (!parameter.is_pointer) {
      if (parameter.type.rfind("float", 0) == 0) {
        arguments[i].real = value.cast<double>();
      } else {
        const bool is_wide = parameter.type == "uint64";
        arguments[i].integer = is_wide ? int64_t(value.cast<uint64_t>()) : value.cast<int64_t>();
      }
    } else if (value.is_none()) {
      arguments[i].pointer = nullptr;
    } else {
      const auto array = value.cast<py::array>();
      const bool starts_initialised =
          std::find(initialised.begin(), initialised.end(), parameter.name) != initialised.end();
      Buffer& copy = add_copy(parameter, array, starts_initialised);
      arguments[i].pointer = copy.begin();
      if (!parameter.is_const) copies.emplace_back(array, &copy);
    }
  }

  const cudaError_t status = launcher.call(arguments.data());
  if (!finding && status != (refused == 0 ? cudaSuccess : kRefusal)) {
    const std::string when =
        refused == 0 ? "" : ", although its request " + std::to_string(refused) + " was refused";
    report_host(Kind::kLaunch, nullptr, "the launcher returned %s (%d)%s", name_of(status),
                int(status), when.c_str());
  }
  std::vector<Output> outputs;
  for (const auto& [array, copy] : copies) {
    const char* begin = copy->begin();
    outputs.emplace_back(array, std::vector<char>(begin, begin + copy->traits().bytes));
  }
  memory.clear();
  return outputs;
}

// Calls a launcher; gives what was found, or None. The caller has checked the arguments' types.
py::object run(const std::string& name, const py::list& values,
               const std::vector<std::string>& initialised, int order, unsigned seed,
               int processors) {
  Launcher& launcher = launcher_named(name);
  finding.reset();
  set_order(Order(order), seed);
  multiprocessors = processors;
  const std::vector<Output> outputs = call(launcher, values, initialised, 0);
  if (const int made = requests.made; made > launcher.most_requests) {
    for (int refused = 1; refused <= made && !finding; ++refused) {
      call(launcher, values, initialised, refused);
    }
    if (!finding) launcher.most_requests = made;
  }
  if (finding) return as_dictionary(*finding);
  for (const auto& [array, content] : outputs) {
    if (!content.empty()) {
      std::memcpy(py::array(array).mutable_data(), content.data(), content.size());
    }
  }
  return py::none();
}

py::dict signatures() {
  py::dict all;
  for (const Launcher& launcher : launchers()) {
    py::list parameters;
    for (const Parameter& parameter : launcher.parameters) {
      parameters.append(
          py::make_tuple(parameter.name, parameter.type, parameter.is_pointer, parameter.is_const));
    }
    all[py::str(launcher.name)] = parameters;
  }
  return all;
}

}  // namespace
}  // namespace cuda_on_cpu

PYBIND11_MODULE(cuda_on_cpu_module, module) {
  module.def("signatures", &cuda_on_cpu::signatures);
  module.def("run", &cuda_on_cpu::run);
}
