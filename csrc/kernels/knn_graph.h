// The nearest neighbours of rows, and the symmetric matrix of weights made of them.
//
// N rows of D features, each of length 1 or 0; M queries, which are rows themselves; k neighbours a
// query: the rows of largest inner product with it, itself left out, in that order, and of equal
// ones those of lower index first. Products that are not positive make no neighbours: where there
// are fewer than k, index is -1 and value 0.
#pragma once

#include <cstdint>
#include <functional>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl::cpu {

void nearest_rows(const float* rows,     // [N, D]
                  const float* queries,  // [M, D]; null for all rows
                  const int32_t* own,    // [M], which row each query is; null for all rows
                  int32_t* index,        // [M, k]
                  float* value,          // [M, k]
                  int64_t N, int64_t M, int64_t D, int64_t k);

// Where the entries of a matrix in compressed rows go.
struct Entries {
  int32_t* column;  // [nnz]
  float* value;     // [nnz]
};

// Rows [begin, end) of D^-1/2 (A + A^T) D^-1/2, where A [N, N] holds weight[i, t] >= 0 at
// (i, index[i, t]) and D the row sums of A + A^T. Columns ascend within a row; zero weights make no
// entry. `allocate` is called once, with the number of entries.
void symmetric_rows(const int32_t* index,  // [N, k]
                    const float* weight,   // [N, k]
                    int64_t* start,        // [end - begin + 1], of each row in the entries
                    const std::function<Entries(int64_t)>& allocate, int64_t N, int64_t k,
                    int64_t begin, int64_t end);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// Elements of the workspace of nearest_rows; 0 if it needs none.
int64_t nearest_rows_workspace(int64_t M, int64_t k);

// `queries` and `own` are needed; `workspace` may be null if it is empty.
cudaError_t nearest_rows(const float* rows, const float* queries, const int32_t* own,
                         uint64_t* workspace, int32_t* index, float* value, int64_t N, int64_t M,
                         int64_t D, int64_t k, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
