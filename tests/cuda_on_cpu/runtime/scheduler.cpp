#include "scheduler.h"

#include <algorithm>
#include <numeric>

#include "findings.h"
#include "host_api.h"
#include "memory.h"
#include "ordering.h"

namespace cuda_on_cpu {

Grid grid;
Block block;
Thread* running = nullptr;

namespace {

const KernelCall* current_call;
void* scheduler_stack;
std::vector<Thread*> ready;  // who can run in the next round
int barrier_count;           // how many threads gave the last block barrier a true predicate

Order order = Order::kForward;
std::mt19937 shuffler;

template <class T>
void arrange(std::vector<T>& items) {
  switch (order) {
    case Order::kForward:
      std::sort(items.begin(), items.end());
      break;
    case Order::kReverse:
      std::sort(items.rbegin(), items.rend());
      break;
    case Order::kShuffled:
      std::sort(items.begin(), items.end());  // so that the seed alone decides
      std::shuffle(items.begin(), items.end(), shuffler);
      break;
  }
}

void wake(Thread& thread) {
  thread.state = State::kReady;
  thread.accesses = 0;
  ready.push_back(&thread);
}

void thread_main() {
  current_call->run_thread(current_call->arguments);
  running->state = State::kDone;
  yield();
}

void start_threads() {
  for (Thread& thread : block.threads) {
    const unsigned index = unsigned(&thread - block.threads.data());
    const dim3& shape = grid.block_shape;
    thread = Thread();
    thread.index = index;
    thread.warp = index / kWarpLanes;
    thread.lane = index % kWarpLanes;
    thread.position = {index % shape.x, index / shape.x % shape.y, index / (shape.x * shape.y)};
    thread.stack = fiber_stack(index);
    thread.stack_pointer = prepare(thread.stack, thread_main);
    wake(thread);
  }
}

std::string describe(const Thread& thread) {
  const std::string who = "thread " + std::to_string(thread.index);
  return who + " at " + place(code_offset(thread.caller));
}

// ---- warp operations ----------------------------------------------------------------------------

bool same_operation(const Thread& a, const Thread& b) {
  return a.state == State::kAtWarpOperation && b.state == State::kAtWarpOperation &&
         a.operation == b.operation && a.mask == b.mask && a.site == b.site;
}

Thread* lane_of(const Thread& thread, unsigned lane) {
  const size_t index = thread.warp * kWarpLanes + lane;
  return index < block.threads.size() ? &block.threads[index] : nullptr;
}

// Calls `visit` with the thread (or null) of each lane in the thread's mask, until it gives false.
template <class Visit>
bool for_lanes(const Thread& thread, Visit visit) {
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if ((thread.mask >> lane & 1) != 0 && !visit(lane, lane_of(thread, lane))) return false;
  }
  return true;
}

// Hands out the results if `last` was the last lane of its mask to arrive.
void complete_warp_operation(Thread& last) {
  const bool all_here = for_lanes(last, [&](unsigned, const Thread* other) {
    return other != nullptr && same_operation(*other, last);
  });
  if (!all_here) return;
  uint64_t values[kWarpLanes] = {};
  unsigned votes = 0;
  for_lanes(last, [&](unsigned lane, const Thread* other) {
    values[lane] = other->value;
    votes |= unsigned(other->value & 1) << lane;
    return true;
  });
  for_lanes(last, [&](unsigned, Thread* other) {
    other->value = last.operation == WarpOperation::kShuffle ? values[other->source_lane] : votes;
    if (other != &last) wake(*other);
    return true;
  });
  last.state = State::kReady;
  if (last.operation == WarpOperation::kBarrier) join_lanes(last.warp, last.mask);
}

uint64_t warp_operation(WarpOperation operation, unsigned mask, uint64_t value,
                        unsigned source_lane, Site site, const void* caller) {
  Thread& self = *running;
  if ((mask >> self.lane & 1) == 0) {
    report(Kind::kWarpMask, "lane %u is not in its own mask %#x", self.lane, mask);
  }
  if (operation == WarpOperation::kShuffle && (mask >> source_lane & 1) == 0) {
    report(Kind::kWarpMask, "lane %u reads lane %u, which is not in mask %#x", self.lane,
           source_lane, mask);
  }
  self.state = State::kAtWarpOperation;
  self.site = site;
  self.caller = caller;
  self.operation = operation;
  self.mask = mask;
  self.source_lane = source_lane;
  self.value = value;
  complete_warp_operation(self);
  if (self.state != State::kReady) yield();
  return self.value;
}

// ---- the end of a round -------------------------------------------------------------------------

// Nobody can run, and somebody waits at a warp operation: says for whom.
void report_stalled_warp(const Thread& waiting) {
  for_lanes(waiting, [&](unsigned lane, const Thread* other) {
    if (other == nullptr) {
      report_waiting(Kind::kWarpMask, waiting,
                     "mask %#x names lane %u, which this warp does not have", waiting.mask, lane);
    } else if (other->state == State::kDone) {
      report_waiting(Kind::kWarpMask, waiting, "mask %#x names lane %u, which has exited",
                     waiting.mask, lane);
    } else if (other->state == State::kAtBarrier) {
      report_waiting(Kind::kDeadlock, waiting, "mask %#x waits for %s, a barrier of the block",
                     waiting.mask, describe(*other).c_str());
    } else if (!same_operation(*other, waiting)) {
      report_waiting(Kind::kWarpMask, waiting,
                     "mask %#x waits for %s, another warp operation or mask (%#x)", waiting.mask,
                     describe(*other).c_str(), other->mask);
    }
    return !finding;
  });
}

// Nobody can run: everybody has exited, or has arrived at one barrier, or something is wrong.
void finish_round() {
  const Thread *waiting = nullptr, *exited = nullptr;
  for (const Thread& thread : block.threads) {
    if (thread.state == State::kAtWarpOperation) return report_stalled_warp(thread);
    (thread.state == State::kDone ? exited : waiting) = &thread;
  }
  if (waiting == nullptr) return;
  if (exited != nullptr) {
    return report_waiting(Kind::kDivergentBarrier, *waiting, "thread %u has exited without it",
                          exited->index);
  }
  barrier_count = 0;
  for (const Thread& thread : block.threads) {
    if (!(thread.site == waiting->site)) {
      return report_waiting(Kind::kDivergentBarrier, *waiting, "%s waits at another barrier",
                            describe(thread).c_str());
    }
    barrier_count += int(thread.value);
  }
  join_block();
  for (Thread& thread : block.threads) wake(thread);
}

void run_block() {
  begin_block();
  memory.begin_block();
  ready.clear();
  start_threads();
  while (!ready.empty()) {
    std::vector<Thread*> round;
    round.swap(ready);
    arrange(round);
    for (Thread* thread : round) {
      running = thread;
      switch_stack(&scheduler_stack, thread->stack_pointer);
      running = nullptr;
      if (finding) return;
    }
    if (ready.empty()) finish_round();
    if (finding) return;
  }
}

const char* exceeded_limit(const KernelCall& call) {
  const size_t threads = size_t(call.block.x) * call.block.y * call.block.z;
  if (threads == 0) return "the block is empty";
  if (threads > kMaximumThreads || call.block.z > 64)
    return "a block has at most 1024 threads, z at most 64";
  if (call.grid.x > 0x7fffffff) return "grid.x is at most 2147483647";
  if (call.grid.y > 65535 || call.grid.z > 65535) return "grid.y and grid.z are at most 65535";
  if (call.shared_bytes > kMaximumSharedBytes) return "a block has at most 227 KB of shared memory";
  return nullptr;
}

}  // namespace

void set_order(Order chosen, unsigned seed) {
  order = chosen;
  shuffler.seed(seed);
}

void yield() { switch_stack(&running->stack_pointer, scheduler_stack); }

void abandon_block() { yield(); }

uint3 thread_index() { return running->position; }
uint3 block_index() { return block.index; }
dim3 block_shape() { return grid.block_shape; }
dim3 grid_shape() { return grid.shape; }
unsigned lane() { return running->lane; }

int block_barrier(bool predicate, Site site) {
  running->state = State::kAtBarrier;
  running->site = site;
  running->caller = __builtin_return_address(0);
  running->value = predicate;
  yield();
  return barrier_count;
}

void warp_barrier(unsigned mask, Site site) {
  warp_operation(WarpOperation::kBarrier, mask, 0, 0, site, __builtin_return_address(0));
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source_lane, Site site) {
  return warp_operation(WarpOperation::kShuffle, mask, value, source_lane, site,
                        __builtin_return_address(0));
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  return unsigned(warp_operation(WarpOperation::kBallot, mask, predicate, 0, site,
                                 __builtin_return_address(0)));
}

cudaError_t run_grid(const KernelCall& call) {
  if (finding) return cudaErrorLaunchFailure;  // of an earlier launch; there is nothing to add
  if (request(__builtin_return_address(0)) != cudaSuccess) return kRefusal;
  grid = {call.kernel, call.grid, call.block, call.shared_bytes};
  if (const char* limit = exceeded_limit(call)) {
    report_host(Kind::kLaunch, __builtin_return_address(0),
                "%s: grid (%u, %u, %u), block (%u, %u, %u), %zu bytes of shared memory", limit,
                call.grid.x, call.grid.y, call.grid.z, call.block.x, call.block.y, call.block.z,
                call.shared_bytes);
    grid = {};
    return cudaErrorInvalidConfiguration;
  }
  current_call = &call;
  block.threads.assign(size_t(call.block.x) * call.block.y * call.block.z, Thread());
  begin_launch();
  memory.begin_launch(call.arguments, call.arguments_bytes);
  std::vector<size_t> blocks(size_t(call.grid.x) * call.grid.y * call.grid.z);
  std::iota(blocks.begin(), blocks.end(), size_t(0));
  arrange(blocks);
  for (const size_t i : blocks) {
    const size_t rows = i / call.grid.x;
    block.index = {unsigned(i % call.grid.x), unsigned(rows % call.grid.y),
                   unsigned(rows / call.grid.y)};
    run_block();
    if (finding) break;
  }
  if (!finding && call.shared_bytes > memory.carved_bytes()) {
    report_host(Kind::kSharedLayout, __builtin_return_address(0),
                "the launch asks for %zu bytes of dynamic shared memory, of which no block uses "
                "more than %zu",
                call.shared_bytes, memory.carved_bytes());
  }
  memory.end_launch();
  grid = {};
  return finding ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace cuda_on_cpu
