// Backward pass of norms. With n the normalized row, σ its deviation and g = dy ⊙ w: dx = (g − n · E[g ⊙ n]) / σ, for layer norm less
// E[g] / σ; dw = Σ dy ⊙ n, db = Σ dy.
#include <cmath>
#include "operator/operator.h"
#include "training/row-sums.h"

namespace {
/** Sum of `f` over n entries, with a partial vector at the end. */
template <class F> float sumOver(int64_t n, F f) {
  Vec c{};
  int64_t i = 0;
  for (; i + W <= n; i += W) c += f([&](const float *x) { return load(x + i); });
  if (i == n) return sum(c);
  const Vec last = f([&](const float *x) { return loadSome(x + i, n - i); });
  float rest = 0;
  for (int64_t j = 0; j < n - i; j++) rest += last[j];
  return sum(c) + rest;
}

/** Gradients for rows of D numbers; `sum`, if there is one, is added to dx. `dBias` is null for an RMS norm, which subtracts no mean. */
void normBackward(const Tensor &dy, const Tensor &x, const Tensor &weight, const Tensor &sum, float eps, float *dx, float *dWeight, float *dBias) {
  const bool centered = dBias != nullptr;
  const int64_t D = weight.size(), rows = x.size() / std::max<int64_t>(1, D), size = centered ? 2 * D : D;
  std::unique_ptr<float[]> sums(new float[size]); // of dw, then of db
  sumOverRows(rows, size, sums.get(), [&](int64_t row, float *sums) {
    const float *in = x.data + row * D, *d = dy.data + row * D, *w = weight.data, *before = sums, *biases = sums + D;
    const float *other = sum.data ? sum.data + row * D : nullptr;
    const float mean = centered ? sumOver(D, [&](auto at) { return at(in); }) / D : 0;
    const float variance = sumOver(D, [&](auto at) { return (at(in) - mean) * (at(in) - mean); }) / D;
    const float scale = 1 / std::sqrt(variance + eps);
    const float alongRow = sumOver(D, [&](auto at) { return at(d) * at(w) * (at(in) - mean); }) * scale / D;
    const float alongMean = centered ? sumOver(D, [&](auto at) { return at(d) * at(w); }) / D : 0;
    map(D, dx + row * D, [&](auto at) {
      const Vec own = (at(d) * at(w) - alongMean - (at(in) - mean) * (scale * alongRow)) * scale;
      return other ? own + at(other) : own;
    });
    map(D, sums, [&](auto at) { return at(before) + at(d) * (at(in) - mean) * scale; });
    if (centered) map(D, sums + D, [&](auto at) { return at(biases) + at(d); });
  });
  std::copy_n(sums.get(), D, dWeight);
  if (centered) std::copy_n(sums.get() + D, D, dBias);
}

void layerNormBackward(const kernels::LayerNormBackward &in, Reader &, OperatorContext &context) {
  float *dx = context.output(in.x.shape, 0).data, *dWeight = context.output(in.weight.shape, 1).data;
  const Tensor dBias = context.output(in.weight.shape, 2);
  if (dBias.size() > 0) normBackward(in.dy, in.x, in.weight, in.sum, in.eps, dx, dWeight, dBias.data);
}

void rmsNormBackward(const kernels::RmsNormBackward &in, Reader &, OperatorContext &context) {
  float *dx = context.output(in.x.shape, 0).data, *dWeight = context.output(in.weight.shape, 1).data;
  normBackward(in.dy, in.x, in.weight, in.sum, in.eps, dx, dWeight, nullptr);
}

const Register<kernels::LayerNormBackward, layerNormBackward> layerNormRegistered;
const Register<kernels::RmsNormBackward, rmsNormBackward> rmsNormRegistered;
} // namespace
