#include "ordering.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <vector>

#include "scheduler.h"

namespace cuda_on_cpu {
namespace {

using LaneClocks = std::array<uint32_t, kWarpLanes>;

uint32_t first_block, this_block, interval;
// [warp][lane]: the clocks of its warp that a lane has seen; its own is seen[warp][lane][lane].
std::vector<std::array<LaneClocks, kWarpLanes>> seen;

// What a fence covers: the block's accesses of earlier intervals, and those of this interval that
// the fencing lane has seen.
struct Release {
  uint32_t block = 0, interval = 0, warp = 0;
  Scope scope = Scope::kBlock;
  LaneClocks clocks = {};

  bool covers(const Stamp& stamp) const {
    if (stamp.block != block || (scope == Scope::kBlock && block != this_block)) return false;
    if (stamp.interval != interval) return stamp.interval < interval;
    return stamp.warp == warp && lanes_seen(clocks, stamp);
  }
  static bool lanes_seen(const LaneClocks& clocks, const Stamp& stamp) {
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      if ((stamp.lanes >> lane & 1) != 0 && clocks[lane] < stamp.clock) return false;
    }
    return true;
  }
  bool same_moment(const Release& other) const {
    return block == other.block && interval == other.interval && warp == other.warp &&
           scope == other.scope;
  }
  void merge(const Release& other) {
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      clocks[lane] = std::max(clocks[lane], other.clocks[lane]);
    }
  }
};

// A thread's last fence in this interval, and those of earlier ones: any thread may pass them on.
std::vector<std::optional<Release>> thread_fences;  // [thread]
std::vector<std::optional<Release>> block_fences;   // [warp]
bool any_fence;                                     // in this block

using Published = std::vector<Release>;
std::unordered_map<const void*, Published> published;  // at the address of an atomic
struct Acquired {
  const Published* from;
  size_t count;  // of the releases that were there
  Stamp when;
};
std::vector<Acquired> acquired;  // by this block

void publish(Published& releases, const Release& release) {
  for (auto known = releases.rbegin(); known != releases.rend() && known->block == release.block;
       ++known) {
    if (known->same_moment(release)) return known->merge(release);
  }
  releases.push_back(release);
}

bool ordered_within_block(const Stamp& stamp) {
  if (stamp.interval < interval) return true;
  if (stamp.warp != running->warp) return false;
  if (stamp.lanes == 1u << running->lane) return true;
  return Release::lanes_seen(seen[running->warp][running->lane], stamp);
}

}  // namespace

void begin_launch() {
  first_block = this_block + 1;
  published.clear();
}

void begin_block() {
  ++this_block;
  interval = 1;
  const size_t threads = block.threads.size();
  const size_t warps = (threads + kWarpLanes - 1) / kWarpLanes;
  seen.assign(warps, {});
  for (auto& warp : seen) {
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) warp[lane][lane] = 1;
  }
  thread_fences.assign(threads, std::nullopt);
  block_fences.assign(warps, std::nullopt);
  any_fence = false;
  acquired.clear();
}

void join_block() {
  ++interval;
  if (!any_fence) return;
  for (std::optional<Release>& fence : thread_fences) {
    if (fence && fence->scope == Scope::kDevice) {
      std::optional<Release>& known = block_fences[fence->warp];
      if (known && known->same_moment(*fence)) {
        known->merge(*fence);
      } else {
        known = fence;
      }
    }
    fence.reset();
  }
}

void join_lanes(unsigned warp, unsigned mask) {
  LaneClocks joined = {};
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    for (unsigned other = 0; other < kWarpLanes; ++other) {
      joined[other] = std::max(joined[other], seen[warp][lane][other]);
    }
  }
  // Equal clocks again, so that accesses of these lanes can share a stamp.
  uint32_t next = 0;
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if ((mask >> lane & 1) != 0) next = std::max(next, joined[lane] + 1);
  }
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    seen[warp][lane] = joined;
    seen[warp][lane][lane] = next;
  }
}

void fence(Scope scope) {
  LaneClocks& clocks = seen[running->warp][running->lane];
  thread_fences[running->index] = Release{this_block, interval, running->warp, scope, clocks};
  any_fence = true;
  ++clocks[running->lane];  // what follows the fence is not covered
}

void publish_and_acquire(const void* address) {
  const auto known = published.find(address);
  if (known != published.end()) {
    const Published& releases = known->second;
    const bool had_it = std::any_of(acquired.begin(), acquired.end(), [&](const Acquired& event) {
      return event.from == &releases && event.count == releases.size() &&
             ordered_within_block(event.when);
    });
    if (!had_it) acquired.push_back({&releases, releases.size(), stamp_now(0)});
  }
  if (!any_fence) return;
  const LaneClocks& mine = seen[running->warp][running->lane];
  const size_t first = running->warp * kWarpLanes;
  const size_t end = std::min(first + kWarpLanes, thread_fences.size());
  for (size_t thread = first; thread < end; ++thread) {
    const auto& fence = thread_fences[thread];
    const unsigned lane = unsigned(thread - first);
    if (fence && fence->clocks[lane] <= mine[lane]) publish(published[address], *fence);
  }
  for (const auto& fence : block_fences) {
    if (fence) publish(published[address], *fence);
  }
}

Stamp stamp_now(uint32_t place) {
  const unsigned warp = running->warp, lane = running->lane;
  return {this_block, interval, seen[warp][lane][lane], 1u << lane, warp, place};
}

bool ordered_before_now(const Stamp& stamp) {
  if (stamp.block == this_block && ordered_within_block(stamp)) return true;
  for (const Acquired& event : acquired) {
    if (!ordered_within_block(event.when)) continue;
    for (size_t i = 0; i < event.count; ++i) {
      if ((*event.from)[i].covers(stamp)) return true;
    }
  }
  return false;
}

uint32_t first_block_number() { return first_block; }
uint32_t block_number() { return this_block; }

}  // namespace cuda_on_cpu
