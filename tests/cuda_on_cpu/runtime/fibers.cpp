#include "fibers.h"

#include <sys/mman.h>

#include <new>

namespace cuda_on_cpu {
namespace {

constexpr size_t kFibers = 1024;  // the largest block
constexpr size_t kStackBytes = 128 * 1024, kGuardBytes = 4096;
constexpr size_t kSavedRegisters = 6;  // what switch_stack pushes; rbp is the last to be popped

char* map_stacks() {
  const size_t bytes = kFibers * (kStackBytes + kGuardBytes);
  void* stacks = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) throw std::bad_alloc();
  for (size_t i = 0; i < kFibers; ++i) {
    mprotect(static_cast<char*>(stacks) + i * (kStackBytes + kGuardBytes), kGuardBytes, PROT_NONE);
  }
  return static_cast<char*>(stacks);
}

}  // namespace

Stack fiber_stack(size_t index) {
  static char* const stacks = map_stacks();
  char* low = stacks + index * (kStackBytes + kGuardBytes) + kGuardBytes;
  return {low, low + kStackBytes};
}

void* prepare(const Stack& stack, void (*entry)()) {
  // From the top: a zero in place of a caller, the address switch_stack returns to, the registers
  // it pops. `entry` then starts with the stack 8 bytes off a multiple of 16, as after a call, and
  // with a frame pointer of zero, which is where call_stack() stops.
  void** top = reinterpret_cast<void**>(stack.high) - 1;
  *top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (size_t i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  return top;
}

// System V x86-64: a callee keeps rbx, rbp and r12 to r15; everything else the caller has saved.
__attribute__((naked, noinline)) void switch_stack(void** /*saved: rdi*/, void* /*load: rsi*/) {
  asm(R"(
      push %rbp
      push %rbx
      push %r12
      push %r13
      push %r14
      push %r15
      mov %rsp, (%rdi)
      mov %rsi, %rsp
      pop %r15
      pop %r14
      pop %r13
      pop %r12
      pop %rbx
      pop %rbp
      ret)");
}

const void* saved_frame_pointer(const void* stack_pointer) {
  return static_cast<const void* const*>(stack_pointer)[kSavedRegisters - 1];
}

}  // namespace cuda_on_cpu
