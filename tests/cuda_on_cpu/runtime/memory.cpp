#include "memory.h"

#include <algorithm>

#include "findings.h"
#include "scheduler.h"

namespace cuda_on_cpu {

Memory memory;

namespace {

// More than any test's thread does between two barriers, and a second's work for the checker.
constexpr uint32_t kEndlessAccesses = 1u << 24;

}  // namespace

Buffer& Memory::add(BufferTraits traits) {
  auto buffer = std::make_unique<Buffer>(std::move(traits));
  const auto after =
      std::upper_bound(buffers_.begin(), buffers_.end(), buffer,
                       [](const auto& a, const auto& b) { return a->begin() < b->begin(); });
  return **buffers_.insert(after, std::move(buffer));
}

void Memory::clear() {
  end_launch();
  buffers_.clear();
}

void Memory::begin_launch(const void* arguments, size_t arguments_bytes) {
  arguments_ = static_cast<const char*>(arguments);
  arguments_bytes_ = arguments_bytes;
  carved_bytes_ = 0;
}

// Shared memory keeps its place from block to block; its content does not outlive one.
void Memory::begin_block() {
  for (const SharedVariable& variable : variables_) variable.buffer->forget();
  for (const SharedPiece& piece : pieces_) piece.buffer->forget();
}

void Memory::end_launch() {
  variables_.clear();
  pieces_.clear();
  static_shared_bytes_ = 0;
  last_found_ = nullptr;
  buffers_.erase(std::remove_if(buffers_.begin(), buffers_.end(),
                                [](const auto& buffer) { return buffer->traits().shared; }),
                 buffers_.end());
}

Buffer* Memory::find(const void* address, size_t bytes) {
  const char* first = static_cast<const char*>(address);
  Buffer* found = last_found_;
  if (found == nullptr || first < found->begin() || first >= found->end()) {
    const auto after =
        std::upper_bound(buffers_.begin(), buffers_.end(), first,
                         [](const char* a, const auto& buffer) { return a < buffer->begin(); });
    if (after == buffers_.begin()) return nullptr;
    found = std::prev(after)->get();
  }
  if (first + bytes > found->end() || first < found->begin()) return nullptr;
  return last_found_ = found;
}

const Buffer* Memory::nearest(const void* address) const {
  for (const auto& buffer : buffers_) {
    if (buffer->is_near(static_cast<const char*>(address))) return buffer.get();
  }
  return nullptr;
}

std::string Memory::describe(const void* address) const {
  if (address == nullptr) return "a null pointer";
  if (const Buffer* buffer = nearest(address)) {
    const std::ptrdiff_t offset = static_cast<const char*>(address) - buffer->begin();
    return "byte " + std::to_string(offset) + " of " + buffer->traits().name + ", which has " +
           std::to_string(buffer->traits().bytes);
  }
  for (const Thread& thread : block.threads) {
    if (thread.stack.contains(address)) {
      return "a local variable of thread " + std::to_string(thread.index);
    }
  }
  return "an address in no array";
}

void Memory::check(const void* address, size_t bytes, Access access, const void* caller) {
  if (running->stack.contains(address)) return;
  if (++running->accesses == kEndlessAccesses) {
    report(Kind::kDeadlock, "an endless loop, or a wait for a thread that cannot run meanwhile");
  }
  Buffer* buffer = find(address, bytes);
  const char* first = static_cast<const char*>(address);
  if (buffer != nullptr) {
    buffer->check(first, bytes, access, caller);
  } else if (in_library(address)) {
    if (access != Access::kRead) {
      report(Kind::kReadOnly, "write to a global variable or a constant");
    }
  } else if (first < arguments_ || first + bytes > arguments_ + arguments_bytes_) {
    report(Kind::kOutOfBounds, "%zu-byte %s of %s", bytes,
           access == Access::kRead ? "read" : "write", describe(address).c_str());
  }
}

// ---- shared memory ------------------------------------------------------------------------------

void* Memory::shared_variable(const void* key, const char* name, size_t bytes, size_t element_bytes,
                              size_t alignment) {
  for (const SharedVariable& variable : variables_) {
    if (variable.key == key) return variable.buffer->begin();
  }
  static_shared_bytes_ += bytes;
  if (static_shared_bytes_ > kMaximumStaticSharedBytes) {
    report(Kind::kLaunch, "%zu bytes of static shared memory; at most %zu", static_shared_bytes_,
           kMaximumStaticSharedBytes);
  }
  if (static_shared_bytes_ + grid.shared_bytes > kMaximumSharedBytes) {
    report(Kind::kLaunch, "%zu bytes of static and %zu of dynamic shared memory; at most %zu",
           static_shared_bytes_, grid.shared_bytes, kMaximumSharedBytes);
  }
  BufferTraits traits;
  traits.name = name;
  traits.bytes = bytes;
  traits.element_bytes = element_bytes;
  traits.offset = alignment;  // aligned as the type asks, and no better
  traits.shared = true;
  variables_.push_back({key, &add(std::move(traits))});
  return variables_.back().buffer->begin();
}

void* Memory::shared_piece(size_t offset, size_t bytes, size_t padded_bytes, size_t element_bytes) {
  for (const SharedPiece& piece : pieces_) {
    if (piece.offset != offset) continue;
    if (piece.buffer->traits().bytes != bytes) {
      report(Kind::kSharedLayout,
             "takes %zu bytes at offset %zu of dynamic shared memory; %s has %zu", bytes, offset,
             piece.buffer->traits().name.c_str(), piece.buffer->traits().bytes);
    }
    return piece.buffer->begin();
  }
  if (offset + padded_bytes > grid.shared_bytes) {
    report(Kind::kOutOfBounds,
           "takes %zu bytes at offset %zu of dynamic shared memory; the launch asked for %zu",
           padded_bytes, offset, grid.shared_bytes);
  }
  carved_bytes_ = std::max(carved_bytes_, offset + padded_bytes);
  BufferTraits traits;
  traits.name = "shared piece " + std::to_string(pieces_.size());
  traits.bytes = bytes;
  traits.element_bytes = element_bytes;
  traits.offset = 16;
  traits.shared = true;
  pieces_.push_back({offset, &add(std::move(traits))});
  return pieces_.back().buffer->begin();
}

void* shared_variable(const void* key, const char* name, size_t bytes, size_t element_bytes,
                      size_t alignment) {
  return memory.shared_variable(key, name, bytes, element_bytes, alignment);
}

void* shared_piece(size_t offset, size_t bytes, size_t padded_bytes, size_t element_bytes) {
  return memory.shared_piece(offset, bytes, padded_bytes, element_bytes);
}

}  // namespace cuda_on_cpu
