// Threads and scratch memory for CPU kernels, without torch in sight.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <new>
#include <utility>

namespace fastssl::cpu {

// Calls task(context, begin, end) over disjoint pieces of [0, n), each of at least `grain` items
// but the last, on torch's threads (parallel.cpp).
void run_parallel(int64_t n, int64_t grain, void (*task)(const void*, int64_t, int64_t),
                  const void* context);

template <class Task>
void parallel_for(int64_t n, int64_t grain, const Task& task) {
  if (n <= grain) {
    if (n > 0) task(0, n);
    return;
  }
  run_parallel(
      n, grain,
      [](const void* context, int64_t begin, int64_t end) {
        (*static_cast<const Task*>(context))(begin, end);
      },
      &task);
}

// Memory that a thread has given back and keeps for its next call: pages that went back to the
// system cost more to touch anew than a small op's arithmetic.
class KeptMemory {
 public:
  static KeptMemory& of_this_thread() {
    thread_local KeptMemory memory;
    return memory;
  }
  ~KeptMemory() {
    for (const Piece& piece : pieces_) std::free(piece.data);
  }
  // At least `bytes`, which then says how many there are.
  void* take(size_t& bytes) {
    Piece* best = nullptr;
    for (Piece& piece : pieces_) {
      if (piece.bytes >= bytes && (best == nullptr || piece.bytes < best->bytes)) best = &piece;
    }
    if (best == nullptr) return std::aligned_alloc(64, bytes);
    const Piece taken = std::exchange(*best, {});
    bytes = taken.bytes;
    return taken.data;
  }
  void give_back(void* data, size_t bytes) {
    Piece* smallest = std::min_element(std::begin(pieces_), std::end(pieces_));
    if (bytes > kMostBytes || bytes <= smallest->bytes) return std::free(data);
    std::free(std::exchange(*smallest, {data, bytes}).data);
  }

 private:
  struct Piece {
    void* data = nullptr;
    size_t bytes = 0;
    bool operator<(const Piece& other) const { return bytes < other.bytes; }
  };
  static constexpr size_t kMostBytes = 1 << 20;
  Piece pieces_[8];
};

// Uninitialised memory aligned to a cache line.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : bytes_((count * sizeof(T) + 63) / 64 * 64 + 64),
        data_(static_cast<T*>(KeptMemory::of_this_thread().take(bytes_))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Scratch() { KeptMemory::of_this_thread().give_back(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  size_t bytes_;
  T* data_;
};

}  // namespace fastssl::cpu
