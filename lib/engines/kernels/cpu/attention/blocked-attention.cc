// Attention of many queries (prefill, vision), block by block: the scores of a block of queries with a block of keys never leave the
// caches. Source: Dao et al. 2022 (FlashAttention); Milakov & Gimelshein 2018 (online softmax). Vector lanes are queries: scores are [keys][queries], so that softmax runs down columns without
// sums across lanes, and the weights are already the panel that the product with the values reads.
#include <memory>
#include "attention/mask-scores.h"
#include "gemm/microkernel.h"
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
  std::unique_ptr<float[]> q, scores, out; // [K][queries], [keys][queries], [K][queries]
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

/** Softmax in place: turns scores into weights, and rescales the running sums to the new maximum. */
void softmaxInPlace(Block &block, int64_t count, int64_t dims) {
  for (int v = 0; v < wideVecs; v++) {
    float *column = block.scores.get() + v * W;
    Vec maximum = block.maximum[v];
    for (int64_t j = 0; j < count; j++) maximum = max(maximum, load(column + j * blockQueries));
    const Vec rescale = exp(block.maximum[v] - maximum);
    Vec total = block.total[v] * rescale;
    for (int64_t j = 0; j < count; j++) {
      const Vec weight = exp(load(column + j * blockQueries) - maximum);
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

void attendBlock(const Attention &p, Block &block, const float *packedKeys, const float *packedValues, int64_t b, int64_t h, int64_t l) {
  const int64_t K = p.q.K, dims = roundUp(K, R), present = std::min(blockQueries, p.q.L - l), first = p.start() + l;
  pack<blockQueries>(block.q.get(), p.q.row(b, h, l), p.q.stride(), present, K, [&](auto x) { return x * p.scale; });
  std::fill_n(block.out.get(), dims * blockQueries, 0.0f);
  for (int v = 0; v < wideVecs; v++) {
    block.maximum[v] = splat(p.sinks ? p.sinks[h] : minusInfinity), block.total[v] = splat(p.sinks ? 1 : 0);
    for (int i = 0; i < W; i++) {
      const int64_t position = first + v * W + i;
      block.position[v][i] = static_cast<float>(position), block.firstKey[v][i] = static_cast<float>(p.firstKey(b, position));
    }
  }
  const int64_t end = p.endKey(first + present - 1);
  for (int64_t from = p.firstKey(b, first) / blockKeys * blockKeys; from < end; from += blockKeys) {
    const int64_t count = std::min(blockKeys, end - from);
    const bool needsCausalMask = p.causal && (from + count - 1 > first || p.hidesFirstKeys());
    score(p, block, packedKeys, from, count);
    if (needsCausalMask || p.mask) maskScores(block.firstKey, block.position, p.maskOf(b), 1, from, count, needsCausalMask, block.scores.get());
    softmaxInPlace(block, count, dims);
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

void blockedAttention(const Attention &p) {
  const int64_t K = p.k.K, dims = roundUp(K, R), length = roundUp(p.k.L, R), heads = p.k.B * p.k.H, blocks = (p.q.L + blockQueries - 1) / blockQueries;
  const std::unique_ptr<float[]> packed(new float[heads * (length * K + dims * p.k.L)]);
  float *packedKeys = packed.get(), *packedValues = packedKeys + heads * length * K; // [heads][Lk/R][K][R], [heads][K/R][Lk][R]
  parallel(p.k.B * length / R, 8, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *buffer = scratch.reserve(R * K);
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / (length / R), j = i % (length / R) * R, count = std::min(R, p.k.L - j);
      for (int64_t g = 0; g < p.k.H; g++) {
        const FloatRows keys = floatRows(p.k, b, g, j, count, buffer);
        pack<R>(packedKeys + ((b * p.k.H + g) * length + j) * K, keys.data, keys.stride, count, K);
        packValues(p, b, g, j, buffer, packedValues + (b * p.k.H + g) * dims * p.k.L);
      }
    }
  });
  parallel(p.q.B * p.q.H * blocks, 1, [&](int64_t from, int64_t to) {
    Block block{std::unique_ptr<float[]>(new float[K * blockQueries]), std::unique_ptr<float[]>(new float[blockKeys * blockQueries]),
                std::unique_ptr<float[]>(new float[dims * blockQueries]), {}, {}, {}, {}};
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / blocks / p.q.H, h = i / blocks % p.q.H, head = b * p.k.H + h / (p.q.H / p.k.H);
      attendBlock(p, block, packedKeys + head * length * K, packedValues + head * dims * p.k.L, b, h, i % blocks * blockQueries);
    }
  });
}
