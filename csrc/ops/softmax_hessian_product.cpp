#include "../kernels/softmax_hessian_product.h"

#include "../torch_api.h"

namespace fastssl {
namespace {

constexpr const char* kName = "softmax_hessian_product";

void check(const Tensor& logits, const Tensor& tangent) {
  FASTSSL_CHECK(logits.dim() == 2 && tangent.dim() == 2 && logits.size(0) == tangent.size(0) &&
                    logits.size(1) == tangent.size(1) && logits.numel() > 0,
                kName, ": expected logits and tangent [N, C], not empty");
  FASTSSL_CHECK(
      logits.scalar_type() == tangent.scalar_type() && logits.device() == tangent.device(), kName,
      ": logits and tangent differ in dtype or device");
}

Tensor softmax_hessian_product_cpu(const Tensor& logits, const Tensor& tangent) {
  check(logits, tangent);
  const Tensor x = aten::contiguous(logits), t = aten::contiguous(tangent);
  Tensor product = aten::empty_like(x);
  dispatch_floats<CpuTypes>(x, kName, [&]<class scalar_t>() {
    cpu::softmax_hessian_product(pointer<scalar_t>(x), pointer<scalar_t>(t),
                                 mutable_pointer<scalar_t>(product), x.size(0), x.size(1));
  });
  return product;
}

#ifdef FASTSSL_WITH_CUDA
Tensor softmax_hessian_product_cuda(const Tensor& logits, const Tensor& tangent) {
  check(logits, tangent);
  const aten::accelerator::DeviceGuard guard(logits.get_device_index());
  const Tensor x = aten::contiguous(logits), t = aten::contiguous(tangent);
  Tensor product = aten::empty_like(x);
  dispatch_floats<CudaTypes>(x, kName, [&]<class scalar_t>() {
    check_launch(cuda::softmax_hessian_product(pointer<scalar_t>(x), pointer<scalar_t>(t),
                                               mutable_pointer<scalar_t>(product), x.size(0),
                                               x.size(1), current_stream(x)),
                 kName);
  });
  return product;
}
#endif

}  // namespace
}  // namespace fastssl

STABLE_TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("softmax_hessian_product", TORCH_BOX(&fastssl::softmax_hessian_product_cpu));
}
#ifdef FASTSSL_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("softmax_hessian_product", TORCH_BOX(&fastssl::softmax_hessian_product_cuda));
}
#endif
