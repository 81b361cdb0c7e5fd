// Threads and scratch memory for CPU kernels, without torch in sight.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

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

// Uninitialised memory aligned to a cache line.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64 + 64))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

}  // namespace fastssl::cpu
