#pragma once

#include <driver_types.h>

namespace cuda_on_cpu {

// What cudaDeviceGetAttribute answers: 132 on an H200; with few, grid-stride loops go round.
extern int multiprocessors;

// What a launcher asks of the device: launches, copies, fills. The device may refuse one of them,
// as a GPU that lacks resources would; the launcher must return that error and ask for nothing
// more.
struct Requests {
  int made = 0;
  int refused = 0;  // from 1; 0 for none
};
extern Requests requests;
constexpr cudaError_t kRefusal = cudaErrorLaunchOutOfResources;

// Counts a request by `caller`; gives kRefusal for the refused one.
cudaError_t request(const void* caller);

}  // namespace cuda_on_cpu
