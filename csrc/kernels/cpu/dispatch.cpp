#include "dispatch.h"

#include <cstdlib>
#include <cstring>

#include "amx.h"

#ifdef FASTSSL_WITH_AMX
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace fastssl::cpu {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512", "amx"};

// Whether there is a matrix unit for bfloat16 that this process may use.
bool has_matrix_unit() {
#if defined(FASTSSL_WITH_AMX) && defined(__linux__)
  constexpr unsigned kTiles = 1 << 24, kBFloat16 = 1 << 22;  // in edx of leaf 7
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  if (!(edx & kTiles) || !(edx & kBFloat16)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(2), for all threads
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Level detect() {
  Level best = Level::kPortable;
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v3")) best = Level::kAvx2;
  if (__builtin_cpu_supports("x86-64-v4")) best = Level::kAvx512;
  if (best == Level::kAvx512 && has_matrix_unit()) best = Level::kAmx;
#endif
  if (const char* wanted = std::getenv("FASTSSL_CPU_CAPABILITY")) {
    for (int i = 0; i < int(best); ++i) {
      if (std::strcmp(wanted, kNames[i]) == 0) return Level(i);
    }
  }
  return best;
}

}  // namespace

Level level() {
  static const Level value = detect();
  return value;
}

const char* level_name() { return kNames[int(level())]; }

}  // namespace fastssl::cpu
