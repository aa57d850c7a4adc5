// Attention of many queries in AMX tiles: as in blocked-attention.cc, with the products of queries and keys and of weights and values in
// bfloat16 with float32 sums. The softmax is in float32, in powers of two.
#include "attention/mask-scores.h"
#include "gemm/tiles/tile-kinds.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

#if defined(HAS_AMX)
namespace {
using Tiles = AmxBfloat16Tiles;
constexpr int64_t R = Tiles::R, blockQueries = tileWidth, blockKeys = 256, keyPairs = blockKeys / 2;
constexpr int vecs = tileVecs;
constexpr float log2e = 1.44269504088896341f;

/** `2ˣ` within 1.1e-4 of its value, which is finer than bfloat16; 0 for large negative x. */
inline Vec exp2(Vec x) {
  const Vec fraction = reinterpret_cast<Vec>(_mm512_reduce_ps(reinterpret_cast<__m512>(x), 9)); // x - ⌊x⌋
  Vec p = 0.079204240f * fraction + 0.224338339f;
  p = p * fraction + 0.696457318f;
  p = p * fraction + 0.999892986f;
  return reinterpret_cast<Vec>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(x))); // p · 2^⌊x⌋
}

/** Rounds two vectors to bfloat16 and interleaves them to pairs. */
inline Vec interleaved(Vec even, Vec odd) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const auto both = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(odd), reinterpret_cast<__m512>(even));
  return reinterpret_cast<Vec>(_mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(both)));
}

/** Keys and values of every head as rows of tiles, rounded to pairs and zero-padded. */
struct PackedHeads {
  int64_t length, blocks, depth, dims; // Lk in whole tiles, and in blocks; pairs of K, and K, in whole tiles
  float *keys, *values;                // [heads][Lk][pairs of K], [heads][blocks][K][pairs of keys]
  float *keysOf(int64_t head, int64_t j) const { return keys + (head * length + j) * depth; }
  float *valuesOf(int64_t head, int64_t j) const { return values + (head * blocks + j / blockKeys) * dims * keyPairs; }
};

/** A block of queries: its scores with a block of keys, and its softmax over the keys so far. Scores are in powers of two. */
struct Block {
  float *q, *scores, *weights, *out; // [pairs of K][queries], [keys][queries], [pairs of keys][queries], [K][queries]
  Vec maximum[vecs], total[vecs], firstKey[vecs], position[vecs];
};

/** Packs R keys from j on. */
void packKeys(const Attention &p, const PackedHeads &packed, int64_t b, int64_t g, int64_t j, float *buffer) {
  const int64_t count = std::min(R, p.k.L - j);
  const FloatRows keys = floatRows(p.k, b, g, j, count, buffer);
  float *to = packed.keysOf(b * p.k.H + g, j);
  for (int64_t r = 0; r < count; r++) Tiles::roundToPairs(keys.data + r * keys.stride, p.k.K, to + r * packed.depth);
  std::fill_n(to + count * packed.depth, (R - count) * packed.depth, 0.0f);
}

/** Packs R values from j on: the rows of two neighbours are interleaved to pairs, and these transposed. */
void packValues(const Attention &p, const PackedHeads &packed, int64_t b, int64_t g, int64_t j, float *buffer) {
  const int64_t K = p.v.K, dims = packed.dims, count = std::min(R, p.v.L - j);
  float *rows = buffer + R * K, *pairs = rows + R * dims; // [R][dims], [R / 2][dims]
  const FloatRows values = floatRows(p.v, b, g, j, count, buffer);
  std::fill_n(rows, R * dims, 0.0f);
  for (int64_t r = 0; r < count; r++) std::copy_n(values.data + r * values.stride, K, rows + r * dims);
  for (int64_t r = 0; r < R; r += 2)
    for (int64_t d = 0; d < dims; d += W) store(pairs + r / 2 * dims + d, interleaved(load(rows + r * dims + d), load(rows + (r + 1) * dims + d)));
  unpack(pairs, dims, R / 2, dims, packed.valuesOf(b * p.v.H + g, j) + j % blockKeys / 2, keyPairs);
}

/** Scores of the queries with `count` keys. */
void score(const PackedHeads &packed, Block &block, int64_t head, int64_t from, int64_t count) {
  for (int64_t j = 0; j < count; j += R)
    Tiles::multiplyTiles(packed.depth, packed.keysOf(head, from + j), packed.depth, block.q, block.scores + j * blockQueries, blockQueries, true);
}

/** Turns scores into weights in bfloat16 pairs, zero-padded to whole tiles, and rescales the running sums to the new maximum. */
void softmax(Block &block, int64_t count, int64_t dims) {
  const float *scores = block.scores;
  Vec maximum[vecs], total[vecs], rescale[vecs];
  for (int v = 0; v < vecs; v++) maximum[v] = block.maximum[v];
  for (int64_t j = 0; j < count; j++)
    for (int v = 0; v < vecs; v++) maximum[v] = max(maximum[v], load(scores + j * blockQueries + v * W));
  for (int v = 0; v < vecs; v++) rescale[v] = exp2(block.maximum[v] - maximum[v]), total[v] = block.total[v] * rescale[v];
  const int64_t whole = count / 2 * 2, padded = roundUp(count, R);
  for (int64_t j = 0; j < whole; j += 2)
    for (int v = 0; v < vecs; v++) {
      const float *at = scores + j * blockQueries + v * W;
      const Vec even = exp2(load(at) - maximum[v]), odd = exp2(load(at + blockQueries) - maximum[v]);
      total[v] += even + odd;
      store(block.weights + j / 2 * blockQueries + v * W, interleaved(even, odd));
    }
  std::fill_n(block.weights + whole / 2 * blockQueries, (padded - whole) / 2 * blockQueries, 0.0f);
  for (int v = 0; v < vecs && whole < count; v++) {
    const Vec last = exp2(load(scores + whole * blockQueries + v * W) - maximum[v]);
    total[v] += last;
    store(block.weights + whole / 2 * blockQueries + v * W, interleaved(last, Vec{}));
  }
  for (int64_t d = 0; d < dims; d++)
    for (int v = 0; v < vecs; v++) {
      float *out = block.out + d * blockQueries + v * W;
      store(out, load(out) * rescale[v]);
    }
  for (int v = 0; v < vecs; v++) block.maximum[v] = maximum[v], block.total[v] = total[v];
}

/** Packs the queries from l on, scaled to scores in powers of two. `buffer` is scratch memory for them. */
void packQueries(const Attention &p, Block &block, int64_t b, int64_t h, int64_t l, int64_t present, int64_t depth, float *buffer) {
  const int64_t K = p.q.K;
  float *row = buffer + blockQueries * depth; // [K], scaled
  for (int64_t r = 0; r < present; r++) {
    const float *from = p.q.row(b, h, l + r);
    map(K, row, [&](auto at) { return at(from) * (p.scale * log2e); });
    Tiles::roundToPairs(row, K, buffer + r * depth);
  }
  pack<blockQueries>(block.q, buffer, depth, present, depth);
}

void attendBlock(const Attention &p, const PackedHeads &packed, Block &block, int64_t b, int64_t h, int64_t l) {
  const int64_t K = p.q.K, dims = packed.dims, present = std::min(blockQueries, p.q.L - l), first = p.start() + l;
  const int64_t head = b * p.k.H + h / (p.q.H / p.k.H);
  packQueries(p, block, b, h, l, present, packed.depth, block.scores);
  std::fill_n(block.out, dims * blockQueries, 0.0f);
  for (int v = 0; v < vecs; v++) {
    block.maximum[v] = splat(p.sinks ? p.sinks[h] * log2e : minusInfinity), block.total[v] = splat(p.sinks ? 1 : 0);
    for (int i = 0; i < W; i++) {
      const int64_t position = first + v * W + i;
      block.position[v][i] = static_cast<float>(position), block.firstKey[v][i] = static_cast<float>(p.firstKey(b, position));
    }
  }
  const int64_t end = p.endKey(first + present - 1);
  for (int64_t from = p.firstKey(b, first) / blockKeys * blockKeys; from < end; from += blockKeys) {
    const int64_t count = std::min(blockKeys, end - from);
    const bool needsCausalMask = p.causal && (from + count - 1 > first || p.hidesFirstKeys());
    score(packed, block, head, from, count);
    if (needsCausalMask || p.mask) maskScores(block.firstKey, block.position, p.maskOf(b), log2e, from, count, needsCausalMask, block.scores);
    softmax(block, count, dims);
    for (int64_t d = 0; d < dims; d += R)
      Tiles::multiplyTiles(roundUp(count, R) / 2, packed.valuesOf(head, from) + d * keyPairs, keyPairs, block.weights, block.out + d * blockQueries, blockQueries,
                           false);
  }
  for (int64_t d = 0; d < K; d++)
    for (int v = 0; v < vecs; v++) {
      float *out = block.out + d * blockQueries + v * W;
      store(out, load(out) / block.total[v]);
    }
  unpack(block.out, blockQueries, K, present, p.out.row(b, h, l), p.out.stride());
}
} // namespace

void amxAttention(const Attention &p) {
  static thread_local ScratchBuffer packedScratch;
  const int64_t K = p.k.K, heads = p.k.B * p.k.H, length = roundUp(p.k.L, R), blocks = ceilDiv(length, blockKeys), dims = roundUp(K, R), depth = dims / 2;
  float *memory = packedScratch.reserve(heads * (length * depth + blocks * dims * keyPairs));
  const PackedHeads packed{length, blocks, depth, dims, memory, memory + heads * length * depth};
  parallel(heads * length / R, 8, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *buffer = scratch.reserve(R * K + R * dims + R / 2 * dims);
    for (int64_t i = from; i < to; i++) {
      const int64_t head = i / (length / R), j = i % (length / R) * R;
      packKeys(p, packed, head / p.k.H, head % p.k.H, j, buffer);
      packValues(p, packed, head / p.k.H, head % p.k.H, j, buffer);
    }
  });
  const int64_t queryBlocks = ceilDiv(p.q.L, blockQueries);
  parallel(p.q.B * p.q.H * queryBlocks, 1, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    const int64_t sizes[] = {depth * blockQueries, std::max(blockKeys, dims) * blockQueries, keyPairs * blockQueries};
    float *q = scratch.reserve(sizes[0] + sizes[1] + sizes[2] + dims * blockQueries);
    Block block{q, q + sizes[0], q + sizes[0] + sizes[1], q + sizes[0] + sizes[1] + sizes[2], {}, {}, {}};
    const Tiles::TileConfig config;
    for (int64_t i = from; i < to; i++)
      attendBlock(p, packed, block, i / queryBlocks / p.q.H, i / queryBlocks % p.q.H, i % queryBlocks * blockQueries);
  });
}
#else
void amxAttention(const Attention &p) { blockedAttention(p); }
#endif
