// Where code compiled with -fsanitize=thread,alignment,bounds,integer-divide-by-zero calls at each
// memory access, in place of libtsan and libubsan; and the memory functions it calls.
#include <cstring>

#include "findings.h"
#include "memory.h"
#include "scheduler.h"

namespace cuda_on_cpu {
namespace {

// Launchers are compiled the same way; only what runs on a fiber is checked.
void on_access(const void* address, size_t bytes, Access access, const void* caller) {
  if (running != nullptr) memory.check(address, bytes, access, caller);
}

void check_alignment(const void* address, size_t alignment, const char* type) {
  if (running == nullptr || reinterpret_cast<uintptr_t>(address) % alignment == 0) return;
  Buffer* buffer = memory.find(address, 1);
  const char* first = static_cast<const char*>(address);
  report(Kind::kMisaligned, "%s accessed as %s, which needs an address divisible by %zu",
         buffer != nullptr ? buffer->element_at(first).c_str() : memory.describe(first).c_str(),
         type, alignment);
}

}  // namespace

void atomic_access(void* address, size_t bytes) {
  check_alignment(address, bytes, "an atomic");
  on_access(address, bytes, Access::kAtomic, __builtin_return_address(0));
  publish_and_acquire(address);
}

void read_only_load(const void* address, size_t bytes) {
  const char* first = static_cast<const char*>(address);
  Buffer* buffer = memory.find(address, bytes);
  if (buffer == nullptr) return;  // the load that follows reports it
  if (buffer->traits().shared) {
    report(Kind::kOutOfBounds, "__ldg of %s, which is shared memory",
           buffer->element_at(first).c_str());
  }
  if (buffer->written_in_this_launch(first, bytes)) {
    report(Kind::kRace, "__ldg of %s, which this launch has written",
           buffer->element_at(first).c_str());
  }
}

void copy_unchecked(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace cuda_on_cpu

using cuda_on_cpu::Access;
using cuda_on_cpu::Kind;
using cuda_on_cpu::on_access;

extern "C" {

// ---- -fsanitize=thread --------------------------------------------------------------------------
void __tsan_init() {}
// A launcher's local static asks whether it has been initialised; kernels have none.
uint8_t __tsan_atomic8_load(const uint8_t* guard, int) { return *guard; }

#define ACCESS_HOOKS(bytes)                                                 \
  void __tsan_read##bytes(void* address) {                                  \
    on_access(address, bytes, Access::kRead, __builtin_return_address(0));  \
  }                                                                         \
  void __tsan_write##bytes(void* address) {                                 \
    on_access(address, bytes, Access::kWrite, __builtin_return_address(0)); \
  }                                                                         \
  void __tsan_unaligned_read##bytes(void* address) {                        \
    on_access(address, bytes, Access::kRead, __builtin_return_address(0));  \
  }                                                                         \
  void __tsan_unaligned_write##bytes(void* address) {                       \
    on_access(address, bytes, Access::kWrite, __builtin_return_address(0)); \
  }
ACCESS_HOOKS(1)
ACCESS_HOOKS(2)
ACCESS_HOOKS(4)
ACCESS_HOOKS(8)
ACCESS_HOOKS(16)
#undef ACCESS_HOOKS

void __tsan_read_range(void* address, size_t bytes) {
  on_access(address, bytes, Access::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  on_access(address, bytes, Access::kWrite, __builtin_return_address(0));
}

// ---- memory functions (memory_operations.h renames the calls) -----------------------------------
void* cuda_on_cpu_memcpy(void* to, const void* from, size_t bytes) {
  if (bytes != 0) {
    on_access(from, bytes, Access::kRead, __builtin_return_address(0));
    on_access(to, bytes, Access::kWrite, __builtin_return_address(0));
  }
  return std::memcpy(to, from, bytes);
}
void* cuda_on_cpu_memmove(void* to, const void* from, size_t bytes) {
  if (bytes != 0) {
    on_access(from, bytes, Access::kRead, __builtin_return_address(0));
    on_access(to, bytes, Access::kWrite, __builtin_return_address(0));
  }
  return std::memmove(to, from, bytes);
}
void* cuda_on_cpu_memset(void* to, int value, size_t bytes) {
  if (bytes != 0) on_access(to, bytes, Access::kWrite, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}

// ---- -fsanitize=alignment,bounds,integer-divide-by-zero: g++ passes these (ubsan_handlers.h) ----
struct UbsanPlace {
  const char* file;
  uint32_t line, column;
};
struct UbsanType {
  uint16_t kind;  // 0: integer
  uint16_t info;  // of an integer: bit 0 whether signed, then log2 of its bits
  char name[1];   // quoted
};
struct UbsanMismatch {
  UbsanPlace place;
  const UbsanType* type;
  uint8_t log_alignment;
  uint8_t access;
};
struct UbsanIndex {
  UbsanPlace place;
  const UbsanType* array;
  const UbsanType* index;
};

void __ubsan_handle_type_mismatch_v1(const UbsanMismatch* data, const void* address) {
  cuda_on_cpu::check_alignment(address, size_t(1) << data->log_alignment, data->type->name);
}

void __ubsan_handle_out_of_bounds(const UbsanIndex* data, uintptr_t index) {
  if (cuda_on_cpu::running == nullptr) return;
  const unsigned unused_bits = 64 - (1u << (data->index->info >> 1));
  const bool is_signed = (data->index->info & 1) != 0;
  const int64_t value = is_signed ? int64_t(index << unused_bits) >> unused_bits : int64_t(index);
  cuda_on_cpu::report(Kind::kOutOfBounds, "index %ld of %s", value, data->array->name);
}

void __ubsan_handle_divrem_overflow(const void*, uintptr_t, uintptr_t) {
  if (cuda_on_cpu::running == nullptr) return;
  cuda_on_cpu::report(Kind::kDivisionByZero, "integer division or remainder by zero");
}

}  // extern "C"
