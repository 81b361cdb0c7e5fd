#include "../kernels/knn_graph.h"

#include <limits>

#include "../torch_api.h"

namespace fastssl {
namespace {

constexpr const char* kName = "knn_graph";
constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

using MaybeTensor = std::optional<Tensor>;

void check(const Tensor& rows, const MaybeTensor& queries, const MaybeTensor& own, int64_t k) {
  FASTSSL_CHECK(rows.dim() == 2 && rows.numel() > 0 && rows.size(0) <= kMost &&
                    rows.scalar_type() == ScalarType::Float,
                kName, ": expected float32 rows [N, D], not empty");
  FASTSSL_CHECK(0 < k && k < rows.size(0), kName, ": expected 0 < k < N");
  FASTSSL_CHECK(queries.has_value() == own.has_value(), kName,
                ": expected queries and own, or neither");
  if (!queries) return;
  FASTSSL_CHECK(queries->dim() == 2 && queries->size(1) == rows.size(1) && own->dim() == 1 &&
                    own->size(0) == queries->size(0) &&
                    queries->scalar_type() == ScalarType::Float &&
                    own->scalar_type() == ScalarType::Int,
                kName, ": expected float32 queries [M, D] and int32 own [M]");
  FASTSSL_CHECK(queries->device() == rows.device() && own->device() == rows.device(), kName,
                ": rows, queries and own are on different devices");
}

// Index and value [M, k].
std::tuple<Tensor, Tensor> empty_neighbors(const Tensor& rows, int64_t M, int64_t k) {
  return {allocate(rows, {M, k}, ScalarType::Int), allocate(rows, {M, k})};
}

std::tuple<Tensor, Tensor> neighbors_cpu(const Tensor& rows, MaybeTensor queries, MaybeTensor own,
                                         int64_t k) {
  check(rows, queries, own, k);
  const Tensor x = as_contiguous(rows);
  const int64_t N = x.size(0), M = queries ? queries->size(0) : N;
  if (queries) queries = as_contiguous(*queries), own = as_contiguous(*own);
  auto [index, value] = empty_neighbors(x, M, k);
  cpu::nearest_rows(pointer<float>(x), queries ? pointer<float>(*queries) : nullptr,
                    own ? pointer<int32_t>(*own) : nullptr, mutable_pointer<int32_t>(index),
                    mutable_pointer<float>(value), N, M, x.size(1), k);
  return {index, value};
}

std::tuple<Tensor, Tensor, Tensor> symmetrize_cpu(const Tensor& index, const Tensor& weight,
                                                  int64_t begin, int64_t end) {
  FASTSSL_CHECK(index.dim() == 2 && weight.dim() == 2 && index.size(0) == weight.size(0) &&
                    index.size(1) == weight.size(1) && index.scalar_type() == ScalarType::Int &&
                    weight.scalar_type() == ScalarType::Float && index.size(0) <= kMost,
                kName, ": expected int32 index and float32 weight [N, k]");
  FASTSSL_CHECK(0 <= begin && begin <= end && end <= index.size(0), kName,
                ": expected 0 <= begin <= end <= N");
  const Tensor i = as_contiguous(index), w = as_contiguous(weight);
  const int64_t N = i.size(0), k = i.size(1);
  const int32_t* columns = pointer<int32_t>(i);
  const float* weights = pointer<float>(w);
  for (int64_t e = 0; e < N * k; ++e) {
    FASTSSL_CHECK(!(weights[e] > 0) || (0 <= columns[e] && columns[e] < N), kName,
                  ": index is outside of [0, N)");
  }
  Tensor start = allocate(i, {end - begin + 1}, ScalarType::Long);
  Tensor column = allocate(i, {0}), value = allocate(w, {0});
  cpu::symmetric_rows(
      columns, weights, mutable_pointer<int64_t>(start),
      [&](int64_t nnz) {
        column = allocate(i, {nnz});
        value = allocate(w, {nnz});
        return cpu::Entries{mutable_pointer<int32_t>(column), mutable_pointer<float>(value)};
      },
      N, k, begin, end);
  return {start, column, value};
}

#ifdef FASTSSL_WITH_CUDA
std::tuple<Tensor, Tensor> neighbors_cuda(const Tensor& rows, MaybeTensor queries, MaybeTensor own,
                                          int64_t k) {
  check(rows, queries, own, k);
  const aten::accelerator::DeviceGuard guard(rows.get_device_index());
  const Tensor x = as_contiguous(rows), q = queries ? as_contiguous(*queries) : x;
  if (own) own = as_contiguous(*own);
  const int64_t M = q.size(0);
  auto [index, value] = empty_neighbors(x, M, k);
  Tensor workspace = allocate(x, {cuda::nearest_rows_workspace(M, k)}, ScalarType::Long);
  check_launch(cuda::nearest_rows(
                   pointer<float>(x), pointer<float>(q), own ? pointer<int32_t>(*own) : nullptr,
                   mutable_pointer<uint64_t>(workspace), mutable_pointer<int32_t>(index),
                   mutable_pointer<float>(value), x.size(0), M, x.size(1), k, current_stream(x)),
               kName);
  return {index, value};
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("knn_graph_neighbors", TORCH_BOX(&fastssl::neighbors_cpu));
  m.impl("knn_graph_symmetrize", TORCH_BOX(&fastssl::symmetrize_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("knn_graph_neighbors", TORCH_BOX(&fastssl::neighbors_cuda));
}
#endif
