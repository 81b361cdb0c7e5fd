#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "findings.h"
#include "memory.h"
#include "scheduler.h"

namespace cuda_on_cpu {
namespace {

constexpr size_t kSmallestGuard = 1 << 20;
constexpr size_t kAlignment = 256;      // as cudaMalloc's
constexpr size_t kLargestGranule = 16;  // the widest access of one thread
constexpr int kPoison = 0xff;  // NaN in every floating-point type, -1 in every signed integer

size_t guard_bytes(size_t bytes) {
  return std::max(kSmallestGuard, (bytes + kAlignment) / kAlignment * kAlignment);
}

size_t lowest_set_bit(size_t value) { return value & -value; }

const char* verb(Access access) {
  return access == Access::kRead ? "read" : access == Access::kWrite ? "write" : "atomic";
}

}  // namespace

GuardedRegion::GuardedRegion(size_t bytes, size_t offset)
    : mapped_bytes_(guard_bytes(bytes) + offset + bytes + guard_bytes(bytes)) {
  void* mapped = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  mapped_ = static_cast<char*>(mapped);
  begin_ = mapped_ + guard_bytes(bytes) + offset;
}

GuardedRegion::~GuardedRegion() { munmap(mapped_, mapped_bytes_); }

Buffer::Buffer(BufferTraits traits)
    : traits_(std::move(traits)),
      region_(traits_.bytes, traits_.offset),
      granule_(std::min(lowest_set_bit(traits_.element_bytes), kLargestGranule)) {
  if (!traits_.initialised) forget();
}

void Buffer::forget() {
  std::memset(begin(), kPoison, traits_.bytes);
  initialised_.assign(traits_.bytes, 0);
}

void Buffer::mark_initialised(const char* address, size_t bytes) {
  if (!initialised_.empty()) std::memset(&initialised_[address - begin()], 1, bytes);
}

std::string Buffer::element_at(const char* address) const {
  const size_t offset = address - begin(), part = offset % traits_.element_bytes;
  std::string text = traits_.name + "[" + std::to_string(offset / traits_.element_bytes) + "]";
  if (part != 0) text += " + " + std::to_string(part) + (part == 1 ? " byte" : " bytes");
  return text;
}

// ---- races --------------------------------------------------------------------------------------

// Of an earlier launch, or for shared memory of an earlier block: over before this one began.
bool Buffer::is_past(const Stamp& stamp) const {
  return stamp.block < (traits_.shared ? block_number() : first_block_number());
}

const Stamp* Buffer::racing(const Stamp (&groups)[2]) const {
  for (const Stamp& group : groups) {
    if (!is_past(group) && !ordered_before_now(group)) return &group;
  }
  return nullptr;
}

void Buffer::remember(Stamp (&groups)[2], const Stamp& now) const {
  for (Stamp& group : groups) {
    if (now.concurrent_part_of(group)) {
      group.lanes |= now.lanes;
      return;
    }
  }
  for (Stamp& group : groups) {
    if (is_past(group) || ordered_before_now(group)) {
      group = now;
      return;
    }
  }
  // A third concurrent group: what betrays most is two groups from different warps or blocks.
  if (groups[0].block == groups[1].block && groups[0].warp == groups[1].warp) groups[1] = now;
}

void Buffer::check_race(Cell& cell, const char* address, Access access, const Stamp& now) {
  const Stamp* other = nullptr;
  Access by_other = Access::kWrite;
  if (!is_past(cell.write) && !ordered_before_now(cell.write)) other = &cell.write;
  if (other == nullptr && access != Access::kAtomic) {
    other = racing(cell.atomics);
    by_other = Access::kAtomic;
  }
  if (other == nullptr && access != Access::kRead) {
    other = racing(cell.reads);
    by_other = Access::kRead;
  }
  if (other != nullptr) {
    const bool same_block = other->block == now.block;
    const bool same_warp = same_block && other->warp == now.warp;
    const unsigned lanes = same_warp ? other->lanes & ~now.lanes : other->lanes;
    report(Kind::kRace, "%s of %s, unordered with the %s at %s by thread %u of %s block",
           verb(access), element_at(address).c_str(), verb(by_other), place(other->place).c_str(),
           other->warp * kWarpLanes + unsigned(__builtin_ctz(lanes)),
           same_block ? "this" : "another");
  }
  switch (access) {
    case Access::kRead:
      remember(cell.reads, now);
      break;
    case Access::kAtomic:
      remember(cell.atomics, now);
      break;
    case Access::kWrite:
      cell = Cell();  // all of it is ordered before this write
      cell.write = now;
      break;
  }
}

// Cuts the cells up, so that each lies wholly inside or outside the accesses to come.
void Buffer::refine(size_t granule) {
  const size_t parts = granule_ / granule;
  const size_t count = (traits_.bytes + granule_ - 1) / granule_;
  auto* fine = static_cast<Cell*>(calloc(count * parts, sizeof(Cell)));
  if (fine == nullptr) throw std::bad_alloc();
  if (cells_ != nullptr) {
    for (size_t i = 0; i < count * parts; ++i) fine[i] = cells_[i / parts];
  }
  cells_.reset(fine);
  granule_ = granule;
}

bool Buffer::written_in_this_launch(const char* address, size_t bytes) {
  if (cells_ == nullptr) return false;
  const size_t offset = address - begin();
  for (size_t i = offset / granule_; i * granule_ < offset + bytes; ++i) {
    if (!is_past(cells_[i].write) || !is_past(cells_[i].atomics[0])) return true;
  }
  return false;
}

// ---- an access ----------------------------------------------------------------------------------

void Buffer::check(const char* address, size_t bytes, Access access, const void* caller) {
  if (!traits_.writable) {  // nobody writes, so nothing races
    if (access != Access::kRead) {
      report(Kind::kReadOnly, "%s of %s, passed as const", verb(access),
             element_at(address).c_str());
    }
    return;
  }
  const size_t offset = address - begin();
  if (!initialised_.empty()) {
    uint8_t* state = &initialised_[offset];
    if (access == Access::kWrite) {
      std::memset(state, 1, bytes);
    } else if (const void* hole = std::memchr(state, 0, bytes)) {
      const char* unset = address + (static_cast<const uint8_t*>(hole) - state);
      report(Kind::kUninitialised, "%s of %s, which nobody has written so far", verb(access),
             element_at(unset).c_str());
    }
  }
  const size_t granule = lowest_set_bit(offset | bytes | granule_);
  if (cells_ == nullptr || granule < granule_) refine(granule);
  const Stamp now = stamp_now(code_offset(caller));
  for (size_t i = offset / granule_; i * granule_ < offset + bytes; ++i) {
    check_race(cells_[i], begin() + i * granule_, access, now);
  }
}

}  // namespace cuda_on_cpu
