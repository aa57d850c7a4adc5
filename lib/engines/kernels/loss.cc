// `−log softmax(logits)[label]` row by row, and its way back; rows without a label (below 0) are 0 in both.
#include "norm.h"
#include "op.h"
#include "pool.h"

namespace {
float logSumExp(const float *z, int64_t V) {
  const float most = greatest(V, z);
  return most + std::log(total(V, [&](auto at) { return exp(at(z) - most); }));
}

/** `each(row, logits, label)` for all rows of `[N, V]` with labels `[N]`. */
template <class F> void eachRow(const Tensor &logits, const Tensor &labels, F each) {
  const int64_t V = logits.dim(-1), N = labels.size();
  require(logits.rows() == N, "a label for each row");
  for (int64_t row = 0; row < N; row++) require(labels.words()[row] < V, "a label is beyond the logits");
  parallel(N, std::max<int64_t>(1, (1 << 13) / V), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; row++) each(row, logits.data + row * V, labels.words()[row]);
  });
}

void losses(Call &call) {
  const Tensor logits = call.input(0), labels = call.input(1, TF_INT32), y = call.output(labels.shape);
  eachRow(logits, labels, [&](int64_t row, const float *z, int32_t label) {
    y.data[row] = label < 0 ? 0 : logSumExp(z, logits.dim(-1)) - z[label];
  });
}

void slopes(Call &call) {
  const Tensor dy = call.input(0), logits = call.input(1), labels = call.input(2, TF_INT32), dx = call.output(logits.shape);
  const int64_t V = logits.dim(-1);
  require(dy.size() == labels.size(), "dy must be as long as labels");
  eachRow(logits, labels, [&](int64_t row, const float *z, int32_t label) {
    float *out = dx.data + row * V;
    if (label < 0) return void(std::fill_n(out, V, 0.0f));
    const float level = logSumExp(z, V), d = dy.data[row];
    map(V, out, [&](auto at) { return exp(at(z) - level) * d; });
    out[label] -= d;
  });
}

const Op lossesOp{"InternvlTokenLosses", losses};
const Op slopesOp{"InternvlTokenLossSlopes", slopes, {"dx: float"}};
const Register<lossesOp> lossesRegistered;
const Register<slopesOp> slopesRegistered;
} // namespace
