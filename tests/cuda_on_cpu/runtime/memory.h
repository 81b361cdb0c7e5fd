// The memory kernels may touch, and what has happened to each element of it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "ordering.h"

namespace cuda_on_cpu {

constexpr size_t kMaximumSharedBytes = 227 * 1024;  // of a block, on sm_90
constexpr size_t kMaximumStaticSharedBytes = 48 * 1024;

enum class Access { kRead, kWrite, kAtomic };

// Address space of its own, with unused space on both sides: an access that leaves a buffer by less
// than its own size lands beside it and in no other buffer.
class GuardedRegion {
 public:
  // `offset`: how far the first byte is from an address divisible by 256.
  GuardedRegion(size_t bytes, size_t offset);
  ~GuardedRegion();
  GuardedRegion(const GuardedRegion&) = delete;

  char* begin() const { return begin_; }
  bool reaches(const char* address) const {
    return address >= mapped_ && address < mapped_ + mapped_bytes_;
  }

 private:
  char* mapped_;
  size_t mapped_bytes_;
  char* begin_;
};

struct BufferTraits {
  std::string name;
  size_t bytes = 0;
  size_t element_bytes = 1;
  size_t offset = 0;  // see GuardedRegion
  bool writable = true;
  bool initialised = false;
  bool shared = false;
};

class Buffer {
 public:
  explicit Buffer(BufferTraits traits);

  const BufferTraits& traits() const { return traits_; }
  char* begin() const { return region_.begin(); }
  char* end() const { return region_.begin() + traits_.bytes; }
  bool is_near(const char* address) const { return region_.reaches(address); }

  void forget();  // makes all of it uninitialised
  void mark_initialised(const char* address, size_t bytes);
  // Reports what is wrong with an access by the running thread that lies inside.
  void check(const char* address, size_t bytes, Access access, const void* caller);
  bool written_in_this_launch(const char* address, size_t bytes);
  // "joint[3]", "joint[3] + 1 byte"
  std::string element_at(const char* address) const;

 private:
  // The last write, and accesses that may race a later one. Two groups each: of three that are
  // mutually concurrent, two in different warps betray any later access of the same block.
  struct Cell {
    Stamp write;
    Stamp reads[2];
    Stamp atomics[2];
  };

  bool is_past(const Stamp& stamp) const;
  const Stamp* racing(const Stamp (&groups)[2]) const;
  void remember(Stamp (&groups)[2], const Stamp& now) const;
  void check_race(Cell& cell, const char* address, Access access, const Stamp& now);
  void refine(size_t granule);

  BufferTraits traits_;
  GuardedRegion region_;
  std::vector<uint8_t> initialised_;  // a byte each; empty: all are
  // A cell covers granule_ bytes: an element, or the smallest part of one that was accessed.
  size_t granule_;
  struct Free {
    void operator()(void* cells) const { free(cells); }
  };
  std::unique_ptr<Cell[], Free> cells_;
};

class Memory {
 public:
  Buffer& add(BufferTraits traits);
  void clear();  // forgets all buffers

  void begin_launch(const void* arguments, size_t arguments_bytes);
  void begin_block();
  void end_launch();

  // The buffer that holds all of the range, or null.
  Buffer* find(const void* address, size_t bytes);
  // The buffer that the address lies in or next to, or null.
  const Buffer* nearest(const void* address) const;
  // "byte 52 of joint, which has 52", or what else is known about a stray address.
  std::string describe(const void* address) const;

  void check(const void* address, size_t bytes, Access access, const void* caller);
  void* shared_variable(const void* key, const char* name, size_t bytes, size_t element_bytes,
                        size_t alignment);
  void* shared_piece(size_t offset, size_t bytes, size_t padded_bytes, size_t element_bytes);
  size_t carved_bytes() const { return carved_bytes_; }  // of dynamic shared memory, in this launch

 private:
  struct SharedVariable {
    const void* key;
    Buffer* buffer;
  };
  struct SharedPiece {
    size_t offset;
    Buffer* buffer;
  };

  std::vector<std::unique_ptr<Buffer>> buffers_;
  Buffer* last_found_ = nullptr;
  const char* arguments_ = nullptr;
  size_t arguments_bytes_ = 0;
  std::vector<SharedVariable> variables_;
  std::vector<SharedPiece> pieces_;
  size_t static_shared_bytes_ = 0;
  size_t carved_bytes_ = 0;
};

extern Memory memory;

}  // namespace cuda_on_cpu
