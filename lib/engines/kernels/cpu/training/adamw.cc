// One step of AdamW for a parameter, in one pass over its memory; and the global norm of gradients.
#include <algorithm>
#include <cmath>
#include "operator/operator.h"
#include "runtime/simd.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int64_t grain = 1 << 14; // entries

inline Vec squareRoot(Vec x) {
  Vec y;
  for (int i = 0; i < W; i++) y[i] = std::sqrt(x[i]);
  return y;
}

/** New parameter, first moment and second moment. */
void adamW(const kernels::AdamW &in, Reader &, OperatorContext &context) {
  const Tensor leaf = context.output(in.leaf.shape, 0), first = context.output(in.leaf.shape, 1), second = context.output(in.leaf.shape, 2);
  const float gradScale = in.gradScale, beta1 = in.beta1, oneMinusBeta1 = in.oneMinusBeta1, beta2 = in.beta2, oneMinusBeta2 = in.oneMinusBeta2;
  const float decay = in.decay, stepSize = in.stepSize, secondCorrection = in.secondCorrection, eps = in.eps;
  parallel(leaf.size(), grain, [&](int64_t from, int64_t to) {
    const float *x = in.leaf.data + from, *g = in.gradient.data + from, *m = in.first.data + from, *v = in.second.data + from;
    const float *newM = first.data + from, *newV = second.data + from;
    const int64_t n = to - from;
    map(n, first.data + from, [&](auto at) { return at(m) * beta1 + at(g) * gradScale * oneMinusBeta1; });
    map(n, second.data + from, [&](auto at) {
      const Vec gradient = at(g) * gradScale;
      return at(v) * beta2 + gradient * gradient * oneMinusBeta2;
    });
    map(n, leaf.data + from, [&](auto at) { return at(x) * decay - at(newM) * stepSize / (squareRoot(at(newV)) / secondCorrection + eps); });
  });
}

/** `√Σ x²` over all inputs. */
void globalNorm(const kernels::GlobalNorm &, Reader &reader, OperatorContext &context) {
  double total = 0;
  while (reader.remaining() > 0) {
    Axes axes; // gradients have different shapes
    const Tensor x = reader.input("gradient", TF_FLOAT, ".", axes);
    const int64_t pieces = (x.size() + grain - 1) / grain;
    std::vector<double> sums(pieces);
    parallel(pieces, 1, [&](int64_t from, int64_t to) {
      for (int64_t piece = from; piece < to; piece++) {
        const int64_t end = std::min(x.size(), (piece + 1) * grain);
        Vec c{};
        for (int64_t j = piece * grain; j < end; j += W) {
          const Vec entries = j + W <= end ? load(x.data + j) : loadSome(x.data + j, end - j);
          c += entries * entries;
        }
        sums[piece] = sum(c);
      }
    });
    for (double each : sums) total += each;
  }
  *context.output({}).data = static_cast<float>(std::sqrt(total));
}

const Register<kernels::AdamW, adamW> adamWRegistered;
const Register<kernels::GlobalNorm, globalNorm> globalNormRegistered;
} // namespace
