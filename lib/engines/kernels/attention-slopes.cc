// The way back of `softmax(q kᵀ · scale + mask) v`. The weights are computed again, a block of queries at a time. With P the weights and
// dP = dO Vᵀ: dV = Pᵀ dO, dS = P ⊙ (dP − Σ P ⊙ dP) · scale, dQ = dS K, dK = dSᵀ Q. Source: Dao et al. 2022, algorithm 4.
#include "attention.h"
#include "norm.h"
#include "op.h"
#include "pool.h"
#include "product.h"
#include "simd.h"
#include <memory>

namespace {
constexpr int64_t block = 96; // queries at a time

struct Slopes {
  Attention p;
  Heads dOut, dq, dk, dv;
};

Matrix matrix(const Heads &x, int64_t b, int64_t h, int64_t l, int64_t count) { return rowsOf(x.row(b, h, l), count, x.K, x.stride()); }

/** A row of scores for keys from `first` on to weights; keys that the query at `position` does not see weigh 0. */
void soften(const Attention &p, float *row, int64_t first, int64_t count, int64_t position, const float *padding) {
  const int64_t from = std::max<int64_t>(0, p.firstKey(position) - first), end = std::min(count, p.endKey(position) - first);
  std::fill_n(row, std::min(from, count), 0.0f);
  std::fill(row + std::max<int64_t>(0, end), row + count, 0.0f);
  if (end <= from) return;
  float *scores = row + from;
  const float *seen = scores, *pads = padding ? padding + first + from : nullptr;
  const int64_t n = end - from;
  map(n, scores, [&](auto at) { return pads ? at(seen) * p.scale + at(pads) : at(seen) * p.scale; });
  const float most = greatest(n, scores);
  map(n, scores, [&](auto at) { return exp(at(seen) - most); });
  const float share = 1 / total(n, [&](auto at) { return at(seen); });
  map(n, scores, [&](auto at) { return at(seen) * share; });
}

/** What a block of one head's queries gives to its own gradient and to those of its keys and values. */
void backBlock(const Slopes &s, int64_t b, int64_t h, int64_t l, float *weights, float *slopes) {
  const Attention &p = s.p;
  const int64_t g = h / (p.q.H / p.k.H), rows = std::min(block, p.q.L - l), start = p.start() + l;
  const int64_t from = p.firstKey(start), n = std::max<int64_t>(0, p.endKey(start + rows - 1) - from);
  const Matrix q = matrix(p.q, b, h, l, rows), k = matrix(p.k, b, g, from, n), v = matrix(p.v, b, g, from, n);
  const Matrix dOut = matrix(s.dOut, b, h, l, rows);
  multiply(q, k.transposed(), weights, n, false);
  multiply(dOut, v.transposed(), slopes, n, false);
  for (int64_t r = 0; r < rows; r++) {
    float *w = weights + r * n, *d = slopes + r * n;
    soften(p, w, from, n, start + r, p.paddingOf(b));
    const float *weight = w, *slope = d;
    const float along = total(n, [&](auto at) { return at(weight) * at(slope); });
    map(n, d, [&](auto at) { return at(weight) * (at(slope) - along) * p.scale; });
  }
  const Matrix P = rowsOf(weights, rows, n, n), dS = rowsOf(slopes, rows, n, n);
  multiply(dS, k, s.dq.row(b, h, l), s.dq.stride(), false);
  multiply(P.transposed(), dOut, s.dv.row(b, g, from), s.dv.stride(), true);
  multiply(dS.transposed(), q, s.dk.row(b, g, from), s.dk.stride(), true);
}

/** All queries that read one head of keys and values: its gradients are no one else's to write. */
void backHead(const Slopes &s, int64_t b, int64_t g) {
  const Attention &p = s.p;
  const int64_t group = p.q.H / p.k.H;
  for (int64_t j = 0; j < p.k.L; j++) {
    std::fill_n(s.dk.row(b, g, j), p.k.K, 0.0f);
    std::fill_n(s.dv.row(b, g, j), p.k.K, 0.0f);
  }
  const std::unique_ptr<float[]> scratch(new float[2 * block * p.k.L]);
  for (int64_t h = g * group; h < (g + 1) * group; h++)
    for (int64_t l = 0; l < p.q.L; l += block) backBlock(s, b, h, l, scratch.get(), scratch.get() + block * p.k.L);
}

Heads headsOf(const Tensor &x, int64_t heads) {
  if (x.shape.size() == 4) return {x.data, x.dim(0), x.dim(1), x.dim(2), x.dim(3), false, x.dim(2)};
  require(x.shape.size() == 3 && heads > 0 && x.dim(2) % heads == 0, "expected [B, H, L, K], or [B, L, H*K] and the number of heads");
  return {x.data, x.dim(0), heads, x.dim(1), x.dim(2) / heads, true, x.dim(1)};
}

void run(Call &call) {
  const Tensor dy = call.input(0), q = call.input(1), k = call.input(2), v = call.input(3);
  const Tensor padding = call.whole(5) ? call.input(4) : Tensor{};
  const Heads qs = headsOf(q, call.whole(1)), ks = headsOf(k, call.whole(2)), vs = headsOf(v, call.whole(2)), dOut = headsOf(dy, call.whole(1));
  require(qs.B == ks.B && qs.K == ks.K && ks.K == vs.K && ks.L == vs.L && ks.H == vs.H && qs.H % ks.H == 0, "q, k and v do not agree");
  require(dy.shape == q.shape && k.shape == v.shape, "dy must be as q, v as k");
  require(!padding.data || padding.size() == ks.L || padding.size() == ks.B * ks.L, "padding must be [B, 1, 1, Lk]");
  Heads dq = qs, dk = ks, dv = vs;
  dq.data = call.output(q.shape, 0).data, dk.data = call.output(k.shape, 1).data, dv.data = call.output(v.shape, 2).data;
  const Attention p{qs, ks, vs, qs, padding.data, nullptr, padding.size() == ks.L, static_cast<float>(call.number(0)), call.whole(3) != 0, call.whole(4)};
  require(!p.causal || p.start() >= 0, "more queries than keys");
  const Slopes slopes{p, dOut, dq, dk, dv};
  parallel(ks.B * ks.H, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) backHead(slopes, i / ks.H, i % ks.H);
  });
}

const Op op{"InternvlAttentionSlopes", run, {"dq: float", "dk: float", "dv: float"}};
const Register<op> registered;
} // namespace
