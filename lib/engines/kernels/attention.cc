// `softmax(q kᵀ · scale + mask) v`, block by block: the scores of a block of queries against a block of keys never leave the
// caches. Source: Dao et al. 2022 (FlashAttention); Milakov & Gimelshein 2018 (the running maximum).
#include "attention.h"
#include "gemm.h"
#include "norm.h"
#include "op.h"
#include "pool.h"
#include <memory>
#include <vector>

namespace {
constexpr float never = -1e30f; // finite: of two of them the difference is a number

// --- A few queries: keys and values are read as they lie, once for all heads that share them; where there are more threads than such
// heads, in several runs of keys whose results are joined. Source: Dao et al. 2023 (Flash-Decoding).

constexpr int64_t run = 64; // keys whose weights are made together, so that what is read of them is still in the first caches

/** What a query has gathered from some keys: the greatest score, the sum of weights, and the weighted sum of values. */
struct Gathered {
  float most = never, total = 0;
  std::vector<float> out;
};

/** `out += Σ weights[j] v[j]`, as many sums at once as hide each other's latency. */
void addValues(const float *weights, const float *v, int64_t stride, int64_t count, int64_t K, float *out) {
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

/** Products of a query with W keys that stand `stride` apart. */
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

/** One query meets keys `[from, to)`, at most a run. */
void gather(const Attention &p, int64_t b, int64_t h, int64_t l, int64_t from, int64_t to, Gathered &so) {
  from = std::max(from, p.firstKey(p.start() + l)), to = std::min(to, p.endKey(p.start() + l));
  if (from >= to) return;
  const int64_t K = p.q.K, g = h / (p.q.H / p.k.H), count = to - from, stride = p.k.stride();
  const float *q = p.q.row(b, h, l), *k = p.k.row(b, g, from), *padding = p.paddingOf(b);
  float weights[run];
  int64_t j = 0;
  for (; j + W <= count; j += W) storeScores(q, k + j * stride, stride, K, weights + j);
  for (; j < count; j++) weights[j] = total(K, [&](auto at) { return at(q) * at(k + j * stride); });
  map(count, weights, [&](auto at) { return padding ? at(weights) * p.scale + at(padding + from) : at(weights) * p.scale; });
  const float most = std::max(so.most, greatest(count, weights)), fade = exp(splat(so.most - most))[0];
  map(count, weights, [&](auto at) { return exp(at(weights) - most); });
  so.total = so.total * fade + total(count, [&](auto at) { return at(weights); }), so.most = most;
  map(K, so.out.data(), [&](auto at) { return at(so.out.data()) * fade; });
  addValues(weights, p.v.row(b, g, from), p.v.stride(), count, K, so.out.data());
}

/** What the parts gathered, and what the sink takes, as one softmax. */
void joinParts(const Attention &p, int64_t h, const Gathered *const *parts, int64_t count, float *out) {
  const int64_t K = p.q.K;
  float most = p.sinks ? p.sinks[h] : never;
  for (int64_t i = 0; i < count; i++) most = std::max(most, parts[i]->most);
  float total = p.sinks ? exp(splat(p.sinks[h] - most))[0] : 0;
  std::fill_n(out, K, 0.0f);
  for (int64_t i = 0; i < count; i++) {
    const float share = exp(splat(parts[i]->most - most))[0];
    total += share * parts[i]->total;
    map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) + share * at(parts[i]->out.data()); });
  }
  map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) / total; });
}

void fewQueries(const Attention &p) {
  const int64_t heads = p.k.B * p.k.H, group = p.q.H / p.k.H, rows = group * p.q.L, runs = (p.k.L + run - 1) / run;
  const int64_t parts = std::min<int64_t>(runs, (threads() + heads - 1) / heads), length = (runs + parts - 1) / parts * run;
  std::vector<Gathered> gathered(heads * parts * rows);
  for (Gathered &each : gathered) each.out.assign(p.q.K, 0.0f);
  parallel(heads * parts, heads * rows * p.k.L * p.k.K < (1 << 16) ? heads * parts : 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) {
      const int64_t b = i / parts / p.k.H, g = i / parts % p.k.H, last = std::min(p.k.L, (i % parts + 1) * length);
      for (int64_t from = i % parts * length; from < last; from += run)
        for (int64_t r = 0; r < rows; r++) gather(p, b, g * group + r / p.q.L, r % p.q.L, from, std::min(from + run, last), gathered[i * rows + r]);
    }
  });
  std::vector<const Gathered *> own(parts);
  for (int64_t i = 0; i < heads * rows; i++) {
    const int64_t head = i / rows, r = i % rows, h = head % p.k.H * group + r / p.q.L;
    for (int64_t part = 0; part < parts; part++) own[part] = &gathered[(head * parts + part) * rows + r];
    joinParts(p, h, own.data(), parts, p.out.row(head / p.k.H, h, r % p.q.L));
  }
}

// --- Many queries. Lanes are queries: scores stand as [keys][queries], so that softmax goes down columns and needs no sum across
// lanes, and the weights are at once the panel that the product with the values reads.

constexpr int64_t R = wideRows, queries = wideVecs * W, keys = 128;

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/** A tile to memory, and back, vector by vector: what is copied as a block of memory does not stay in registers. */
template <int rows, int vecs> inline void keep(float *to, const Vec (&c)[rows][vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++) store(to + (r * vecs + v) * W, c[r][v]);
}
template <int rows, int vecs> inline void resume(const float *from, Vec (&c)[rows][vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++) c[r][v] = load(from + (r * vecs + v) * W);
}

struct Block {
  std::unique_ptr<float[]> q, scores, out; // [K][queries], [keys][queries], [K][queries]
  Vec most[wideVecs], total[wideVecs], position[wideVecs];
};

/** Scores of one block of keys: `[count][queries]`. */
void score(const Attention &p, Block &block, const float *packedKeys, int64_t from, int64_t count) {
  for (int64_t j = 0; j < count; j += R) {
    Vec c[R][wideVecs] = {};
    multiply<wideRows, wideVecs>(p.k.K, packedKeys + (from + j) * p.k.K, block.q.get(), queries, c);
    keep<wideRows, wideVecs>(block.scores.get() + j * queries, c);
  }
}

/** Hides what a query does not see. */
void mask(const Attention &p, Block &block, const float *padding, int64_t from, int64_t count, bool crossed) {
  for (int64_t j = 0; j < count; j++) {
    const float key = static_cast<float>(from + j);
    for (int v = 0; v < wideVecs; v++) {
      float *at = block.scores.get() + j * queries + v * W;
      Vec s = padding ? load(at) + padding[from + j] : load(at);
      if (crossed) {
        s = key <= block.position[v] ? s : splat(never);
        if (p.window) s = key > block.position[v] - static_cast<float>(p.window) ? s : splat(never);
      }
      store(at, s);
    }
  }
}

/** Scores to weights; what was summed so far is scaled to the new maximum. */
void soften(Block &block, int64_t count, int64_t dims) {
  for (int v = 0; v < wideVecs; v++) {
    float *column = block.scores.get() + v * W;
    Vec most = block.most[v];
    for (int64_t j = 0; j < count; j++) most = max(most, load(column + j * queries));
    const Vec fade = exp(block.most[v] - most);
    Vec total = block.total[v] * fade;
    for (int64_t j = 0; j < count; j++) {
      const Vec weight = exp(load(column + j * queries) - most);
      store(column + j * queries, weight);
      total += weight;
    }
    for (int64_t d = 0; d < dims; d++) {
      float *out = block.out.get() + d * queries + v * W;
      store(out, load(out) * fade);
    }
    block.most[v] = most, block.total[v] = total;
  }
}

void attendBlock(const Attention &p, Block &block, const float *packedKeys, const float *packedValues, int64_t b, int64_t h, int64_t l) {
  const int64_t K = p.q.K, dims = up(K, R), present = std::min(queries, p.q.L - l), first = p.start() + l;
  pack<queries>(block.q.get(), p.q.row(b, h, l), p.q.stride(), present, K, [&](auto x) { return x * p.scale; });
  std::fill_n(block.out.get(), dims * queries, 0.0f);
  for (int v = 0; v < wideVecs; v++) {
    block.most[v] = splat(p.sinks ? p.sinks[h] : never), block.total[v] = splat(p.sinks ? 1 : 0);
    for (int i = 0; i < W; i++) block.position[v][i] = static_cast<float>(first + v * W + i);
  }
  const int64_t end = p.endKey(first + present - 1);
  for (int64_t from = p.firstKey(first) / keys * keys; from < end; from += keys) {
    const int64_t count = std::min(keys, end - from);
    const bool crossed = p.causal && (from + count - 1 > first || p.window);
    score(p, block, packedKeys, from, count);
    if (crossed || p.padding) mask(p, block, p.paddingOf(b), from, count, crossed);
    soften(block, count, dims);
    for (int64_t d = 0; d < dims; d += R) {
      Vec c[R][wideVecs];
      resume<wideRows, wideVecs>(block.out.get() + d * queries, c);
      multiply<wideRows, wideVecs>(count, packedValues + d * p.k.L + from * R, block.scores.get(), queries, c);
      keep<wideRows, wideVecs>(block.out.get() + d * queries, c);
    }
  }
  for (int64_t d = 0; d < dims; d++)
    for (int v = 0; v < wideVecs; v++) {
      float *out = block.out.get() + d * queries + v * W;
      store(out, load(out) / block.total[v]);
    }
  unpack(block.out.get(), queries, K, present, p.out.row(b, h, l), p.out.stride());
}

/** Values of R keys from j on, to `[K/R][Lk][R]`. */
void packValues(const Attention &p, int64_t b, int64_t g, int64_t j, float *to) {
  const int64_t K = p.k.K, dims = up(K, R), end = std::min(j + R, p.k.L);
  for (int64_t d = 0; d < dims; d += R)
    for (int64_t i = j; i < end; i++) {
      const float *from = p.v.row(b, g, i) + d;
      float *at = to + d * p.k.L + i * R;
      if (d + R <= K) std::memcpy(at, from, R * sizeof(float));
      else
        for (int64_t r = 0; r < R; r++) at[r] = d + r < K ? from[r] : 0;
    }
}

void manyQueries(const Attention &p) {
  const int64_t K = p.k.K, dims = up(K, R), length = up(p.k.L, R), heads = p.k.B * p.k.H, blocks = (p.q.L + queries - 1) / queries;
  const std::unique_ptr<float[]> packed(new float[heads * (length * K + dims * p.k.L)]);
  float *packedKeys = packed.get(), *packedValues = packedKeys + heads * length * K; // [heads][Lk/R][K][R], [heads][K/R][Lk][R]
  parallel(p.k.B * length / R, 8, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / (length / R), j = i % (length / R) * R;
      for (int64_t g = 0; g < p.k.H; g++) {
        pack<R>(packedKeys + ((b * p.k.H + g) * length + j) * K, p.k.row(b, g, j), p.k.stride(), std::min(R, p.k.L - j), K);
        packValues(p, b, g, j, packedValues + (b * p.k.H + g) * dims * p.k.L);
      }
    }
  });
  parallel(p.q.B * p.q.H * blocks, 1, [&](int64_t from, int64_t to) {
    Block block{std::unique_ptr<float[]>(new float[K * queries]), std::unique_ptr<float[]>(new float[keys * queries]),
                std::unique_ptr<float[]>(new float[dims * queries]), {}, {}, {}};
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / blocks / p.q.H, h = i / blocks % p.q.H, head = b * p.k.H + h / (p.q.H / p.k.H);
      attendBlock(p, block, packedKeys + head * length * K, packedValues + head * dims * p.k.L, b, h, i % blocks * queries);
    }
  });
}

Heads headsOf(const Tensor &x, int64_t heads) {
  if (x.shape.size() == 4) return {x.data, x.dim(0), x.dim(1), x.dim(2), x.dim(3), false, x.dim(2)};
  require(x.shape.size() == 3 && heads > 0 && x.dim(2) % heads == 0, "expected [B, H, L, K], or [B, L, H*K] and the number of heads");
  return {x.data, x.dim(0), heads, x.dim(1), x.dim(2) / heads, true, x.dim(1)};
}

void attentionOp(Call &call) {
  const Tensor q = call.input(0), k = call.input(1), v = call.input(2);
  const int padded = call.whole(5) != 0;
  const Tensor padding = padded ? call.input(3) : Tensor{}, sinks = call.inputs() > 3 + padded ? call.input(3 + padded) : Tensor{};
  const Heads qs = headsOf(q, call.whole(1)), ks = headsOf(k, call.whole(2)), vs = headsOf(v, call.whole(2));
  require(qs.B == ks.B && qs.K == ks.K && ks.K == vs.K && ks.L == vs.L && ks.H == vs.H && qs.H % ks.H == 0, "q, k and v do not agree");
  require(!padded || padding.size() == ks.L || padding.size() == ks.B * ks.L, "padding must be [B, 1, 1, Lk]");
  require(!sinks.data || sinks.size() == qs.H, "sinks must be [H]");
  Heads out = qs;
  out.data = call.output(q.shape).data;
  const Attention p{qs, ks, vs, out, padding.data, sinks.data,
                  padding.size() == ks.L, static_cast<float>(call.number(0)), call.whole(3) != 0, call.whole(4)};
  require(!p.causal || p.start() >= 0, "more queries than keys");
  ::attend(p);
}

const Op attention{"InternvlAttention", attentionOp};
const Register<attention> registered;
} // namespace

void attend(const Attention &p) { p.q.L < R ? fewQueries(p) : manyQueries(p); }
