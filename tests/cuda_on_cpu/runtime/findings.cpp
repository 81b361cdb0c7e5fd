#include "findings.h"

#include <cstdarg>
#include <cstdio>

#include "scheduler.h"

// Set by the linker: where this shared library starts and ends in memory.
extern "C" const char __ehdr_start __attribute__((visibility("hidden")));
extern "C" const char _end __attribute__((visibility("hidden")));

namespace cuda_on_cpu {

std::optional<Finding> finding;

namespace {

std::string formatted(const char* format, va_list arguments) {
  char text[1024];
  vsnprintf(text, sizeof text, format, arguments);
  return text;
}

// Follows the frame pointers up to the first frame of the fiber, whose caller has none.
std::vector<const void*> call_stack(const void* frame_pointer, const Thread& thread) {
  std::vector<const void*> stack;
  auto frame = static_cast<const void* const*>(frame_pointer);
  while (thread.stack.contains(frame)) {
    stack.push_back(frame[1]);
    frame = static_cast<const void* const*>(frame[0]);
  }
  return stack;
}

void keep(Kind kind, std::string text, const Thread* thread, std::vector<const void*> stack) {
  if (finding) return;
  finding = Finding{kind, std::move(text), grid.kernel, {}, {}, std::move(stack)};
  if (thread != nullptr) {
    finding->block = dim3(block.index.x, block.index.y, block.index.z);
    finding->thread = dim3(thread->position.x, thread->position.y, thread->position.z);
  }
}

}  // namespace

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kRace:
      return "race";
    case Kind::kOutOfBounds:
      return "out of bounds";
    case Kind::kReadOnly:
      return "read-only memory";
    case Kind::kUninitialised:
      return "uninitialised read";
    case Kind::kMisaligned:
      return "misaligned access";
    case Kind::kDivergentBarrier:
      return "divergent barrier";
    case Kind::kWarpMask:
      return "warp mask";
    case Kind::kDeadlock:
      return "deadlock";
    case Kind::kSharedLayout:
      return "shared memory layout";
    case Kind::kDivisionByZero:
      return "division by zero";
    case Kind::kLaunch:
      return "launch";
  }
  return "unknown";
}

void report(Kind kind, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  keep(kind, formatted(format, arguments), running,
       call_stack(__builtin_frame_address(0), *running));
  va_end(arguments);
  abandon_block();
}

void report_host(Kind kind, const void* caller, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vector<const void*> stack;
  if (caller != nullptr) stack.push_back(caller);
  keep(kind, formatted(format, arguments), nullptr, std::move(stack));
  va_end(arguments);
}

void report_waiting(Kind kind, const Thread& thread, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  keep(kind, formatted(format, arguments), &thread,
       call_stack(saved_frame_pointer(thread.stack_pointer), thread));
  va_end(arguments);
}

uint32_t code_offset(const void* pc) {
  return uint32_t(static_cast<const char*>(pc) - &__ehdr_start);
}

std::string place(uint32_t offset) {
  char text[16];
  snprintf(text, sizeof text, "<%#x>", offset);
  return text;
}

bool in_library(const void* address) { return address >= &__ehdr_start && address < &_end; }

}  // namespace cuda_on_cpu
