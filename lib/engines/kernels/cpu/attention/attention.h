// `softmax(q kᵀ · scale + mask) v`.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>
#include "operator/tensor.h"
#include "quantization/dequantize.h"

/**
 * Heads of `[B, H, capacity, K]`, of which the first L positions are used, or of `[B, L, H·K]` if `merged`. In a format other than float32
 * the K numbers of a position are a packed row, see quantization/format.h. If `transposed`, `[B, H, words of a row, capacity]`.
 */
struct Heads {
  float *data;
  int64_t B, H, L, K;
  bool merged;
  int64_t capacity;
  Format format = Format::float32;
  bool transposed = false;
  /** The K numbers of a position, unless transposed. */
  float *row(int64_t b, int64_t h, int64_t l) const { return data + (merged ? (b * L + l) * H + h : (b * H + h) * capacity + l) * columns(); }
  /** Word w of position l, which is followed by that of the next position, if transposed. */
  float *word(int64_t b, int64_t h, int64_t w, int64_t l) const { return data + ((b * H + h) * columns() + w) * capacity + l; }
  /** Number of 32-bit words of a position. */
  int64_t columns() const { return packedColumns(format, K); }
  int64_t stride() const { return merged ? H * columns() : columns(); }
  int64_t size() const { return B * H * L * K; }
};

/** Positions of a head in float32, `stride` floats apart. */
struct FloatRows {
  const float *data;
  int64_t stride;
};

/** The format in which the keys of a cache are transposed, so that attention of one query reads a word of many keys at once; schema.ts says the same. */
constexpr Format transposedKeys = Format::bfloat16;

/** Positions `[from, from + count)` of a head: the memory of the heads, or a dequantized copy in `buffer`, `[count][K]`. */
inline FloatRows floatRows(const Heads &x, int64_t b, int64_t h, int64_t from, int64_t count, float *buffer) {
  if (x.transposed) {
    for (int64_t k = 0; k < x.K; k++) {
      const auto *pairs = reinterpret_cast<const uint16_t *>(x.word(b, h, k / 2, from)) + k % 2;
      for (int64_t i = 0; i < count; i++) buffer[i * x.K + k] = floatFromBits(static_cast<uint32_t>(pairs[2 * i]) << 16);
    }
    return {buffer, x.K};
  }
  if (x.format == Format::float32) return {x.row(b, h, from), x.stride()};
  for (int64_t i = 0; i < count; i++) dequantizeRow(x.format, x.row(b, h, from + i), 0, x.K, buffer + i * x.K);
  return {buffer, x.K};
}

/** Heads of a tensor `[B, H, L, K]`, or `[B, L, H·K]` with H given. */
inline Heads headsOf(const Tensor &x, int64_t H) {
  if (x.rank() == 4) return {x.data, x.dim(0), x.dim(1), x.dim(2), x.dim(3), false, x.dim(2)};
  return {x.data, x.dim(0), H, x.dim(1), x.dim(2) / H, true, x.dim(1)};
}

struct Attention {
  Heads q, k, v, out;
  const float *mask, *sinks; // additive mask [B or 1, 1, 1, Lk] and sinks [H], or null
  bool sharedMask; // one row of the mask serves all of B
  float scale;
  bool causal;
  int64_t window; // keys per query; 0: unlimited
  bool bfloat16;  // products of many queries may be rounded: all to bfloat16, or queries and keys to int8 and values to 10 bits
  const int64_t *sampleStarts = nullptr; // [B, Lk]: where the sample of each position of a packed row starts, or null

  /** Position of the first query: the last query is at the position of the last key. */
  int64_t start() const { return k.L - q.L; }
  const float *maskOf(int64_t b) const { return mask ? mask + (sharedMask ? 0 : b * k.L) : nullptr; }
  /** First key that is visible to the query of row b at a position, and to the queries after it. */
  int64_t firstKey(int64_t b, int64_t position) const {
    const int64_t first = causal && window ? std::max<int64_t>(0, position - window + 1) : 0;
    return sampleStarts ? std::max(first, sampleStarts[b * k.L + std::min(position, k.L - 1)]) : first;
  }
  /** Whether keys before `firstKey` exist. */
  bool hidesFirstKeys() const { return (causal && window) || sampleStarts; }
  int64_t endKey(int64_t last) const { return causal ? std::min(k.L, last + 1) : k.L; }
};

/** The first position of the sample of each position, from the sample numbers `[B, L]` of packed rows; empty without numbers. */
inline std::vector<int64_t> sampleStarts(const Tensor &segments) {
  if (!segments.data) return {};
  const int64_t L = segments.dim(1);
  std::vector<int64_t> starts(segments.size());
  for (int64_t i = 0; i < segments.size(); i++) starts[i] = i % L > 0 && segments.int32()[i] == segments.int32()[i - 1] ? starts[i - 1] : i % L;
  return starts;
}

constexpr float minusInfinity = -1e30f; // finite, so that the difference of two such scores is not NaN

/** Computes `out`; zeros if there are no keys. */
void attend(const Attention &);

/** `attend` for few queries per head. */
void decodeAttention(const Attention &);
/** `attend` for many queries per head; `inIntegers`, for attention without sinks, multiplies rounded numbers, see int8-attention.h. */
void blockedAttention(const Attention &, bool inIntegers = false);
/** `blockedAttention` in bfloat16 with float32 sums, by AMX; in float32 where the library has no code for AMX. */
void amxAttention(const Attention &);
