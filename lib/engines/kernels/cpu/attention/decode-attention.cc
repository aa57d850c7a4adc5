// Attention of few queries (decoding): keys and values are read without packing, a run of keys at a time, once for all query heads that share
// them. The keys are split into parts for the threads, whose partial softmaxes are merged. Source: Dao et al. 2023 (Flash-Decoding).
#include <type_traits>
#include "attention/attention.h"
#include "gemm/microkernel.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int64_t keysPerRun = 64; // the keys and values of a run stay in the L1 and L2 caches

// Tiles: `scoreQueries` x `scoreKeys` dot products, and `valueQueries` rows x `valueVecs` vectors of the output.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int scoreQueries = 4, valueQueries = 4;
#else
constexpr int scoreQueries = 2, valueQueries = 2;
#endif
constexpr int scoreKeys = 4, valueVecs = 4;

/** `n` rounded up to whole vectors. */
constexpr int64_t roundUpToVector(int64_t n) { return (n + W - 1) / W * W; }

/** One key/value head: R query rows `[R][K]`, scaled and zero-padded to whole vectors; their weights for one run `[R][keysPerRun]`. */
struct Group {
  int64_t b, g, rows, K;
  float *q, *weights;
};

/** The softmax of a group over part of the keys, for each row: the maximum score, the sum of weights, and the weighted sum of values. */
struct PartialSoftmax {
  float *maximum, *total, *out; // [R], [R], [R][K]
  static int64_t size(int64_t rows, int64_t K) { return rows * (K + 2); }
  PartialSoftmax(float *memory, int64_t rows) : maximum(memory), total(memory + rows), out(memory + 2 * rows) {}
};

/** Rows of a run of keys or values, `stride` floats apart, readable up to whole vectors. */
struct Run {
  const float *data;
  int64_t stride, count;
};

/** A run of the rows from `from` on; copied to `padded`, `[keysPerRun][paddedK]`, if the rows are packed or K is not a multiple of W. */
Run runOf(const Heads &x, int64_t b, int64_t g, int64_t from, int64_t count, int64_t paddedK, float *padded) {
  const float *row = x.row(b, g, from);
  const int64_t stride = x.stride();
  if (x.format == Format::float32 && x.K == paddedK) return {row, stride, count};
  if (x.format == Format::bfloat16 && x.K == paddedK) { // inline, because a call for each row takes as long as its conversion
    for (int64_t j = 0; j < count; j++, row += stride)
      for (int64_t d = 0; d < paddedK; d += W) store(padded + j * paddedK + d, loadBfloat16(reinterpret_cast<const uint16_t *>(row) + d));
    return {padded, paddedK, count};
  }
  for (int64_t j = 0; j < count; j++, row += stride) {
    dequantizeRow(x.format, row, 0, x.K, padded + j * paddedK);
    std::fill_n(padded + j * paddedK + x.K, paddedK - x.K, 0.0f);
  }
  return {padded, paddedK, count};
}

inline Four sums(const Vec (&c)[scoreKeys]) {
  const Four x[] = {folded(c[0]), folded(c[1]), folded(c[2]), folded(c[3])};
  const Four low = shuffle<0, 4, 1, 5>(x[0], x[1]) + shuffle<2, 6, 3, 7>(x[0], x[1]);
  const Four high = shuffle<0, 4, 1, 5>(x[2], x[3]) + shuffle<2, 6, 3, 7>(x[2], x[3]);
  return shuffle<0, 1, 4, 5>(low, high) + shuffle<2, 3, 6, 7>(low, high);
}

/** Dot products of Q query rows with `scoreKeys` keys. */
template <int Q> inline void scoreTile(const float *q, const float *const (&keys)[scoreKeys], int64_t K, float *scores) {
  Vec c[Q][scoreKeys] = {};
  for (int64_t i = 0; i < K; i += W) {
    Vec key[scoreKeys];
#pragma GCC unroll 4
    for (int j = 0; j < scoreKeys; j++) key[j] = keepInRegister(load(keys[j] + i));
#pragma GCC unroll 4
    for (int r = 0; r < Q; r++) {
      const Vec x = load(q + r * K + i);
#pragma GCC unroll 4
      for (int j = 0; j < scoreKeys; j++) c[r][j] += x * key[j];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Q; r++) {
    const Four dots = sums(c[r]);
    std::memcpy(scores + r * keysPerRun, &dots, sizeof dots);
  }
}

/** Calls `tile` with a number of rows, the first row and that number: as many times `most` rows as there are, then the rest. */
template <int most, class F> inline void forTilesOfRows(int64_t rows, F tile) {
  int64_t r = 0;
  for (; r + most <= rows; r += most) tile(std::integral_constant<int, most>(), r);
  if (rows - r == 3) tile(std::integral_constant<int, 3>(), r);
  else if (rows - r == 2) tile(std::integral_constant<int, 2>(), r);
  else if (rows - r == 1) tile(std::integral_constant<int, 1>(), r);
}

/**
 * Scores of all rows with a run of keys from `from` on. Prefetches the values of this run into the L1 cache, and keys and values of the next run into the
 * L2 cache.
 */
void score(const Attention &p, const Group &group, const Run &keys, int64_t from) {
  const int64_t columns = p.k.columns(), keyStride = p.k.stride(), valueStride = p.v.stride();
  const float *nextKeys = p.k.row(group.b, group.g, from) + keysPerRun * keyStride, *values = p.v.row(group.b, group.g, from);
  const float *nextValues = values + keysPerRun * valueStride;
  for (int64_t j = 0; j < keys.count; j += scoreKeys) {
    const float *rows[scoreKeys];
    for (int i = 0; i < scoreKeys; i++) {
      const int64_t key = std::min(j + i, keys.count - 1);
      rows[i] = keys.data + key * keys.stride;
      for (int64_t d = 0; d < columns; d += 16) {
        __builtin_prefetch(values + key * valueStride + d);
        __builtin_prefetch(nextValues + key * valueStride + d, 0, 2);
        __builtin_prefetch(nextKeys + key * keyStride + d, 0, 2);
      }
    }
    forTilesOfRows<scoreQueries>(group.rows, [&](auto count, int64_t r) {
      scoreTile<count.value>(group.q + r * group.K, rows, group.K, group.weights + r * keysPerRun + j);
    });
  }
}

/** Softmax in place of one row: turns the scores of keys `[low, high)` of a run into weights, those of the other keys into zeros. */
void softmaxInPlace(const Group &group, int64_t r, int64_t count, int64_t low, int64_t high, const float *mask, PartialSoftmax &partial) {
  float *weights = group.weights + r * keysPerRun;
  if (low >= high) return void(std::fill_n(weights, count, 0.0f));
  std::fill_n(weights, low, minusInfinity);
  if (mask) map(high - low, weights + low, [&](auto at) { return at(static_cast<const float *>(weights + low)) + at(mask + low); });
  std::fill(weights + high, weights + roundUpToVector(count), minusInfinity);
  Vec maxima = splat(partial.maximum[r]);
  for (int64_t j = 0; j < count; j += W) maxima = max(maxima, load(weights + j));
  float maximum = maxima[0];
  for (int i = 1; i < W; i++) maximum = std::max(maximum, maxima[i]);
  Vec total{};
  for (int64_t j = 0; j < count; j += W) {
    const Vec weight = exp(load(weights + j) - maximum);
    store(weights + j, weight);
    total += weight;
  }
  if (maximum > partial.maximum[r]) {
    const float rescale = exp(splat(partial.maximum[r] - maximum))[0];
    partial.total[r] *= rescale, partial.maximum[r] = maximum;
    float *out = partial.out + r * group.K;
    for (int64_t d = 0; d < group.K; d += W) store(out + d, load(out + d) * rescale);
  }
  partial.total[r] += sum(total);
}

/** `out[r] += Σⱼ weights[r][j] v[j]` for Q rows and V vectors of columns. */
template <int Q, int V> inline void valueTile(const float *weights, const float *v, int64_t stride, int64_t count, float *out, int64_t K) {
  Vec c[Q][V];
#pragma GCC unroll 4
  for (int r = 0; r < Q; r++)
#pragma GCC unroll 4
    for (int u = 0; u < V; u++) c[r][u] = load(out + r * K + u * W);
  for (int64_t j = 0; j < count; j++, v += stride) {
    Vec value[V];
#pragma GCC unroll 4
    for (int u = 0; u < V; u++) value[u] = keepInRegister(load(v + u * W));
#pragma GCC unroll 4
    for (int r = 0; r < Q; r++) {
      const Vec weight = splat(weights[r * keysPerRun + j]);
#pragma GCC unroll 4
      for (int u = 0; u < V; u++) c[r][u] += weight * value[u];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Q; r++)
#pragma GCC unroll 4
    for (int u = 0; u < V; u++) store(out + r * K + u * W, c[r][u]);
}

template <int V> inline void addColumns(const Group &group, const Run &values, int64_t d, float *out) {
  forTilesOfRows<valueQueries>(group.rows, [&](auto count, int64_t r) {
    valueTile<count.value, V>(group.weights + r * keysPerRun, values.data + d, values.stride, values.count, out + r * group.K + d, group.K);
  });
}

/** Adds keys `[from, to)`, at most one run, to the partial softmax of a group. `padded` is scratch memory for one run. */
void attendRun(const Attention &p, const Group &group, int64_t from, int64_t to, PartialSoftmax &partial, float *padded) {
  const int64_t count = to - from;
  const Run keys = runOf(p.k, group.b, group.g, from, count, group.K, padded);
  score(p, group, keys, from);
  const float *mask = p.maskOf(group.b);
  for (int64_t r = 0; r < group.rows; r++) {
    const int64_t position = p.start() + r % p.q.L, low = std::max(p.firstKey(group.b, position), from), high = std::min(p.endKey(position), to);
    softmaxInPlace(group, r, count, low - from, high - from, mask ? mask + from : nullptr, partial);
  }
  const Run values = runOf(p.v, group.b, group.g, from, count, group.K, padded); // in the place of the keys, so that a run stays in the L1 cache
  int64_t d = 0;
  for (; d + valueVecs * W <= group.K; d += valueVecs * W) addColumns<valueVecs>(group, values, d, partial.out);
  for (; d < group.K; d += W) addColumns<1>(group, values, d, partial.out);
}

/** Merges the partial softmaxes of row r, and the attention sink of head h, into the output row. */
void mergePartials(const Attention &p, int64_t h, int64_t r, int64_t rows, float *partials, int64_t parts, int64_t partSize, int64_t paddedK, float *out) {
  const int64_t K = p.q.K;
  float maximum = p.sinks ? p.sinks[h] : minusInfinity;
  for (int64_t i = 0; i < parts; i++) maximum = std::max(maximum, PartialSoftmax(partials + i * partSize, rows).maximum[r]);
  float total = p.sinks ? exp(splat(p.sinks[h] - maximum))[0] : 0;
  std::fill_n(out, K, 0.0f);
  for (int64_t i = 0; i < parts; i++) {
    const PartialSoftmax part(partials + i * partSize, rows);
    const float share = exp(splat(part.maximum[r] - maximum))[0];
    total += share * part.total[r];
    map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) + share * at(static_cast<const float *>(part.out + r * paddedK)); });
  }
  map(K, out, [&](auto at) { return at(static_cast<const float *>(out)) / total; });
}

/** The query rows of a group, scaled and padded. */
void gatherQueries(const Attention &p, const Group &group) {
  std::fill_n(group.q, group.rows * group.K, 0.0f);
  for (int64_t r = 0; r < group.rows; r++) {
    const float *from = p.q.row(group.b, group.g * (p.q.H / p.k.H) + r / p.q.L, r % p.q.L);
    for (int64_t i = 0; i < p.q.K; i++) group.q[r * group.K + i] = from[i] * p.scale;
  }
}

/** Number of parts of the keys of a head: one if the heads are enough for all threads. */
int64_t numParts(int64_t heads, int64_t runs) {
  if (heads % threads() == 0) return 1;
  return std::max<int64_t>(1, std::min(runs / 2, ceilDiv(2 * int64_t{threads()}, heads)));
}
} // namespace

void decodeAttention(const Attention &p) {
  const int64_t heads = p.k.B * p.k.H, rows = p.q.H / p.k.H * p.q.L, K = roundUpToVector(p.q.K), firstKey = p.sampleStarts ? 0 : p.firstKey(0, p.start());
  const int64_t runs = ceilDiv(p.k.L - firstKey, keysPerRun), parts = numParts(heads, runs), partKeys = ceilDiv(runs, parts) * keysPerRun;
  const int64_t partSize = PartialSoftmax::size(rows, K);
  static thread_local ScratchBuffer partialScratch;
  float *partials = partialScratch.reserve(heads * parts * partSize);
  parallel(heads * parts, heads * rows * p.k.L * p.k.K < (1 << 16) ? heads * parts : 1, [&](int64_t first, int64_t end) {
    static thread_local ScratchBuffer scratch;
    float *q = scratch.reserve(rows * (K + keysPerRun) + keysPerRun * K), *weights = q + rows * K, *padded = weights + rows * keysPerRun;
    for (int64_t i = first; i < end; i++) {
      const Group group{i / parts / p.k.H, i / parts % p.k.H, rows, K, q, weights};
      gatherQueries(p, group);
      PartialSoftmax partial(partials + i * partSize, rows);
      std::fill_n(partial.maximum, rows, minusInfinity);
      std::fill_n(partial.total, rows * (K + 1), 0.0f);
      const int64_t begin = firstKey + i % parts * partKeys, last = std::min(p.k.L, begin + partKeys);
      for (int64_t from = begin; from < last; from += keysPerRun) attendRun(p, group, from, std::min(from + keysPerRun, last), partial, padded);
    }
  });
  for (int64_t i = 0; i < heads * rows; i++) {
    const int64_t head = i / rows, r = i % rows, h = head % p.k.H * (p.q.H / p.k.H) + r / p.q.L;
    mergePartials(p, h, r, rows, partials + head * parts * partSize, parts, partSize, K, p.out.row(head / p.k.H, h, r % p.q.L));
  }
}
