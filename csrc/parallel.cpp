// Threads for the CPU kernels: torch's own pool, so that torch.set_num_threads governs both.
#include "kernels/cpu/parallel.h"

#include "torch_api.h"

namespace fastssl::cpu {

void run_parallel(int64_t n, int64_t grain, void (*task)(const void*, int64_t, int64_t),
                  const void* context) {
  aten::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { task(context, begin, end); });
}

}  // namespace fastssl::cpu
