// Happens-before: which of two accesses is known to come first, whatever the hardware does.
//
// Within a block __syncthreads cuts time into intervals. Within an interval, lanes of a warp are
// ordered by __syncwarp: each lane has a clock and a vector of the clocks of others it has seen
// (a vector clock). Blocks, and threads that share nothing else, are ordered by __threadfence and
// atomics: an atomic publishes, at its address, all that the thread's fence covered; who does an
// atomic there later acquires it.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace cuda_on_cpu {

// An access, by one lane or by several lanes of a warp at the same time.
struct Stamp {
  uint32_t block = 0;  // a number no other block has, in any launch; 0: no access
  uint32_t interval = 0;
  uint32_t clock = 0;
  uint32_t lanes = 0;
  uint32_t warp = 0;
  uint32_t place = 0;  // code_offset() of one of them

  bool concurrent_part_of(const Stamp& group) const {
    return block == group.block && interval == group.interval && warp == group.warp &&
           clock == group.clock;
  }
};

void begin_launch();
void begin_block();
void join_block();                              // at a __syncthreads
void join_lanes(unsigned warp, unsigned mask);  // at a __syncwarp
void publish_and_acquire(const void* address);  // at an atomic

// The running thread's access.
Stamp stamp_now(uint32_t place);
// Is this access ordered before whatever the running thread does next?
bool ordered_before_now(const Stamp& stamp);

// The first block of this launch, and the block that runs.
uint32_t first_block_number();
uint32_t block_number();

}  // namespace cuda_on_cpu
