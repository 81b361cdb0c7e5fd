// What the device side (the headers beside this one) asks of the runtime (the .cpp files).
#pragma once

#include <driver_types.h>
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cuda_on_cpu {

// A place in the source, to tell one barrier from another.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const Site& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
};

// ---- who am I (constant for the life of a thread, so the compiler may keep them) ----------------
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) dim3 block_shape();
__attribute__((const)) dim3 grid_shape();
__attribute__((const)) unsigned lane();

// ---- waiting for others -------------------------------------------------------------------------
int block_barrier(bool predicate, Site site);  // how many threads of the block gave true
void warp_barrier(unsigned mask, Site site);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source_lane, Site site);
unsigned ballot(unsigned mask, bool predicate, Site site);

enum class Scope { kBlock, kDevice };
void fence(Scope scope);

// ---- memory -------------------------------------------------------------------------------------
void atomic_access(void* address, size_t bytes);         // before an atomic update
void read_only_load(const void* address, size_t bytes);  // before an __ldg
void copy_unchecked(void* to, const void* from, size_t bytes);

// `key` names the declaration; the runtime keeps one variable a block for it.
void* shared_variable(const void* key, const char* name, size_t bytes, size_t element_bytes,
                      size_t alignment);
// `offset` is where the piece would start in the block's dynamic shared memory, `padded_bytes` what
// it uses up there.
void* shared_piece(size_t offset, size_t bytes, size_t padded_bytes, size_t element_bytes);

// ---- launching ----------------------------------------------------------------------------------
struct KernelCall {
  const void* kernel;
  void (*run_thread)(const void* arguments);
  const void* arguments;
  size_t arguments_bytes;
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
};
cudaError_t run_grid(const KernelCall& call);

}  // namespace cuda_on_cpu
