#include "../complementary_correction.h"

#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "product.h"
#include "softmax.h"

namespace fastssl::cpu {
namespace {

// A block's activations share the second-level cache with the weights.
constexpr int64_t kBlockElements = 1 << 16;
constexpr int64_t kMostBlockRows = 64;
static_assert(kMostBlockRows <= kDepth);
constexpr int64_t kTaskBlocks = 4;  // the least work that is worth a thread
// Parameter gradients are summed by chunks of rows, and the chunks in order: the number of threads
// does not change them.
constexpr int64_t kChunkRows = 256, kMostChunks = 64;

// Hands out the pieces of an allocation; without one it counts what they take.
template <class acc>
class Carver {
 public:
  explicit Carver(acc* start) : start_(start) {}
  Matrix<acc> matrix(int64_t rows, int64_t columns) {
    const int64_t ld = matrix_ld(tile_, columns), at = taken_;
    taken_ += round_up(rows, tile_.rows) * ld;
    return {start_ == nullptr ? nullptr : start_ + at, ld};
  }
  // For a matrix whose rows are read further than they are written.
  Matrix<acc> zeros(int64_t rows, int64_t columns) {
    const int64_t before = taken_;
    const Matrix<acc> made = matrix(rows, columns);
    if (start_ != nullptr) std::fill_n(made.data, taken_ - before, acc(0));
    return made;
  }
  int64_t taken() const { return taken_; }

 private:
  const Tile tile_ = tile<acc>();
  acc* start_;
  int64_t taken_ = 0;
};

// How many elements the pieces of a T take.
template <class T, class acc, class... Arguments>
int64_t elements(const Arguments&... arguments) {
  Carver<acc> carver(nullptr);
  T(carver, arguments...);
  return carver.taken();
}

// Parameters in the accumulation type, the weights as both right operands.
template <class acc>
struct Packed {
  Packed(Carver<acc>& carver, const CorrectionShape& shape) {
    for (int l = 0; l < kCorrectionLayers; ++l) {
      transposed[l] = carver.matrix(shape.inputs[l], shape.outputs[l]);
      weight[l] = carver.matrix(shape.outputs[l], shape.inputs[l]);
      bias[l] = carver.matrix(1, shape.outputs[l]);
    }
  }
  Matrix<acc> transposed[kCorrectionLayers];  // [inputs, outputs]
  Matrix<acc> weight[kCorrectionLayers];      // [outputs, inputs]
  Matrix<acc> bias[kCorrectionLayers];        // [1, outputs]
};

// Gradients of the parameters, summed over a chunk of rows.
template <class acc>
struct Sums {
  Sums(Carver<acc>& carver, const CorrectionShape& shape) {
    for (int l = 0; l < kCorrectionLayers; ++l) {
      weight[l] = carver.matrix(shape.outputs[l], shape.inputs[l]);
      bias[l] = carver.matrix(1, shape.outputs[l]);
    }
  }
  Matrix<acc> weight[kCorrectionLayers];  // [outputs, inputs]
  Matrix<acc> bias[kCorrectionLayers];    // [1, outputs]
};

// A block of rows: inputs, outputs of the layers, gradients. joined is kRaw's output, then
// kFeature2's.
template <class acc>
struct Block {
  Block(Carver<acc>& carver, const CorrectionShape& shape, int64_t rows) {
    // Each half of a row of joined is written in whole vectors.
    const int64_t joined_columns =
        shape.outputs[kRaw] + matrix_ld(tile<acc>(), shape.outputs[kFeature2]);
    for (auto m : {&raw, &delta, &grad, &grad_raw}) *m = carver.matrix(rows, shape.C);
    for (auto m : {&features, &grad_features}) *m = carver.matrix(rows, shape.D);
    for (auto m : {&first, &grad_first}) *m = carver.matrix(rows, shape.outputs[kFeature1]);
    for (auto m : {&joined, &grad_joined}) *m = carver.zeros(rows, joined_columns);
    for (auto m : {&join, &grad_join}) *m = carver.matrix(rows, shape.outputs[kJoin]);
  }
  Matrix<acc> raw, features, first, joined, join, delta;
  Matrix<acc> grad, grad_raw, grad_features, grad_first, grad_joined, grad_join;
};

// to [count, columns] = rows of a tensor, filled up with zeros; then rows of zeros to a whole tile.
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void load_rows_body(const Rows<scalar_t> from, int64_t first, int64_t count,
                                   int64_t columns, const Matrix<acc> to) {
  using simd = Simd<Isa, acc>;
  const int64_t padded = round_up(columns, simd::kLanes);
  for (int64_t n = 0; n < count; ++n) {
    const scalar_t* row = from.row(first + n, columns, padded);
    for (int64_t j = 0; j < padded; j += simd::kLanes) {
      simd::store(to.data + n * to.ld + j,
                  simd::fill_tail(simd::load(row + j), columns - j, acc(0)));
    }
  }
  const int64_t rows = round_up(count, Isa::kRows);
  std::memset(to.data + count * to.ld, 0, (rows - count) * to.ld * sizeof(acc));
}
FASTSSL_PER_LEVEL(load_rows, load_rows_body)

// Rows of a tensor = from + plus, [count, columns]; plus may be null.
template <class Isa, class scalar_t, class acc>
FASTSSL_INLINE void store_rows_body(const Matrix<acc> from, const Matrix<acc> plus, int64_t first,
                                    int64_t count, int64_t columns, scalar_t* to) {
  using simd = Simd<Isa, acc>;
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t j = 0; j < columns; j += simd::kLanes) {
      typename simd::Vector x = simd::load(from.data + n * from.ld + j);
      if (plus.data != nullptr) x += simd::load(plus.data + n * plus.ld + j);
      // Past a row's end lies the next row, which is written later.
      const bool is_inside = (count - n) * columns - j >= simd::kLanes;
      simd::store_head(to + (first + n) * columns + j, x, is_inside ? simd::kLanes : columns - j);
    }
  }
}
FASTSSL_PER_LEVEL(store_rows, store_rows_body)

// out [rows, outputs] = in transposed + bias, then LeakyReLU; a slope of 1 is none.
template <class Isa, class acc>
FASTSSL_INLINE void apply_layer_body(const Matrix<acc> in, const Matrix<acc> transposed,
                                     const Matrix<acc> bias, acc slope, const Matrix<acc> out,
                                     int64_t rows, int64_t inputs, int64_t outputs) {
  using simd = Simd<Isa, acc>;
  multiply<Isa>(Left<acc>{in.data, in.ld, 1}, transposed, rows, outputs, inputs, out,
                [=](int64_t, int64_t j, typename simd::Vector sum) {
                  const typename simd::Vector x = sum + simd::load(bias.data + j);
                  return x > 0 ? x : slope * x;
                });
}
FASTSSL_PER_LEVEL(apply_layer, apply_layer_body)

// grad_in [rows, inputs] = grad_out weight, times LeakyReLU's derivative at `in`, its output; a
// null `in` is the network's own input.
template <class Isa, class acc>
FASTSSL_INLINE void propagate_body(const Matrix<acc> grad_out, const Matrix<acc> weight,
                                   const Matrix<acc> in, acc slope, const Matrix<acc> grad_in,
                                   int64_t rows, int64_t inputs, int64_t outputs) {
  using simd = Simd<Isa, acc>;
  const Left<acc> left{grad_out.data, grad_out.ld, 1};
  if (in.data == nullptr) {
    multiply<Isa>(left, weight, rows, inputs, outputs, grad_in,
                  [](int64_t, int64_t, typename simd::Vector sum) { return sum; });
  } else {
    multiply<Isa>(left, weight, rows, inputs, outputs, grad_in,
                  [=](int64_t i, int64_t j, typename simd::Vector sum) {
                    return simd::load(in.data + i * in.ld + j) > 0 ? sum : slope * sum;
                  });
  }
}
FASTSSL_PER_LEVEL(propagate, propagate_body)

// weight [outputs, inputs] += grad_out^T in, bias [outputs] += column sums of grad_out.
template <class Isa, class acc>
FASTSSL_INLINE void accumulate_body(const Matrix<acc> grad_out, const Matrix<acc> in,
                                    const Matrix<acc> weight, const Matrix<acc> bias, int64_t rows,
                                    int64_t inputs, int64_t outputs) {
  using simd = Simd<Isa, acc>;
  multiply<Isa>(Left<acc>{grad_out.data, 1, grad_out.ld}, in, outputs, inputs, rows, weight,
                [=](int64_t i, int64_t j, typename simd::Vector sum) {
                  return sum + simd::load(weight.data + i * weight.ld + j);
                });
  for (int64_t j = 0; j < outputs; j += simd::kLanes) {
    typename simd::Vector sum{};
    for (int64_t n = 0; n < rows; ++n) sum += simd::load(grad_out.data + n * grad_out.ld + j);
    simd::store(bias.data + j, sum + simd::load(bias.data + j));
  }
}
FASTSSL_PER_LEVEL(accumulate, accumulate_body)

// to [outputs, inputs] = the sum over chunks of from [outputs, inputs], which are `size` apart.
template <class Isa, class param_t, class acc>
FASTSSL_INLINE void store_sums_body(const Matrix<acc> from, int64_t chunks, int64_t size,
                                    int64_t outputs, int64_t inputs, param_t* to) {
  using simd = Simd<Isa, acc>;
  for (int64_t o = 0; o < outputs; ++o) {
    for (int64_t i = 0; i < inputs; i += simd::kLanes) {
      typename simd::Vector sum{};
      for (int64_t c = 0; c < chunks; ++c) {
        sum += simd::load(from.data + c * size + o * from.ld + i);
      }
      simd::store_head(to + o * inputs + i, sum, inputs - i);
    }
  }
}
FASTSSL_PER_LEVEL(store_sums, store_sums_body)

// Rows [first, first + count) of a tensor [N, columns].
template <class scalar_t, class acc>
void load(const scalar_t* from, int64_t N, int64_t columns, int64_t first, int64_t count,
          const Matrix<acc>& to) {
  Scratch<scalar_t> edge(to.ld);
  load_rows(Rows<scalar_t>{from, from + N * columns, edge}, first, count, columns, to);
}

// The network on blocks of rows.
template <class acc>
class Network {
 public:
  template <class param_t>
  Network(const CorrectionLayers<const param_t>& parameters, double slope,
          const CorrectionShape& shape)
      : shape_(shape),
        slope_(acc(slope)),
        memory_(elements<Packed<acc>, acc>(shape)),
        carver_(memory_),
        packed_(carver_, shape) {
    for (int l = 0; l < kCorrectionLayers; ++l) {
      const int64_t inputs = shape.inputs[l], outputs = shape.outputs[l];
      const Matrix<acc> weight = packed_.weight[l], transposed = packed_.transposed[l];
      load(parameters.weight[l], outputs, inputs, 0, outputs, weight);
      load(parameters.bias[l], 1, outputs, 0, 1, packed_.bias[l]);
      transpose(weight, outputs, inputs, transposed);
    }
  }

  int64_t block_rows() const {
    const int64_t rows = tile<acc>().rows;
    const int64_t most = kBlockElements / block_elements(rows) * rows;
    return std::clamp(most, rows, kMostBlockRows);
  }
  int64_t block_elements(int64_t rows) const { return elements<Block<acc>, acc>(shape_, rows); }

  // The activations of a block.
  void activate(const Block<acc>& block, int64_t rows) const {
    apply(kRaw, slope_, block.raw, block.joined, rows);
    apply(kFeature1, slope_, block.features, block.first, rows);
    apply(kFeature2, slope_, block.first, second(block.joined), rows);
    apply(kJoin, slope_, block.joined, block.join, rows);
  }

  void correct(const Block<acc>& block, int64_t rows) const {
    activate(block, rows);
    apply(kOut, acc(1), block.join, block.delta, rows);
  }

  // From the activations and block.grad: the gradients of the inputs, if they are wanted, and what
  // the rows add to those of the parameters, if there are sums.
  void differentiate(const Block<acc>& block, int64_t rows, bool wants_raw, bool wants_features,
                     const Sums<acc>* sums) const {
    const Matrix<acc> grad_second = second(block.grad_joined), none{nullptr, 0};
    propagate_back(kOut, block.grad, block.join, block.grad_join, rows);
    propagate_back(kJoin, block.grad_join, block.joined, block.grad_joined, rows);
    propagate_back(kFeature2, grad_second, block.first, block.grad_first, rows);
    if (wants_raw) propagate_back(kRaw, block.grad_joined, none, block.grad_raw, rows);
    if (wants_features)
      propagate_back(kFeature1, block.grad_first, none, block.grad_features, rows);
    if (sums == nullptr) return;
    add(kOut, block.grad, block.join, *sums, rows);
    add(kJoin, block.grad_join, block.joined, *sums, rows);
    add(kFeature2, grad_second, block.first, *sums, rows);
    add(kRaw, block.grad_joined, block.raw, *sums, rows);
    add(kFeature1, block.grad_first, block.features, *sums, rows);
  }

 private:
  Matrix<acc> second(const Matrix<acc>& joined) const {
    return {joined.data + shape_.outputs[kRaw], joined.ld};
  }
  void apply(CorrectionLayer l, acc slope, const Matrix<acc>& in, const Matrix<acc>& out,
             int64_t rows) const {
    apply_layer(in, packed_.transposed[l], packed_.bias[l], slope, out, rows, shape_.inputs[l],
                shape_.outputs[l]);
  }
  void propagate_back(CorrectionLayer l, const Matrix<acc>& grad_out, const Matrix<acc>& in,
                      const Matrix<acc>& grad_in, int64_t rows) const {
    propagate(grad_out, packed_.weight[l], in, slope_, grad_in, rows, shape_.inputs[l],
              shape_.outputs[l]);
  }
  void add(CorrectionLayer l, const Matrix<acc>& grad_out, const Matrix<acc>& in,
           const Sums<acc>& sums, int64_t rows) const {
    accumulate(grad_out, in, sums.weight[l], sums.bias[l], rows, shape_.inputs[l],
               shape_.outputs[l]);
  }

  const CorrectionShape shape_;
  const acc slope_;
  const Scratch<acc> memory_;
  Carver<acc> carver_;
  const Packed<acc> packed_;
};

}  // namespace

template <class scalar_t, class param_t>
void complementary_correction(const scalar_t* raw_output, const scalar_t* features,
                              const CorrectionLayers<const param_t>& parameters,
                              double negative_slope, scalar_t* corrected,
                              const CorrectionShape& shape) {
  using acc = acc_t<scalar_t>;
  const int64_t N = shape.N, C = shape.C, D = shape.D;
  const Network<acc> network(parameters, negative_slope, shape);
  const int64_t block_rows = network.block_rows();
  parallel_for((N + block_rows - 1) / block_rows, kTaskBlocks, [&](int64_t begin, int64_t end) {
    const Scratch<acc> memory(network.block_elements(block_rows));
    Carver<acc> carver(memory);
    const Block<acc> block(carver, shape, block_rows);
    for (int64_t first = begin * block_rows; first < std::min(N, end * block_rows);
         first += block_rows) {
      const int64_t rows = std::min(block_rows, N - first);
      load(raw_output, N, C, first, rows, block.raw);
      load(features, N, D, first, rows, block.features);
      network.correct(block, rows);
      store_rows(block.delta, block.raw, first, rows, C, corrected);
    }
  });
}

template <class scalar_t, class param_t>
void complementary_correction_backward(const scalar_t* grad, const scalar_t* raw_output,
                                       const scalar_t* features,
                                       const CorrectionLayers<const param_t>& parameters,
                                       double negative_slope, scalar_t* grad_raw_output,
                                       scalar_t* grad_features,
                                       const CorrectionLayers<param_t>& grad_parameters,
                                       const CorrectionShape& shape) {
  using acc = acc_t<scalar_t>;
  const int64_t N = shape.N, C = shape.C, D = shape.D;
  const Network<acc> network(parameters, negative_slope, shape);
  const int64_t block_rows = network.block_rows();
  const int64_t chunk_rows =
      round_up(std::max(kChunkRows, (N + kMostChunks - 1) / kMostChunks), block_rows);
  const int64_t chunks = (N + chunk_rows - 1) / chunk_rows;
  const bool wants_parameters = grad_parameters.weight[kRaw] != nullptr;
  const int64_t size = elements<Sums<acc>, acc>(shape);
  const Scratch<acc> all_sums(wants_parameters ? chunks * size : 0);
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    const Scratch<acc> memory(network.block_elements(block_rows));
    Carver<acc> carver(memory);
    const Block<acc> block(carver, shape, block_rows);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      Carver<acc> sums_carver(all_sums + chunk * size);
      const Sums<acc> sums(sums_carver, shape);
      if (wants_parameters) std::fill_n(all_sums + chunk * size, size, acc(0));
      for (int64_t first = chunk * chunk_rows; first < std::min(N, (chunk + 1) * chunk_rows);
           first += block_rows) {
        const int64_t rows = std::min(block_rows, N - first);
        load(raw_output, N, C, first, rows, block.raw);
        load(features, N, D, first, rows, block.features);
        load(grad, N, C, first, rows, block.grad);
        network.activate(block, rows);
        network.differentiate(block, rows, grad_raw_output != nullptr, grad_features != nullptr,
                              wants_parameters ? &sums : nullptr);
        if (grad_raw_output != nullptr) {
          store_rows(block.grad_raw, block.grad, first, rows, C, grad_raw_output);
        }
        if (grad_features != nullptr) {
          store_rows(block.grad_features, Matrix<acc>{nullptr, 0}, first, rows, D, grad_features);
        }
      }
    }
  });
  if (!wants_parameters) return;
  Carver<acc> carver(all_sums);
  const Sums<acc> sums(carver, shape);
  for (int l = 0; l < kCorrectionLayers; ++l) {
    const int64_t inputs = shape.inputs[l], outputs = shape.outputs[l];
    store_sums(sums.weight[l], chunks, size, outputs, inputs, grad_parameters.weight[l]);
    store_sums(sums.bias[l], chunks, size, int64_t(1), outputs, grad_parameters.bias[l]);
  }
}

#define FASTSSL_INSTANTIATE(scalar_t, param_t)                                                   \
  template void complementary_correction(const scalar_t*, const scalar_t*,                       \
                                         const CorrectionLayers<const param_t>&, double,         \
                                         scalar_t*, const CorrectionShape&);                     \
  template void complementary_correction_backward(                                               \
      const scalar_t*, const scalar_t*, const scalar_t*, const CorrectionLayers<const param_t>&, \
      double, scalar_t*, scalar_t*, const CorrectionLayers<param_t>&, const CorrectionShape&);
FASTSSL_INSTANTIATE(float, float)
FASTSSL_INSTANTIATE(double, double)
FASTSSL_INSTANTIATE(Half, Half)
FASTSSL_INSTANTIATE(Half, float)
FASTSSL_INSTANTIATE(BFloat16, BFloat16)
FASTSSL_INSTANTIATE(BFloat16, float)
#undef FASTSSL_INSTANTIATE

}  // namespace fastssl::cpu
