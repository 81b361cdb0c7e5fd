#include "../kernels/diffuse.h"

#include "../torch_api.h"

namespace fastssl {
namespace {

// Rows of a graph, contiguous.
struct Graph {
  Tensor crow, col, value;
  int64_t N, nnz;
};

Graph checked(const char* op, const Tensor& crow, const Tensor& col, const Tensor& value,
              const Tensor& vectors, int64_t first_row) {
  FASTSSL_CHECK(crow.dim() == 1 && crow.numel() > 1 && col.dim() == 1 && value.dim() == 1 &&
                    col.numel() == value.numel(),
                op, ": expected crow [N + 1], col [nnz] and value [nnz]");
  FASTSSL_CHECK(crow.scalar_type() == ScalarType::Int && col.scalar_type() == ScalarType::Int &&
                    value.scalar_type() == ScalarType::Float,
                op, ": expected crow and col in int32, value in float32");
  FASTSSL_CHECK(crow.device() == vectors.device() && col.device() == vectors.device() &&
                    value.device() == vectors.device(),
                op, ": graph and vectors differ in device");
  FASTSSL_CHECK(vectors.dim() == 2 && vectors.numel() > 0, op,
                ": expected vectors of C columns, not empty");
  const int64_t N = crow.numel() - 1;
  FASTSSL_CHECK(first_row >= 0 && N <= vectors.size(0) - first_row, op,
                ": the graph has more rows than the vectors");
  return {as_contiguous(crow), as_contiguous(col), as_contiguous(value), N, col.numel()};
}

Graph checked_square(const Tensor& crow, const Tensor& col, const Tensor& value,
                     const Tensor& seeds) {
  const Graph graph = checked("diffuse", crow, col, value, seeds, 0);
  FASTSSL_CHECK(graph.N == seeds.size(0), "diffuse: expected seeds [N, C] for a graph of N rows");
  return graph;
}

cpu::SparseRows on_cpu(const char* op, const Graph& graph, int64_t columns) {
  const cpu::SparseRows rows{pointer<int32_t>(graph.crow), pointer<int32_t>(graph.col),
                             pointer<float>(graph.value), graph.N};
  FASTSSL_CHECK(cpu::is_valid(rows, graph.nnz, columns), op,
                ": crow does not rise from 0 to nnz, or col lies outside [0, N)");
  return rows;
}

std::tuple<Tensor, Tensor> diffuse_cpu(const Tensor& crow, const Tensor& col, const Tensor& value,
                                       const Tensor& seeds, double alpha, double tolerance,
                                       int64_t max_iterations) {
  const Graph graph = checked_square(crow, col, value, seeds);
  const cpu::SparseRows rows = on_cpu("diffuse", graph, graph.N);
  const Tensor y = as_contiguous(seeds);
  Tensor scores = allocate_like(y), iterations = allocate(y, {y.size(1)}, ScalarType::Long);
  dispatch_floats<CpuTypes>(y, "diffuse", [&]<class scalar_t>() {
    cpu::diffuse(rows, pointer<scalar_t>(y), mutable_pointer<scalar_t>(scores),
                 mutable_pointer<int64_t>(iterations), y.size(1), alpha, tolerance, max_iterations);
  });
  return {scores, iterations};
}

// Calls body.operator()<acc>() for float32 or float64.
template <class Body>
void dispatch_accumulators(const Tensor& vectors, const Body& body) {
  if (vectors.scalar_type() == ScalarType::Float) return body.template operator()<float>();
  FASTSSL_CHECK(vectors.scalar_type() == ScalarType::Double,
                "diffuse_product: expected vectors in float32 or float64");
  body.template operator()<double>();
}

Tensor diffuse_product_cpu(const Tensor& crow, const Tensor& col, const Tensor& value,
                           const Tensor& vectors, int64_t first_row, double alpha) {
  const Graph graph = checked("diffuse_product", crow, col, value, vectors, first_row);
  const cpu::SparseRows rows = on_cpu("diffuse_product", graph, vectors.size(0));
  const Tensor p = as_contiguous(vectors);
  Tensor product = allocate(p, {graph.N, p.size(1)});
  dispatch_accumulators(p, [&]<class acc>() {
    cpu::diffuse_product(rows, pointer<acc>(p), mutable_pointer<acc>(product), first_row, p.size(0),
                         p.size(1), alpha);
  });
  return product;
}

#ifdef FASTSSL_WITH_CUDA
std::tuple<Tensor, Tensor> diffuse_cuda(const Tensor& crow, const Tensor& col, const Tensor& value,
                                        const Tensor& seeds, double alpha, double tolerance,
                                        int64_t max_iterations) {
  const Graph graph = checked_square(crow, col, value, seeds);
  const aten::accelerator::DeviceGuard guard(seeds.get_device_index());
  const Tensor y = as_contiguous(seeds);
  const int64_t N = graph.N, C = y.size(1), blocks = cuda::diffuse_blocks(N);
  Tensor scores = allocate_like(y), iterations = allocate(y, {C}, ScalarType::Long),
         vectors = allocate(y, {4, N, C}, accumulator_dtype(y)),
         partials = allocate(y, {blocks, 4, C}, ScalarType::Double),
         columns = allocate(y, {3, C}, ScalarType::Double),
         running = allocate(y, {1}, ScalarType::Int);
  dispatch_floats<CudaTypes>(y, "diffuse", [&]<class scalar_t>() {
    using acc = cpu::acc_t<scalar_t>;
    check_launch(
        cuda::diffuse(pointer<int32_t>(graph.crow), pointer<int32_t>(graph.col),
                      pointer<float>(graph.value), pointer<scalar_t>(y),
                      mutable_pointer<scalar_t>(scores), mutable_pointer<int64_t>(iterations),
                      mutable_pointer<acc>(vectors), mutable_pointer<double>(partials),
                      mutable_pointer<double>(columns), mutable_pointer<int32_t>(running), N,
                      graph.nnz, C, alpha, tolerance, max_iterations, current_stream(y)),
        "diffuse");
  });
  return {scores, iterations};
}

Tensor diffuse_product_cuda(const Tensor& crow, const Tensor& col, const Tensor& value,
                            const Tensor& vectors, int64_t first_row, double alpha) {
  const Graph graph = checked("diffuse_product", crow, col, value, vectors, first_row);
  const aten::accelerator::DeviceGuard guard(vectors.get_device_index());
  const Tensor p = as_contiguous(vectors);
  Tensor product = allocate(p, {graph.N, p.size(1)});
  dispatch_accumulators(p, [&]<class acc>() {
    check_launch(cuda::diffuse_product(pointer<int32_t>(graph.crow), pointer<int32_t>(graph.col),
                                       pointer<float>(graph.value), pointer<acc>(p),
                                       mutable_pointer<acc>(product), first_row, p.size(0), graph.N,
                                       graph.nnz, p.size(1), alpha, current_stream(p)),
                 "diffuse_product");
  });
  return product;
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("diffuse", TORCH_BOX(&fastssl::diffuse_cpu));
  m.impl("diffuse_product", TORCH_BOX(&fastssl::diffuse_product_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("diffuse", TORCH_BOX(&fastssl::diffuse_cuda));
  m.impl("diffuse_product", TORCH_BOX(&fastssl::diffuse_product_cuda));
}
#endif
