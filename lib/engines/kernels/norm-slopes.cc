// The way back of norms. With n the normalised row and g = dy ⊙ w: dx = (g − n · E[g ⊙ n]) / σ, less E[g] / σ where the mean was
// taken away; dw = Σ dy ⊙ n, db = Σ dy.
#include "op.h"
#include "sums.h"
#include <cmath>

namespace {
template <class F> float total(int64_t n, F f) {
  Vec c{};
  int64_t i = 0;
  for (; i + W <= n; i += W) c += f([&](const float *x) { return load(x + i); });
  if (i == n) return sum(c);
  const Vec last = f([&](const float *x) { return loadSome(x + i, n - i); });
  float rest = 0;
  for (int64_t j = 0; j < n - i; j++) rest += last[j];
  return sum(c) + rest;
}

/** Rows of D numbers; sums are [D] for the weight, then [D] for the bias where there is one. */
void run(Call &call, bool centred) {
  const Tensor dy = call.input(0), x = call.input(1), weight = call.input(2);
  const int64_t D = weight.size(), rows = x.size() / std::max<int64_t>(1, D);
  require(D > 0 && x.dim(-1) % D == 0 && (!centred || x.dim(-1) == D) && dy.shape == x.shape, "dy, x and weight must agree");
  const Tensor dx = call.output(x.shape, 0), dWeight = call.output({D}, 1);
  const int64_t size = centred ? 2 * D : D;
  std::unique_ptr<float[]> sums(new float[size]);
  sumOverRows(rows, size, sums.get(), [&](int64_t row, float *sums) {
    const float *in = x.data + row * D, *d = dy.data + row * D, *w = weight.data, *before = sums, *biases = sums + D;
    const float mean = centred ? total(D, [&](auto at) { return at(in); }) / D : 0;
    const float variance = total(D, [&](auto at) { return (at(in) - mean) * (at(in) - mean); }) / D;
    const float scale = 1 / std::sqrt(variance + static_cast<float>(call.number(0)));
    const float along = total(D, [&](auto at) { return at(d) * at(w) * (at(in) - mean); }) * scale / D;
    const float level = centred ? total(D, [&](auto at) { return at(d) * at(w); }) / D : 0;
    map(D, dx.data + row * D, [&](auto at) { return (at(d) * at(w) - level - (at(in) - mean) * (scale * along)) * scale; });
    map(D, sums, [&](auto at) { return at(before) + at(d) * (at(in) - mean) * scale; });
    if (centred) map(D, sums + D, [&](auto at) { return at(biases) + at(d); });
  });
  std::copy_n(sums.get(), D, dWeight.data);
  if (centred) std::copy_n(sums.get() + D, D, call.output({D}, 2).data);
}

void layerNorm(Call &call) { run(call, true); }
void rmsNorm(Call &call) { run(call, false); }

const Op layer{"InternvlLayerNormSlopes", layerNorm, {"dx: float", "dweight: float", "dbias: float"}};
const Op rms{"InternvlRmsNormSlopes", rmsNorm, {"dx: float", "dweight: float"}};
const Register<layer> layerRegistered;
const Register<rms> rmsRegistered;
} // namespace
