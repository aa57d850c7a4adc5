// Attention in integers. Queries, and keys less the mean key of their head, are rounded to int8 with a scale each: what all keys have in common changes
// all scores of a query alike, so that the weights stay the same; often the common part is many times as large as the differences (Zhang et al. 2024,
// SageAttention). Weights have 15 bits, so that many small ones beside a large one are not lost, and values 10, with a scale for each dimension.
#pragma once
#include <numeric>
#include "attention/query-block.h"
#include "runtime/int8-dot.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

constexpr float log2e = 1.44269504088896341f;

/** Keys of every head in int8. */
struct Int8Keys {
  int64_t words;           // of four numbers, of a key
  int32_t *levels;         // [heads][Lk/R][words][R]
  float *scales, *offsets; // [heads][Lk]: the scale, and `dotShift` times the sum of the levels
};

/** Levels of K numbers, zero-padded to words, and their scale times a factor. */
inline float quantizeRow(const float *x, int64_t K, float factor, int8_t *levels) {
  const auto part = [&](int64_t i) { return i + W <= K ? load(x + i) : loadSome(x + i, K - i); };
  Vec largest{}, notFinite{}; // zero, or NaN where an entry is infinite or not a number
  for (int64_t i = 0; i < K; i += W) largest = max(largest, max(part(i), -part(i))), notFinite += part(i) * 0;
  float scale = 0;
  for (int lane = 0; lane < W; lane++) scale = std::max(scale, largest[lane]);
  const Vec toLevels = splat(scale > 0 ? 127 / scale : 0), magic = splat(12582912); // 1.5 · 2²³: its low bits hold the rounded integer
  for (int64_t i = 0; i < K; i += W) {
    const IVec rounded = reinterpret_cast<IVec>(part(i) * toLevels + magic);
    for (int64_t lane = 0; lane < std::min<int64_t>(W, roundUp(K, 4) - i); lane++) levels[i + lane] = static_cast<int8_t>(rounded[lane]);
  }
  return scale / 127 * factor + sum(notFinite);
}

/** Adds the mean key of a head to `mean`, `[K]`. `buffer` is scratch memory for a row. */
inline void addMeanKey(const Attention &p, int64_t b, int64_t g, float *buffer, float *mean) {
  for (int64_t j = 0; j < p.k.L; j++) {
    const float *key = floatRows(p.k, b, g, j, 1, buffer).data;
    map(p.k.K, mean, [&](auto at) { return at(mean) + at(key) / static_cast<float>(p.k.L); });
  }
}

/** Packs the keys of R positions from j on, less their mean. `buffer` is scratch memory for them. */
inline void packInt8Keys(const Attention &p, const Int8Keys &packed, const float *mean, int64_t length, int64_t b, int64_t g, int64_t j, float *buffer) {
  const int64_t count = std::min(R, p.k.L - j), head = b * p.k.H + g;
  const FloatRows keys = floatRows(p.k, b, g, j, count, buffer);
  int32_t *to = packed.levels + (head * length + j) * packed.words;
  const std::unique_ptr<int32_t[]> row(new int32_t[packed.words]);
  const std::unique_ptr<float[]> centred(new float[p.k.K]);
  std::fill_n(to, packed.words * R, 0);
  std::fill_n(packed.scales + head * length + j, R, 0.0f), std::fill_n(packed.offsets + head * length + j, R, 0.0f);
  for (int64_t r = 0; r < count; r++) {
    auto *levels = reinterpret_cast<int8_t *>(row.get());
    const float *key = keys.data + r * keys.stride;
    map(p.k.K, centred.get(), [&](auto at) { return at(key) - at(mean); });
    packed.scales[head * length + j + r] = quantizeRow(centred.get(), p.k.K, 1, levels);
    packed.offsets[head * length + j + r] = static_cast<float>(dotShift * std::accumulate(levels, levels + 4 * packed.words, 0));
    for (int64_t w = 0; w < packed.words; w++) to[w * R + r] = row[w];
  }
}

/** Packs a block of queries, `[words][queries]`; `scales` receives the scale of each, for scores in powers of two. */
inline void packInt8Queries(const Attention &p, Block &block, int64_t words, int64_t b, int64_t h, int64_t l, int64_t present, Vec (&scales)[wideVecs]) {
  const std::unique_ptr<int32_t[]> row(new int32_t[words]);
  auto *to = reinterpret_cast<int32_t *>(block.q.get());
  for (int64_t r = 0; r < blockQueries; r++) {
    auto *levels = reinterpret_cast<int8_t *>(row.get());
    scales[r / W][r % W] = r < present ? quantizeRow(p.q.row(b, h, l + r), p.q.K, p.scale * log2e, levels) : 0;
    for (int64_t w = 0; w < words; w++) to[w * blockQueries + r] = r < present ? row[w] ^ static_cast<int32_t>(dotShift * 0x01010101u) : 0;
  }
}

/** The products of `words` integers of a panel with those of the queries, `[words][R]` and `[words][queries]`; `dot` adds one of each. */
template <class Dot> inline __attribute__((always_inline)) void multiplyIntegers(int64_t words, const int32_t *panel, const float *queries, IVec (&sums)[wideRows][wideVecs], Dot dot) {
  for (int64_t w = 0; w < words; w++, panel += R, queries += blockQueries) {
    IVec columns[wideVecs];
#pragma GCC unroll 4
    for (int v = 0; v < wideVecs; v++) columns[v] = reinterpret_cast<IVec>(keepInRegister(load(queries + v * W)));
#pragma GCC unroll 16
    for (int r = 0; r < wideRows; r++) {
      const IVec row = IVec{} + panel[r];
#pragma GCC unroll 4
      for (int v = 0; v < wideVecs; v++) sums[r][v] = dot(sums[r][v], columns[v], row);
    }
  }
}

/** `score` in int8. */
inline void scoreInt8(const Int8Keys &packed, Block &block, int64_t key, int64_t count, const Vec (&scales)[wideVecs]) {
#if defined(HAS_INT8_DOT)
  for (int64_t j = 0; j < count; j += R) {
    IVec sums[wideRows][wideVecs] = {};
    multiplyIntegers(packed.words, packed.levels + (key + j) * packed.words, block.q.get(), sums, dotInt8);
#pragma GCC unroll 16
    for (int r = 0; r < wideRows; r++)
#pragma GCC unroll 4
      for (int v = 0; v < wideVecs; v++)
        store(block.scores.get() + (j + r) * blockQueries + v * W,
              (__builtin_convertvector(sums[r][v], Vec) - packed.offsets[key + j + r]) * (scales[v] * packed.scales[key + j + r]));
  }
#endif
}

/** `2ˣ` within 7.6e-5 of its value for x of at most 127, which is finer than scores in int8; 0 for large negative x, NaN for NaN. */
inline Vec exp2(Vec x) {
  const Vec bounded = max(splat(-127), x), magic = splat(12582912), t = bounded + magic; // 1.5 · 2²³: its low bits hold the rounded integer
  const Vec f = bounded - (t - magic);
  const Vec p = ((0.0551716610f * f + 0.2426111251f) * f + 0.6932609963f) * f + 0.9999280736f;
  return p * reinterpret_cast<Vec>((reinterpret_cast<IVec>(t) - reinterpret_cast<IVec>(magic) + 127) << 23);
}

// --- Weights times values

constexpr int maxWeight = 32760; // a little less than 2¹⁵: `exp2` may give a little more than 1
constexpr int maxValue = 511;
static_assert(int64_t{maxWeight + 7} * maxValue * blockKeys < int64_t{1} << 31, "sums fit in int32");

/** Values of every head in 10 bits, in pairs of neighbouring keys, zero-padded. */
struct Int16Values {
  int64_t dims, pairs;       // K rounded up to R, and half the number of keys
  int32_t *levels;           // [heads][dims/R][pairs][R]
  float *scales, *inverses;  // [heads][dims]: the size of a level of a dimension, and 1 / size
};

/** The nearest integers of two vectors, in the low and in the high half of each lane. */
inline IVec pairsOf(Vec low, Vec high) {
  const Vec magic = splat(12582912); // 1.5 · 2²³: its low bits hold the rounded integer
  return (reinterpret_cast<IVec>(low + magic) & 0xffff) | (reinterpret_cast<IVec>(high + magic) << 16);
}

/** Computes the scales of the values of a head. `buffer` is scratch memory for a row. */
inline void scaleValues(const Attention &p, const Int16Values &packed, int64_t b, int64_t g, float *buffer) {
  const int64_t first = (b * p.v.H + g) * packed.dims;
  float *scales = packed.scales + first, *inverses = packed.inverses + first, *notFinite = inverses; // zero, or NaN where an entry is not finite
  std::fill_n(scales, packed.dims, 0.0f), std::fill_n(notFinite, packed.dims, 0.0f);
  for (int64_t j = 0; j < p.v.L; j++) {
    const float *value = floatRows(p.v, b, g, j, 1, buffer).data;
    map(p.v.K, scales, [&](auto at) { return max(at(scales), max(at(value), -at(value))); });
    map(p.v.K, notFinite, [&](auto at) { return at(notFinite) + at(value) * 0; });
  }
  for (int64_t d = 0; d < packed.dims; d++) {
    scales[d] = scales[d] / maxValue + notFinite[d];
    inverses[d] = scales[d] > 0 ? 1 / scales[d] : 0;
  }
}

/** Packs the values of R keys from j on. `buffer` is scratch memory for them and for a row of pairs. */
inline void packInt16Values(const Attention &p, const Int16Values &packed, int64_t b, int64_t g, int64_t j, float *buffer) {
  const int64_t head = b * p.v.H + g, count = std::min(R, p.v.L - j);
  const FloatRows values = floatRows(p.v, b, g, j, count, buffer);
  const float *inverses = packed.inverses + head * packed.dims;
  float *row = buffer + R * p.v.K;
  for (int64_t i = 0; i < count; i += 2) {
    const float *low = values.data + i * values.stride, *high = i + 1 < count ? low + values.stride : nullptr;
    map(p.v.K, row, [&](auto at) { return reinterpret_cast<Vec>(pairsOf(at(low) * at(inverses), high ? at(high) * at(inverses) : Vec{})); });
    std::fill(row + p.v.K, row + packed.dims, 0.0f);
    for (int64_t d = 0; d < packed.dims; d += R)
      std::memcpy(packed.levels + ((head * packed.dims + d) * packed.pairs) + (j + i) / 2 * R, row + d, R * sizeof(float));
  }
}

/** Adds to the output, in units of `scales / maxWeight`, the products of the weights of `count` keys with the values from key `from` on. */
inline void addValuesInt16(const Int16Values &packed, Block &block, int64_t head, int64_t from, int64_t count) {
  for (int64_t d = 0; d < packed.dims; d += R) {
    const int32_t *levels = packed.levels + (head * packed.dims + d) * packed.pairs + from / 2 * R;
    IVec sums[wideRows][wideVecs] = {};
    multiplyIntegers((count + 1) / 2, levels, block.scores.get(), sums, dotInt16);
#pragma GCC unroll 16
    for (int r = 0; r < wideRows; r++)
#pragma GCC unroll 4
      for (int v = 0; v < wideVecs; v++) {
        float *out = block.out.get() + (d + r) * blockQueries + v * W;
        store(out, load(out) + __builtin_convertvector(sums[r][v], Vec));
      }
  }
}
