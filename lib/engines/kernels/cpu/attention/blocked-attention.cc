// Attention of many queries (prefill, vision), block by block: the scores of a block of queries with a block of keys never leave the
// caches. Source: Dao et al. 2022 (FlashAttention); Milakov & Gimelshein 2018 (online softmax). Vector lanes are queries: scores are [keys][queries], so that softmax runs down columns without
// sums across lanes, and the weights are already the panel that the product with the values reads.
#include "attention/int8-attention.h"
#include "attention/mask-scores.h"

namespace {
/** Scores of one block of keys, `[count][queries]`. */
void score(const Attention &p, Block &block, const float *packedKeys, int64_t from, int64_t count) {
  for (int64_t j = 0; j < count; j += R) {
    Vec c[R][wideVecs] = {};
    multiply<wideRows, wideVecs>(p.k.K, packedKeys + (from + j) * p.k.K, block.q.get(), blockQueries, c);
    storeTile(block.scores.get() + j * blockQueries, blockQueries, c);
  }
}

/**
 * Softmax of the scores of `count` keys, and the running sums rescaled to the new maximum. `power` is `exp` or `exp2`; `write` stores the weights of
 * two neighbouring keys, of which the second is zero behind the last key, at a column of keys that are read already.
 */
template <class Power, class Write> void softmax(Block &block, int64_t count, int64_t dims, Power power, Write write) {
  for (int v = 0; v < wideVecs; v++) {
    float *column = block.scores.get() + v * W;
    Vec maximum = block.maximum[v];
    for (int64_t j = 0; j < count; j++) maximum = max(maximum, load(column + j * blockQueries));
    const Vec rescale = power(block.maximum[v] - maximum);
    Vec total = block.total[v] * rescale;
    for (int64_t j = 0; j < count; j += 2) {
      const float *key = column + j * blockQueries;
      const Vec first = power(load(key) - maximum), second = j + 1 < count ? power(load(key + blockQueries) - maximum) : Vec{};
      total += first + second;
      write(column, j, first, second);
    }
    for (int64_t d = 0; d < dims; d++) {
      float *out = block.out.get() + d * blockQueries + v * W;
      store(out, load(out) * rescale);
    }
    block.maximum[v] = maximum, block.total[v] = total;
  }
}

/** Adds the products of the weights of `count` keys with the values from key `from` on. */
void addValues(const Attention &p, Block &block, const float *packedValues, int64_t from, int64_t count) {
  for (int64_t d = 0; d < roundUp(p.v.K, R); d += R) {
    Vec c[R][wideVecs];
    loadTile(block.out.get() + d * blockQueries, blockQueries, c);
    multiply<wideRows, wideVecs>(count, packedValues + d * p.k.L + from * R, block.scores.get(), blockQueries, c);
    storeTile(block.out.get() + d * blockQueries, blockQueries, c);
  }
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

/** The keys and values of all heads, packed in float32 or in integers. */
struct Packed {
  const float *keys, *values; // [heads][Lk/R][K][R], [heads][K/R][Lk][R]
  bool inIntegers;
  Int8Keys int8Keys;
  Int16Values int16Values;
};

void attendBlock(const Attention &p, Block &block, const Packed &packed, int64_t head, int64_t b, int64_t h, int64_t l) {
  const int64_t K = p.q.K, dims = roundUp(K, R), length = roundUp(p.k.L, R), present = std::min(blockQueries, p.q.L - l), first = p.start() + l;
  const bool inIntegers = packed.inIntegers;
  const float unit = inIntegers ? log2e : 1; // scores in int8 are in powers of two
  Vec scales[wideVecs];
  if (inIntegers) packInt8Queries(p, block, packed.int8Keys.words, b, h, l, present, scales);
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
    if (inIntegers) scoreInt8(packed.int8Keys, block, head * length + from, count, scales);
    else score(p, block, packed.keys + head * length * K, from, count);
    if (needsCausalMask || p.mask) maskScores(block.firstKey, block.position, p.maskOf(b), unit, from, count, needsCausalMask, block.scores.get());
    if (inIntegers) {
      softmax(block, count, dims, [](Vec x) { return exp2(x); }, [](float *column, int64_t j, Vec first, Vec second) {
        store(column + j / 2 * blockQueries, reinterpret_cast<Vec>(pairsOf(first * maxWeight, second * maxWeight)));
      });
      addValuesInt16(packed.int16Values, block, head, from, count);
    } else {
      softmax(block, count, dims, [](Vec x) { return exp(x); }, [](float *column, int64_t j, Vec first, Vec second) {
        store(column + j * blockQueries, first), store(column + (j + 1) * blockQueries, second);
      });
      addValues(p, block, packed.values + head * dims * p.k.L, from, count);
    }
  }
  for (int64_t d = 0; d < dims; d++)
    for (int v = 0; v < wideVecs; v++) {
      float *out = block.out.get() + d * blockQueries + v * W;
      store(out, load(out) * (inIntegers ? packed.int16Values.scales[head * dims + d] / maxWeight : 1) / block.total[v]);
    }
  unpack(block.out.get(), blockQueries, K, present, p.out.row(b, h, l), p.out.stride());
}

/** Packs keys and values in float32 into `memory`. */
Packed packFloats(const Attention &p, std::unique_ptr<float[]> &memory) {
  const int64_t K = p.k.K, dims = roundUp(K, R), length = roundUp(p.k.L, R), heads = p.k.B * p.k.H;
  memory.reset(new float[heads * (length * K + dims * p.k.L)]);
  float *keys = memory.get(), *values = keys + heads * length * K;
  parallel(p.k.B * length / R, 8, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *buffer = scratch.reserve(R * K);
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / (length / R), j = i % (length / R) * R, count = std::min(R, p.k.L - j);
      for (int64_t g = 0; g < p.k.H; g++) {
        const FloatRows rows = floatRows(p.k, b, g, j, count, buffer);
        pack<R>(keys + ((b * p.k.H + g) * length + j) * K, rows.data, rows.stride, count, K);
        packValues(p, b, g, j, buffer, values + (b * p.k.H + g) * dims * p.k.L);
      }
    }
  });
  return {keys, values, false, {}, {}};
}

/** Packs keys and values in integers into `memory`. */
Packed packIntegers(const Attention &p, std::unique_ptr<float[]> &memory) {
  const int64_t K = p.k.K, dims = roundUp(K, R), length = roundUp(p.k.L, R), heads = p.k.B * p.k.H, words = roundUp(K, 4) / 4, pairs = (p.k.L + 1) / 2;
  memory.reset(new float[heads * (length * (words + 2) + dims * (pairs + 2))]);
  float *at = memory.get();
  const auto take = [&](int64_t count) { return at += count, at - count; };
  const Int8Keys keys{words, reinterpret_cast<int32_t *>(take(heads * length * words)), take(heads * length), take(heads * length)};
  const Int16Values values{dims, pairs, reinterpret_cast<int32_t *>(take(heads * dims * pairs)), take(heads * dims), take(heads * dims)};
  std::vector<float> means(heads * K);
  parallel(heads, 1, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *buffer = scratch.reserve(K);
    for (int64_t head = from; head < to; head++) {
      addMeanKey(p, head / p.k.H, head % p.k.H, buffer, means.data() + head * K);
      scaleValues(p, values, head / p.k.H, head % p.k.H, buffer);
    }
  });
  parallel(p.k.B * length / R, 8, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *buffer = scratch.reserve(R * K + dims);
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / (length / R), j = i % (length / R) * R;
      for (int64_t g = 0; g < p.k.H; g++) {
        packInt8Keys(p, keys, means.data() + (b * p.k.H + g) * K, length, b, g, j, buffer);
        packInt16Values(p, values, b, g, j, buffer);
      }
    }
  });
  return {nullptr, nullptr, true, keys, values};
}
} // namespace

void blockedAttention(const Attention &p, bool inIntegers) {
  std::unique_ptr<float[]> memory;
  const Packed packed = inIntegers ? packIntegers(p, memory) : packFloats(p, memory);
  const int64_t K = p.k.K, dims = roundUp(K, R), blocks = (p.q.L + blockQueries - 1) / blockQueries;
  parallel(p.q.B * p.q.H * blocks, 1, [&](int64_t from, int64_t to) {
    Block block{std::unique_ptr<float[]>(new float[roundUp(K, 4) * blockQueries]), std::unique_ptr<float[]>(new float[blockKeys * blockQueries]),
                std::unique_ptr<float[]>(new float[dims * blockQueries]), {}, {}, {}, {}};
    for (int64_t i = from; i < to; i++) {
      const int64_t b = i / blocks / p.q.H, h = i / blocks % p.q.H;
      attendBlock(p, block, packed, b * p.k.H + h / (p.q.H / p.k.H), b, h, i % blocks * blockQueries);
    }
  });
}
