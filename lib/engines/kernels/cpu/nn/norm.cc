// Norms over the last axis: each row is read once from memory, then from the L1 cache.
#include "nn/norm.h"
#include <algorithm>
#include "operator/operator.h"
#include "runtime/thread-pool.h"

namespace {
/** Calls `f(x, y)` for each row of D numbers. */
template <class F> void eachRow(const Tensor &x, const Tensor &y, int64_t D, F f) {
  if (y.size() == 0) return;
  parallel(y.size() / D, std::max<int64_t>(1, (1 << 15) / D), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; row++) f(x.data + row * D, y.data + row * D);
  });
}

void layerNorm(const kernels::LayerNorm &in, Reader &, OperatorContext &context) {
  const int64_t D = in.axes['D'];
  eachRow(in.x, context.output(in.x.shape), D, [&](const float *x, float *y) {
    const float mean = total(D, [&](auto at) { return at(x); }) / D;
    const float variance = total(D, [&](auto at) { return (at(x) - mean) * (at(x) - mean); }) / D;
    const float scale = 1 / std::sqrt(variance + in.eps);
    map(D, y, [&](auto at) { return (at(x) - mean) * scale * at(in.weight.data) + at(in.bias.data); });
  });
}

/** RMS norm of each group of D entries of a row, D the size of the weight. */
void rmsNorm(const kernels::RmsNorm &in, Reader &, OperatorContext &context) {
  const int64_t D = in.axes['D'];
  eachRow(in.x, context.output(in.x.shape), D, [&](const float *x, float *y) { rmsRow(D, x, in.weight.data, in.eps, y); });
}

const Register<kernels::LayerNorm, layerNorm> layerNormRegistered;
const Register<kernels::RmsNorm, rmsNorm> rmsNormRegistered;
} // namespace
