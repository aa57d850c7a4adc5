// Cross entropy, `−log softmax(logits)[label]` row by row, and its backward pass. Rows with the label -100 are 0 in both.
#include "nn/norm.h"
#include "operator/operator.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int32_t ignoreIndex = -100; // source: `ignore_index` of PyTorch

float logSumExp(const float *logits, int64_t V) {
  const float maximum = maxOf(V, logits);
  return maximum + std::log(total(V, [&](auto at) { return exp(at(logits) - maximum); }));
}

/** Calls `each(row, logits, label)` for each row of logits `[…, V]` with labels `[…]`. Throws for a label outside [0, V) that is not -100. */
template <class F> void eachRow(const Tensor &logits, const Tensor &labels, int64_t V, F each) {
  const int64_t N = labels.size();
  for (int64_t row = 0; row < N; row++) {
    const int32_t label = labels.int32()[row];
    if (label != ignoreIndex && (label < 0 || label >= V))
      throw std::invalid_argument("labels: " + std::to_string(label) + " is not in [0, " + std::to_string(V) + "), nor -100");
  }
  parallel(N, std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(1, V)), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; row++) each(row, logits.data + row * V, labels.int32()[row]);
  });
}

void crossEntropy(const kernels::CrossEntropy &in, Reader &, OperatorContext &context) {
  const Tensor y = context.output(in.labels.shape);
  const int64_t V = in.axes['V'];
  eachRow(in.logits, in.labels, V, [&](int64_t row, const float *logits, int32_t label) {
    y.data[row] = label == ignoreIndex ? 0 : logSumExp(logits, V) - logits[label];
  });
}

void crossEntropyBackward(const kernels::CrossEntropyBackward &in, Reader &, OperatorContext &context) {
  const Tensor dx = context.output(in.logits.shape);
  const int64_t V = in.axes['V'];
  eachRow(in.logits, in.labels, V, [&](int64_t row, const float *logits, int32_t label) {
    float *out = dx.data + row * V;
    if (label == ignoreIndex) return void(std::fill_n(out, V, 0.0f));
    const float offset = logSumExp(logits, V), d = in.dy.data[row];
    map(V, out, [&](auto at) { return exp(at(logits) - offset) * d; });
    out[label] -= d;
  });
}

const Register<kernels::CrossEntropy, crossEntropy> registered;
const Register<kernels::CrossEntropyBackward, crossEntropyBackward> backwardRegistered;
} // namespace
