// Backward pass of `softmax(q kᵀ · scale + mask) v`. The weights are recomputed for a block of queries at a time. With P the weights and
// dP = dO Vᵀ: dV = Pᵀ dO, dS = P ⊙ (dP − Σ P ⊙ dP) · scale, dQ = dS K, dK = dSᵀ Q. Source: Dao et al. 2022, algorithm 4.
#include "attention/attention.h"
#include "nn/norm.h"
#include "operator/operator.h"
#include "runtime/thread-pool.h"
#include "gemm/matmul.h"
#include <memory>

namespace {
/** Queries at a time; fewer with a causal mask, so that most keys after the last of them are left out. */
int64_t blockQueries(const Attention &p) { return p.causal ? 48 : 96; }

struct Gradients {
  Attention p;
  Heads dOut, dq, dk, dv;
};

Matrix matrix(const Heads &x, int64_t b, int64_t h, int64_t l, int64_t count) { return rowMajor(x.row(b, h, l), count, x.K, x.stride()); }

/** Softmax in place of a row of scores for keys from `first` on; keys that are hidden from the query at `position` get weight 0. */
void softmaxInPlace(const Attention &p, int64_t b, float *row, int64_t first, int64_t count, int64_t position, const float *mask) {
  const int64_t from = std::max<int64_t>(0, p.firstKey(b, position) - first), end = std::min(count, p.endKey(position) - first);
  std::fill_n(row, std::min(from, count), 0.0f);
  std::fill(row + std::max<int64_t>(0, end), row + count, 0.0f);
  if (end <= from) return;
  float *scores = row + from;
  const float *values = scores, *maskEntries = mask ? mask + first + from : nullptr;
  const int64_t n = end - from;
  map(n, scores, [&](auto at) { return maskEntries ? at(values) * p.scale + at(maskEntries) : at(values) * p.scale; });
  const float maximum = maxOf(n, scores);
  map(n, scores, [&](auto at) { return exp(at(values) - maximum); });
  const float inverseSum = 1 / total(n, [&](auto at) { return at(values); });
  map(n, scores, [&](auto at) { return at(values) * inverseSum; });
}

/** Gradient of one block of queries of a head; adds to the gradients of its keys and values. */
void backwardBlock(const Gradients &s, int64_t b, int64_t h, int64_t l, float *weights, float *dScores) {
  const Attention &p = s.p;
  const int64_t g = h / (p.q.H / p.k.H), rows = std::min(blockQueries(p), p.q.L - l), start = p.start() + l;
  const int64_t from = p.firstKey(b, start), n = std::max<int64_t>(0, p.endKey(start + rows - 1) - from);
  const Matrix q = matrix(p.q, b, h, l, rows), k = matrix(p.k, b, g, from, n), v = matrix(p.v, b, g, from, n);
  const Matrix dOut = matrix(s.dOut, b, h, l, rows);
  multiply(q, k.transposed(), weights, n, false);
  multiply(dOut, v.transposed(), dScores, n, false);
  for (int64_t r = 0; r < rows; r++) {
    float *w = weights + r * n, *d = dScores + r * n;
    softmaxInPlace(p, b, w, from, n, start + r, p.maskOf(b));
    const float *weight = w, *dScore = d;
    const float along = total(n, [&](auto at) { return at(weight) * at(dScore); });
    map(n, d, [&](auto at) { return at(weight) * (at(dScore) - along) * p.scale; });
  }
  const Matrix P = rowMajor(weights, rows, n, n), dS = rowMajor(dScores, rows, n, n);
  multiply(dS, k, s.dq.row(b, h, l), s.dq.stride(), false);
  multiply(P.transposed(), dOut, s.dv.row(b, g, from), s.dv.stride(), true);
  multiply(dS.transposed(), q, s.dk.row(b, g, from), s.dk.stride(), true);
}

/** All query heads that share one key/value head: one thread writes the gradients of that head. */
void backwardHead(const Gradients &s, int64_t b, int64_t g) {
  const Attention &p = s.p;
  const int64_t group = p.q.H / p.k.H, block = blockQueries(p);
  for (int64_t j = 0; j < p.k.L; j++) {
    std::fill_n(s.dk.row(b, g, j), p.k.K, 0.0f);
    std::fill_n(s.dv.row(b, g, j), p.k.K, 0.0f);
  }
  const std::unique_ptr<float[]> scratch(new float[2 * block * p.k.L]);
  for (int64_t h = g * group; h < (g + 1) * group; h++)
    for (int64_t l = 0; l < p.q.L; l += block) backwardBlock(s, b, h, l, scratch.get(), scratch.get() + block * p.k.L);
}

void attentionBackward(const kernels::AttentionBackward &in, Reader &, OperatorContext &context) {
  const int64_t H = in.axes['H'], G = in.axes['G'];
  const Heads q = headsOf(in.q, H), k = headsOf(in.k, G), v = headsOf(in.v, G), dOut = headsOf(in.dy, H);
  Heads dq = q, dk = k, dv = v;
  dq.data = context.output(in.q.shape, 0).data, dk.data = context.output(in.k.shape, 1).data, dv.data = context.output(in.v.shape, 2).data;
  if (q.K == 0) return;
  const bool sharedMask = in.axes['M'] == 1;
  const std::vector<int64_t> starts = sampleStarts(in.segments);
  const Gradients gradients{{q, k, v, q, in.mask.data, nullptr, sharedMask, in.scale, in.causal, in.window, false, starts.empty() ? nullptr : starts.data()}, dOut, dq, dk, dv};
  parallel(k.B * k.H, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) backwardHead(gradients, i / k.H, i % k.H);
  });
}

const Register<kernels::AttentionBackward, attentionBackward> registered;
} // namespace
