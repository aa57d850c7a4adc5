// Attention of few queries (decoding): keys and values are read without packing, once for all query heads that share them. With more threads
// than key/value heads the keys are split into parts, whose partial softmaxes are merged. Source: Dao et al. 2023 (Flash-Decoding).
#include <memory>
#include <vector>
#include "attention/attention.h"
#include "nn/norm.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int64_t keysPerRun = 64; // keys whose weights are computed together, so that their values are read while still in the L1 and L2 caches

/** Softmax of one query over part of the keys: the maximum score, the sum of weights, and the weighted sum of values. */
struct PartialSoftmax {
  float maximum = minusInfinity, total = 0;
  std::vector<float> out;
};

/** `out += Σ weights[j] v[j]`, with enough independent accumulators to hide the latency of multiply-adds. */
void addWeightedValues(const float *weights, const float *v, int64_t stride, int64_t count, int64_t K, float *out) {
  constexpr int64_t sums = 8;
  int64_t i = 0;
  for (; i + sums * W <= K; i += sums * W) {
    Vec c[sums];
    for (int64_t u = 0; u < sums; u++) c[u] = load(out + i + u * W);
    for (int64_t j = 0; j < count; j++)
      for (int64_t u = 0; u < sums; u++) c[u] += weights[j] * load(v + j * stride + i + u * W);
    for (int64_t u = 0; u < sums; u++) store(out + i + u * W, c[u]);
  }
  for (; i < K; i += W) {
    const int64_t n = std::min<int64_t>(W, K - i);
    Vec c = loadSome(out + i, n);
    for (int64_t j = 0; j < count; j++) c += weights[j] * loadSome(v + j * stride + i, n);
    storeSome(out + i, c, n);
  }
}

/** Dot products of a query with W keys, `stride` floats apart. */
void storeScores(const float *q, const float *k, int64_t stride, int64_t K, float *y) {
  Vec c[W] = {};
  int64_t i = 0;
  for (; i + W <= K; i += W) {
    const Vec x = load(q + i);
    for (int j = 0; j < W; j++) c[j] += x * load(k + j * stride + i);
  }
  if (i < K)
    for (int j = 0; j < W; j++) c[j] += loadSome(q + i, K - i) * loadSome(k + j * stride + i, K - i);
  storeSums(y, c);
}

/** Adds keys `[from, to)`, at most one run, to the partial softmax of one query. */
void attendKeys(const Attention &p, int64_t b, int64_t h, int64_t l, int64_t from, int64_t to, PartialSoftmax &partial) {
  from = std::max(from, p.firstKey(p.start() + l)), to = std::min(to, p.endKey(p.start() + l));
  if (from >= to) return;
  const int64_t K = p.q.K, g = h / (p.q.H / p.k.H), count = to - from, stride = p.k.stride();
  const float *q = p.q.row(b, h, l), *k = p.k.row(b, g, from), *mask = p.maskOf(b);
  float weights[keysPerRun];
  int64_t j = 0;
  for (; j + W <= count; j += W) storeScores(q, k + j * stride, stride, K, weights + j);
  for (; j < count; j++) weights[j] = total(K, [&](auto at) { return at(q) * at(k + j * stride); });
  map(count, weights, [&](auto at) { return mask ? at(weights) * p.scale + at(mask + from) : at(weights) * p.scale; });
  const float maximum = std::max(partial.maximum, maxOf(count, weights)), rescale = exp(splat(partial.maximum - maximum))[0];
  map(count, weights, [&](auto at) { return exp(at(weights) - maximum); });
  partial.total = partial.total * rescale + total(count, [&](auto at) { return at(weights); }), partial.maximum = maximum;
  map(K, partial.out.data(), [&](auto at) { return at(partial.out.data()) * rescale; });
  addWeightedValues(weights, p.v.row(b, g, from), p.v.stride(), count, K, partial.out.data());
}

/** Merges the partial softmaxes of a query, and the attention sink, into the output row. */
void mergePartials(const Attention &p, int64_t h, const PartialSoftmax *const *parts, int64_t count, float *out) {
  const int64_t K = p.q.K;
  float maximum = p.sinks ? p.sinks[h] : minusInfinity;
  for (int64_t i = 0; i < count; i++) maximum = std::max(maximum, parts[i]->maximum);
  float total = p.sinks ? exp(splat(p.sinks[h] - maximum))[0] : 0;
  std::fill_n(out, K, 0.0f);
  for (int64_t i = 0; i < count; i++) {
    const float share = exp(splat(parts[i]->maximum - maximum))[0];
    total += share * parts[i]->total;
    map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) + share * at(parts[i]->out.data()); });
  }
  map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) / total; });
}

} // namespace

void decodeAttention(const Attention &p) {
  const int64_t heads = p.k.B * p.k.H, group = p.q.H / p.k.H, rows = group * p.q.L, runs = (p.k.L + keysPerRun - 1) / keysPerRun;
  const int64_t parts = std::min<int64_t>(runs, (threads() + heads - 1) / heads), length = (runs + parts - 1) / parts * keysPerRun;
  std::vector<PartialSoftmax> partials(heads * parts * rows);
  for (PartialSoftmax &each : partials) each.out.assign(p.q.K, 0.0f);
  parallel(heads * parts, heads * rows * p.k.L * p.k.K < (1 << 16) ? heads * parts : 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) {
      const int64_t b = i / parts / p.k.H, g = i / parts % p.k.H, last = std::min(p.k.L, (i % parts + 1) * length);
      for (int64_t from = i % parts * length; from < last; from += keysPerRun)
        for (int64_t r = 0; r < rows; r++) attendKeys(p, b, g * group + r / p.q.L, r % p.q.L, from, std::min(from + keysPerRun, last), partials[i * rows + r]);
    }
  });
  std::vector<const PartialSoftmax *> headPartials(parts);
  for (int64_t i = 0; i < heads * rows; i++) {
    const int64_t head = i / rows, r = i % rows, h = head % p.k.H * group + r / p.q.L;
    for (int64_t part = 0; part < parts; part++) headPartials[part] = &partials[(head * parts + part) * rows + r];
    mergePartials(p, h, headPartials.data(), parts, p.out.row(head / p.k.H, h, r % p.q.L));
  }
}
