// Attention of many queries (prefill, vision), block by block: the scores of a block of queries with a block of keys never leave the
// caches. Source: Dao et al. 2022 (FlashAttention); Milakov & Gimelshein 2018 (online softmax). Vector lanes are queries: scores are [keys][queries], so that softmax runs down columns without
// sums across lanes, and the weights are already the panel that the product with the values reads.
#include <cmath>
#include <memory>
#include <numeric>
#include "attention/mask-scores.h"
#include "gemm/microkernel.h"
#include "runtime/int8-dot.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

namespace {
constexpr int64_t R = wideRows, blockQueries = wideVecs * W, blockKeys = 128;

inline int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/** Stores and loads a tile vector by vector: a tile copied with memcpy does not stay in registers. */
template <int rows, int vecs> inline void storeTile(float *to, const Vec (&c)[rows][vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++) store(to + (r * vecs + v) * W, c[r][v]);
}
template <int rows, int vecs> inline void loadTile(const float *from, Vec (&c)[rows][vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++) c[r][v] = load(from + (r * vecs + v) * W);
}

struct Block {
  std::unique_ptr<float[]> q, scores, out; // [K][queries] in float32 or in words of four bytes, [keys][queries], [K][queries]
  Vec maximum[wideVecs], total[wideVecs], firstKey[wideVecs], position[wideVecs];
};

/** Scores of one block of keys, `[count][queries]`. */
void score(const Attention &p, Block &block, const float *packedKeys, int64_t from, int64_t count) {
  for (int64_t j = 0; j < count; j += R) {
    Vec c[R][wideVecs] = {};
    multiply<wideRows, wideVecs>(p.k.K, packedKeys + (from + j) * p.k.K, block.q.get(), blockQueries, c);
    storeTile<wideRows, wideVecs>(block.scores.get() + j * blockQueries, c);
  }
}

constexpr float log2e = 1.44269504088896341f;

// --- Scores by products of int8 numbers: queries, and keys less the mean key of their head, have a scale each. What all keys have in common changes
// all scores of a query alike, so that the weights stay the same; often the common part is many times as large as the differences (Zhang et al. 2024, SageAttention).

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

/** The mean key of every head, `[heads][K]`. */
inline std::vector<float> meanKeys(const Attention &p) {
  const int64_t heads = p.k.B * p.k.H, K = p.k.K;
  std::vector<float> means(heads * K);
  parallel(heads, 1, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *buffer = scratch.reserve(K);
    for (int64_t head = from; head < to; head++)
      for (int64_t j = 0; j < p.k.L; j++) {
        const float *key = floatRows(p.k, head / p.k.H, head % p.k.H, j, 1, buffer).data, *before = means.data() + head * K;
        map(K, means.data() + head * K, [&](auto at) { return at(before) + at(key) / static_cast<float>(p.k.L); });
      }
  });
  return means;
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

/** `score` in int8. */
inline void scoreInt8(const Int8Keys &packed, Block &block, int64_t key, int64_t count, const Vec (&scales)[wideVecs]) {
#if defined(HAS_INT8_DOT)
  const auto *q = reinterpret_cast<const int32_t *>(block.q.get());
  for (int64_t j = 0; j < count; j += R) {
    const int32_t *levels = packed.levels + (key + j) * packed.words;
    IVec sums[R][wideVecs] = {};
    for (int64_t w = 0; w < packed.words; w++, levels += R) {
      IVec columns[wideVecs];
#pragma GCC unroll 4
      for (int v = 0; v < wideVecs; v++) std::memcpy(&columns[v], q + w * blockQueries + v * W, sizeof(IVec));
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const IVec row = IVec{} + levels[r];
#pragma GCC unroll 4
        for (int v = 0; v < wideVecs; v++) sums[r][v] = dotInt8(sums[r][v], columns[v], row);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
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

/** Softmax in place: turns scores into weights, and rescales the running sums to the new maximum. `power` is `exp`, or `exp2`. */
template <class Power> void softmaxInPlace(Block &block, int64_t count, int64_t dims, Power power) {
  for (int v = 0; v < wideVecs; v++) {
    float *column = block.scores.get() + v * W;
    Vec maximum = block.maximum[v];
    for (int64_t j = 0; j < count; j++) maximum = max(maximum, load(column + j * blockQueries));
    const Vec rescale = power(block.maximum[v] - maximum);
    Vec total = block.total[v] * rescale;
    for (int64_t j = 0; j < count; j++) {
      const Vec weight = power(load(column + j * blockQueries) - maximum);
      store(column + j * blockQueries, weight);
      total += weight;
    }
    for (int64_t d = 0; d < dims; d++) {
      float *out = block.out.get() + d * blockQueries + v * W;
      store(out, load(out) * rescale);
    }
    block.maximum[v] = maximum, block.total[v] = total;
  }
}

/** `int8Keys` takes the place of `packedKeys`; their first key of this head is number `head`. */
void attendBlock(const Attention &p, Block &block, const float *packedKeys, const Int8Keys *int8Keys, int64_t head, const float *packedValues, int64_t b,
                 int64_t h, int64_t l) {
  const int64_t K = p.q.K, dims = roundUp(K, R), present = std::min(blockQueries, p.q.L - l), first = p.start() + l;
  const float unit = int8Keys ? log2e : 1; // scores in int8 are in powers of two
  Vec scales[wideVecs];
  if (int8Keys) packInt8Queries(p, block, int8Keys->words, b, h, l, present, scales);
  else pack<blockQueries>(block.q.get(), p.q.row(b, h, l), p.q.stride(), present, K, [&](auto x) { return x * p.scale; });
  std::fill_n(block.out.get(), dims * blockQueries, 0.0f);
  for (int v = 0; v < wideVecs; v++) {
    block.maximum[v] = splat(p.sinks ? p.sinks[h] * unit : minusInfinity), block.total[v] = splat(p.sinks ? 1 : 0);
    for (int i = 0; i < W; i++) {
      const int64_t position = first + v * W + i;
      block.position[v][i] = static_cast<float>(position), block.firstKey[v][i] = static_cast<float>(p.firstKey(b, position));
    }
  }
  const int64_t end = p.endKey(first + present - 1);
  for (int64_t from = p.firstKey(b, first) / blockKeys * blockKeys; from < end; from += blockKeys) {
    const int64_t count = std::min(blockKeys, end - from);
    const bool needsCausalMask = p.causal && (from + count - 1 > first || p.hidesFirstKeys());
    int8Keys ? scoreInt8(*int8Keys, block, head + from, count, scales) : score(p, block, packedKeys, from, count);
    if (needsCausalMask || p.mask) maskScores(block.firstKey, block.position, p.maskOf(b), unit, from, count, needsCausalMask, block.scores.get());
    int8Keys ? softmaxInPlace(block, count, dims, [](Vec x) { return exp2(x); }) : softmaxInPlace(block, count, dims, [](Vec x) { return exp(x); });
    for (int64_t d = 0; d < dims; d += R) {
      Vec c[R][wideVecs];
      loadTile<wideRows, wideVecs>(block.out.get() + d * blockQueries, c);
      multiply<wideRows, wideVecs>(count, packedValues + d * p.k.L + from * R, block.scores.get(), blockQueries, c);
      storeTile<wideRows, wideVecs>(block.out.get() + d * blockQueries, c);
    }
  }
  for (int64_t d = 0; d < dims; d++)
    for (int v = 0; v < wideVecs; v++) {
      float *out = block.out.get() + d * blockQueries + v * W;
      store(out, load(out) / block.total[v]);
    }
  unpack(block.out.get(), blockQueries, K, present, p.out.row(b, h, l), p.out.stride());
}

/** Packs the values of R keys from j on into `[K/R][Lk][R]`. `buffer` is scratch memory for them. */
void packValues(const Attention &p, int64_t b, int64_t g, int64_t j, float *buffer, float *to) {
  const int64_t K = p.k.K, dims = roundUp(K, R), end = std::min(j + R, p.k.L);
  const FloatRows values = floatRows(p.v, b, g, j, end - j, buffer);
  for (int64_t d = 0; d < dims; d += R)
    for (int64_t i = j; i < end; i++) {
      const float *from = values.data + (i - j) * values.stride + d;
      float *at = to + d * p.k.L + i * R;
      if (d + R <= K) std::memcpy(at, from, R * sizeof(float));
      else
        for (int64_t r = 0; r < R; r++) at[r] = d + r < K ? from[r] : 0;
    }
}

} // namespace

void blockedAttention(const Attention &p, bool int8Scores) {
  const int64_t K = p.k.K, dims = roundUp(K, R), length = roundUp(p.k.L, R), heads = p.k.B * p.k.H, blocks = (p.q.L + blockQueries - 1) / blockQueries;
  const int64_t words = roundUp(K, 4) / 4, keySize = int8Scores ? words + 2 : K; // floats of a packed key
  const std::unique_ptr<float[]> packed(new float[heads * (length * keySize + dims * p.k.L)]);
  float *packedKeys = packed.get(), *packedValues = packedKeys + heads * length * keySize; // [heads][Lk/R][K][R], [heads][K/R][Lk][R]
  float *scales = packedKeys + heads * length * words;
  const Int8Keys int8Keys{words, reinterpret_cast<int32_t *>(packedKeys), scales, scales + heads * length};
  const std::vector<float> means = int8Scores ? meanKeys(p) : std::vector<float>();
  parallel(p.k.B * length / R, 8, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *buffer = scratch.reserve(R * K);
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / (length / R), j = i % (length / R) * R, count = std::min(R, p.k.L - j);
      for (int64_t g = 0; g < p.k.H; g++) {
        if (int8Scores) packInt8Keys(p, int8Keys, means.data() + (b * p.k.H + g) * K, length, b, g, j, buffer);
        else {
          const FloatRows keys = floatRows(p.k, b, g, j, count, buffer);
          pack<R>(packedKeys + ((b * p.k.H + g) * length + j) * K, keys.data, keys.stride, count, K);
        }
        packValues(p, b, g, j, buffer, packedValues + (b * p.k.H + g) * dims * p.k.L);
      }
    }
  });
  parallel(p.q.B * p.q.H * blocks, 1, [&](int64_t from, int64_t to) {
    Block block{std::unique_ptr<float[]>(new float[roundUp(K, 4) * blockQueries]), std::unique_ptr<float[]>(new float[blockKeys * blockQueries]),
                std::unique_ptr<float[]>(new float[dims * blockQueries]), {}, {}, {}, {}};
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / blocks / p.q.H, h = i / blocks % p.q.H, head = b * p.k.H + h / (p.q.H / p.k.H);
      attendBlock(p, block, packedKeys + head * length * K, int8Scores ? &int8Keys : nullptr, head * length, packedValues + head * dims * p.k.L, b, h, i % blocks * blockQueries);
    }
  });
}
