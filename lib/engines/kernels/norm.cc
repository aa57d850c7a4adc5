// Norms over the last axis: each row is read once from memory, then from the first cache.
#include "op.h"
#include "pool.h"
#include "simd.h"
#include <algorithm>
#include <cmath>

namespace {
template <class F> float total(int64_t n, F f) {
  Vec c{};
  int64_t i = 0;
  for (; i + W <= n; i += W) c += f([&](const float *x) { return load(x + i); });
  float rest = 0;
  for (; i < n; i++) rest += f([&](const float *x) { return splat(x[i]); })[0];
  return sum(c) + rest;
}

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
    const float scale = 1 / std::sqrt(variance + call.attributes[0]);
    map(D, out, [&](auto at) { return (at(in) - mean) * scale * at(weight.data) + at(bias.data); });
  });
}

void rmsNorm(Call &call) {
  const Tensor x = call.input(0), weight = call.input(1), y = call.output(x.shape);
  require(weight.size() > 0 && x.dim(-1) % weight.size() == 0, "a row must be as long as weight, or several times so");
  eachRow(x, y, weight.size(), [&](int64_t D, const float *in, float *out) {
    const float scale = 1 / std::sqrt(total(D, [&](auto at) { return at(in) * at(in); }) / D + call.attributes[0]);
    map(D, out, [&](auto at) { return at(in) * scale * at(weight.data); });
  });
}

const Op layer{"InternvlLayerNorm", {"eps"}, layerNorm};
const Op rms{"InternvlRmsNorm", {"eps"}, rmsNorm};
const Register<layer> layerRegistered;
const Register<rms> rmsRegistered;
} // namespace
