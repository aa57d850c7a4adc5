// Norms over the last axis: each row is read once from memory, then from the first cache.
#include "norm.h"
#include "op.h"
#include "pool.h"
#include <algorithm>

namespace {
/** Rows of D numbers. */
template <class F> void eachRow(const Tensor &x, const Tensor &y, int64_t D, F f) {
  parallel(x.size() / D, std::max<int64_t>(1, (1 << 15) / D), [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) f(D, x.data + r * D, y.data + r * D);
  });
}

void layerNorm(Call &call) {
  const Tensor x = call.input(0), weight = call.input(1), bias = call.input(2), y = call.output(x.shape);
  require(weight.size() == x.dim(-1) && bias.size() == x.dim(-1), "weight and bias must be as long as a row");
  eachRow(x, y, x.dim(-1), [&](int64_t D, const float *in, float *out) {
    const float mean = total(D, [&](auto at) { return at(in); }) / D;
    const float variance = total(D, [&](auto at) { return (at(in) - mean) * (at(in) - mean); }) / D;
    const float scale = 1 / std::sqrt(variance + static_cast<float>(call.number(0)));
    map(D, out, [&](auto at) { return (at(in) - mean) * scale * at(weight.data) + at(bias.data); });
  });
}

void rmsNorm(Call &call) {
  const Tensor x = call.input(0), weight = call.input(1), y = call.output(x.shape);
  require(weight.size() > 0 && x.dim(-1) % weight.size() == 0, "a row must be as long as weight, or several times so");
  eachRow(x, y, weight.size(), [&](int64_t D, const float *in, float *out) { rmsRow(D, in, weight.data, static_cast<float>(call.number(0)), out); });
}

const Op layer{"InternvlLayerNorm", layerNorm};
const Op rms{"InternvlRmsNorm", rmsNorm};
const Register<layer> layerRegistered;
const Register<rms> rmsRegistered;
} // namespace
