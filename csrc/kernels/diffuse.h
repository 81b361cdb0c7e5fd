// Label diffusion on a graph (Zhou et al., 2004; Iscen et al., 2019, eq. 8): the solution of
// (I - alpha W) F = Y by conjugate gradients, every class at once.
//
// N rows, C classes, nnz entries of W in compressed rows. A column's iterates and the iteration
// where it stops are those of solving it alone: its step lengths are its own, and once its residual
// is at most tolerance * |y| its step length is 0. Dot products are summed in fp64.
//
// With q = (I - alpha W) p, the squared residual after the step is predicted from three dot
// products of the same pass, rr - 2 a <r,q> + a^2 <q,q>, so that x, r and the next p are updated in
// one pass over the vectors. The next iteration starts from the residual as it is.
#pragma once

#include <cstdint>
#include <limits>

#ifdef FASTSSL_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace fastssl {

// What <r,r> must come down to; finite, so that an infinite seed ends in NaN and not at once.
constexpr double squared_threshold(double square, double tolerance) {
  const double threshold = tolerance * tolerance * square;
  return threshold > std::numeric_limits<double>::max() ? std::numeric_limits<double>::max()
                                                        : threshold;
}

// A column's step: x += length p, r -= length q, p = r + momentum p.
template <class acc_t>
struct Step {
  acc_t length, momentum;
  bool last;  // the residual after it is small enough
};

// rr = <r,r> before the step.
template <class acc_t>
constexpr Step<acc_t> conjugate_step(double rr, double pq, double rq, double qq, double threshold) {
  const acc_t length = acc_t(rr / pq);
  const double a = double(length);  // as it will be used
  const double left = rr - 2 * a * rq + a * a * qq;
  const double predicted = left < 0 ? 0 : left;
  return {length, acc_t(predicted / rr), predicted <= threshold};
}

}  // namespace fastssl

namespace fastssl::cpu {

// Rows of a matrix; columns are numbered over all rows that there are.
struct SparseRows {
  const int32_t* crow;  // [N + 1]
  const int32_t* col;   // [nnz]
  const float* value;   // [nnz]
  int64_t N;
};

// Whether crow rises from 0 to nnz and every col lies in [0, columns).
bool is_valid(const SparseRows& graph, int64_t nnz, int64_t columns);

template <class scalar_t>
void diffuse(const SparseRows& graph,
             const scalar_t* seeds,  // [N, C]
             scalar_t* scores,       // [N, C]
             int64_t* iterations,    // [C]
             int64_t C, double alpha, double tolerance, int64_t max_iterations);

// product = p - alpha W p for the rows of a graph that start at first_row of p.
template <class acc_t>
void diffuse_product(const SparseRows& graph,
                     const acc_t* vectors,  // p [M, C]
                     acc_t* product,        // [N, C]
                     int64_t first_row, int64_t M, int64_t C, double alpha);

}  // namespace fastssl::cpu

#ifdef FASTSSL_WITH_CUDA
namespace fastssl::cuda {

// Blocks of rows whose dot products are summed apart: the first size of partials.
int64_t diffuse_blocks(int64_t N);

// Workspace: vectors [4, N, C], partials [blocks, 4, C], columns [3, C], running [1]. An entry
// outside the matrix makes its row NaN: looking for one beforehand would wait for the device.
template <class scalar_t, class acc_t>
cudaError_t diffuse(const int32_t* crow, const int32_t* col, const float* value,
                    const scalar_t* seeds, scalar_t* scores, int64_t* iterations, acc_t* vectors,
                    double* partials, double* columns, int32_t* running, int64_t N, int64_t nnz,
                    int64_t C, double alpha, double tolerance, int64_t max_iterations,
                    cudaStream_t stream);

template <class acc_t>
cudaError_t diffuse_product(const int32_t* crow, const int32_t* col, const float* value,
                            const acc_t* vectors, acc_t* product, int64_t first_row, int64_t M,
                            int64_t N, int64_t nnz, int64_t C, double alpha, cudaStream_t stream);

}  // namespace fastssl::cuda
#endif
