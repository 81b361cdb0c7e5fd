// A finding: what is wrong, where. The first one ends the launch; Python raises it (checker.py).
#pragma once

#include <vector_types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cuda_on_cpu {

struct Thread;

enum class Kind {
  kRace,
  kOutOfBounds,
  kReadOnly,
  kUninitialised,
  kMisaligned,
  kDivergentBarrier,
  kWarpMask,
  kDeadlock,
  kSharedLayout,
  kDivisionByZero,
  kLaunch,
};
const char* name_of(Kind kind);

struct Finding {
  Kind kind;
  std::string text;  // places in the code appear as returned by place()
  const void* kernel = nullptr;
  std::optional<dim3> block, thread;
  std::vector<const void*> stack;  // return addresses, innermost first
};
extern std::optional<Finding> finding;

// The running thread is at fault, and runs no further: report() does not return to a fiber. On the
// host it does return, and `caller` is the place in the launcher, or null.
__attribute__((format(printf, 2, 3))) void report(Kind kind, const char* format, ...);
__attribute__((format(printf, 3, 4))) void report_host(Kind kind, const void* caller,
                                                       const char* format, ...);
// A thread that waits is at fault.
__attribute__((format(printf, 3, 4))) void report_waiting(Kind kind, const Thread& thread,
                                                          const char* format, ...);

// A code address, for Python to turn into file:line: its distance from the start of this library.
uint32_t code_offset(const void* pc);
std::string place(uint32_t offset);
// Whether an address lies in this library: __constant__ arrays, tables, string literals.
bool in_library(const void* address);

}  // namespace cuda_on_cpu
