// Call stacks that can be left in the middle of a function and taken up again.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

struct Stack {
  char* low = nullptr;
  char* high = nullptr;
  bool contains(const void* address) const { return address >= low && address < high; }
};

// The stack of fiber `index`, always the same one; an overflow hits an unmapped page.
Stack fiber_stack(size_t index);

// A stack pointer that switch_stack() can load to call `entry`, which must not return.
void* prepare(const Stack& stack, void (*entry)());

// Leaves the current stack, keeping its pointer in `*saved`, and continues on another one.
void switch_stack(void** saved, void* load);

// The frame pointer of a fiber that has left its stack.
const void* saved_frame_pointer(const void* stack_pointer);

}  // namespace cuda_on_cpu
