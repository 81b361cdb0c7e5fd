// Runs the threads of one block as fibers, and blocks one after another.
#pragma once

#include <random>
#include <vector>

#include "fibers.h"
#include "runtime.h"

namespace cuda_on_cpu {

constexpr unsigned kWarpLanes = 32;
constexpr unsigned kMaximumThreads = 1024;

enum class State { kReady, kAtBarrier, kAtWarpOperation, kDone };
enum class WarpOperation { kBarrier, kShuffle, kBallot };

struct Thread {
  unsigned index = 0, warp = 0, lane = 0;
  uint3 position = {};
  State state = State::kReady;
  Stack stack;
  void* stack_pointer = nullptr;
  uint32_t accesses = 0;  // since it was last scheduled

  // What it waits for: at a barrier or a warp operation.
  Site site = {};
  const void* caller = nullptr;
  WarpOperation operation = {};
  unsigned mask = 0;
  unsigned source_lane = 0;
  uint64_t value = 0;  // what it brings, then what it gets
};

struct Grid {
  const void* kernel = nullptr;
  dim3 shape, block_shape;
  size_t shared_bytes = 0;
};

struct Block {
  uint3 index = {};
  std::vector<Thread> threads;
};

extern Grid grid;
extern Block block;
extern Thread* running;  // null while the host runs

enum class Order { kForward, kReverse, kShuffled };
void set_order(Order order, unsigned seed);

// The running thread waits: control goes back to the scheduler.
void yield();
// After a finding: leaves every fiber of the block as it is, for good.
void abandon_block();

}  // namespace cuda_on_cpu
