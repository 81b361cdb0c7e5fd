#pragma once

namespace cuda_on_cpu {

// What cudaDeviceGetAttribute answers: 132 on an H200; with few, grid-stride loops go round.
extern int multiprocessors;

}  // namespace cuda_on_cpu
