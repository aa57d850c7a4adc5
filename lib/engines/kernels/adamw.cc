// A step of AdamW for one parameter, in one pass over its memory; and the norm of all gradients together.
#include "op.h"
#include "pool.h"
#include "simd.h"
#include <cmath>

namespace {
constexpr int64_t grain = 1 << 14; // entries

inline Vec root(Vec x) {
  Vec y;
  for (int i = 0; i < W; i++) y[i] = std::sqrt(x[i]);
  return y;
}

/** Outputs: the parameter, its first and its second moment. `rate` has the correction of the first moment in it, `root` is that of the second. */
void adamW(Call &call) {
  enum { scale, beta1, rest1, beta2, rest2, keep, rate, correction, eps }; // numbers
  const Tensor leaf = call.input(0), gradient = call.input(1), first = call.input(2), second = call.input(3);
  require(leaf.shape == gradient.shape && leaf.shape == first.shape && leaf.shape == second.shape,
          "a parameter, its gradient and its moments must have one shape");
  const Tensor newLeaf = call.output(leaf.shape, 0), newFirst = call.output(leaf.shape, 1), newSecond = call.output(leaf.shape, 2);
  float a[eps + 1];
  for (int i = 0; i <= eps; i++) a[i] = static_cast<float>(call.number(i));
  parallel(leaf.size(), grain, [&](int64_t from, int64_t to) {
    const float *x = leaf.data + from, *g = gradient.data + from, *m = first.data + from, *v = second.data + from;
    const float *m1 = newFirst.data + from, *v1 = newSecond.data + from;
    const int64_t n = to - from;
    map(n, newFirst.data + from, [&](auto at) { return at(m) * a[beta1] + at(g) * a[scale] * a[rest1]; });
    map(n, newSecond.data + from, [&](auto at) {
      const Vec slope = at(g) * a[scale];
      return at(v) * a[beta2] + slope * slope * a[rest2];
    });
    map(n, newLeaf.data + from, [&](auto at) {
      return at(x) * a[keep] - at(m1) * a[rate] / (root(at(v1)) / a[correction] + a[eps]);
    });
  });
}

/** `√Σ x²` over all inputs. */
void norm(Call &call) {
  double total = 0;
  for (int i = 0; i < call.inputs(); i++) {
    const Tensor x = call.input(i);
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
  *call.output({}).data = static_cast<float>(std::sqrt(total));
}

const Op adamWOp{"InternvlAdamW", adamW, {"leaf: float", "first: float", "second: float"}};
const Op normOp{"InternvlGlobalNorm", norm};
const Register<adamWOp> adamWRegistered;
const Register<normOp> normRegistered;
} // namespace
