// Reading quantized weights, see format.h for their layout.
#pragma once
#include <algorithm>
#include <cmath>
#include "quantization/format.h"
#include "runtime/simd.h"

inline float floatFromBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t bitsOfFloat(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

/** Scales of the two groups of a block. */
struct GroupScales {
  float low, high;
  explicit GroupScales(const uint8_t *at) {
    uint32_t word;
    std::memcpy(&word, at, 4);
    low = floatFromBits(word << 16), high = floatFromBits(word & 0xffff0000u);
  }
};

typedef int8_t Bytes __attribute__((vector_size(W)));
typedef uint16_t Shorts __attribute__((vector_size(W * 2)));
typedef uint32_t UVec __attribute__((vector_size(W * 4)));
typedef int8_t Int8x16 __attribute__((vector_size(16)));

// GCC 12 splits these conversions into scalar code, so AVX-512 and AVX2 use intrinsics.

/** Converts W int8 numbers to float32. */
inline Vec loadInt8(const int8_t *p) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)))));
#else
  Bytes b;
  std::memcpy(&b, p, sizeof b);
  return __builtin_convertvector(b, Vec);
#endif
}
/** Converts W bfloat16 numbers to float32. */
inline Vec loadBfloat16(const uint16_t *p) {
#if defined(__AVX512F__)
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  return reinterpret_cast<Vec>(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)));
#elif defined(__AVX2__)
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  return reinterpret_cast<Vec>(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16)));
#else
  Shorts s;
  std::memcpy(&s, p, sizeof s);
  return reinterpret_cast<Vec>(__builtin_convertvector(s, UVec) << 16);
#endif
}

inline Int8x16 lookUp(Int8x16 table, Int8x16 at) {
#if defined(__clang__)
  Int8x16 y;
  for (int i = 0; i < 16; i++) y[i] = table[at[i] & 15];
  return y;
#else
  return __builtin_shuffle(table, at);
#endif
}

typedef uint8_t Uint8x16 __attribute__((vector_size(16)));

/** Levels of the 64 weights of a block, in order; `buffer` receives them for formats that store them in another order. */
template <Format format> inline const int8_t *levels(const uint8_t *packed, int8_t *buffer) {
  if (format == Format::int8) return reinterpret_cast<const int8_t *>(packed);
  Int8x16 table;
  std::memcpy(&table, codebook, 16);
  Uint8x16 upperBits{};
  if (format == Format::int6) std::memcpy(&upperBits, packed + groupSize, 16);
  for (int i = 0; i < 2; i++, upperBits >>= 2) {
    Uint8x16 both;
    std::memcpy(&both, packed + i * 16, 16);
    const auto level = [&](Uint8x16 four, Uint8x16 two) {
      return format == Format::int4 ? lookUp(table, reinterpret_cast<Int8x16>(four)) : reinterpret_cast<Int8x16>((four | (two & 3) << 4) - 32);
    };
    const Int8x16 low = level(both & 15, upperBits), high = level(both >> 4, upperBits >> 4);
    std::memcpy(buffer + i * 16, &low, 16);
    std::memcpy(buffer + groupSize + i * 16, &high, 16);
  }
  return buffer;
}

/** Dequantizes the first n weights of consecutive blocks. */
template <Format format> inline void dequantizeBlocks(const uint8_t *p, int64_t n, float *y) {
  alignas(64) int8_t buffer[blockSize];
  alignas(64) float tail[blockSize];
  for (int64_t i = 0; i < n; i += blockSize, p += blockBytes(format)) {
    const GroupScales scales(p);
    const int8_t *q = levels<format>(p + 4, buffer);
    float *to = i + blockSize <= n ? y + i : tail;
    for (int64_t j = 0; j < blockSize; j += W) store(to + j, loadInt8(q + j) * (j < groupSize ? scales.low : scales.high));
    if (to == tail) std::memcpy(y + i, tail, (n - i) * sizeof(float));
  }
}

/** Weights `[from, from + n)` of a row in float32; `from` is a multiple of 64 for blockwise formats. */
inline void dequantizeRow(Format format, const float *row, int64_t from, int64_t n, float *y) {
  if (format == Format::float32) {
    std::memcpy(y, row + from, n * sizeof(float));
    return;
  }
  if (format == Format::bfloat16) {
    const uint16_t *p = reinterpret_cast<const uint16_t *>(row) + from;
    int64_t i = 0;
    for (; i + W <= n; i += W) store(y + i, loadBfloat16(p + i));
    for (; i < n; i++) y[i] = floatFromBits(static_cast<uint32_t>(p[i]) << 16);
    return;
  }
  const uint8_t *p = reinterpret_cast<const uint8_t *>(row) + from / blockSize * blockBytes(format);
  if (format == Format::int8) return dequantizeBlocks<Format::int8>(p, n, y);
  if (format == Format::int6) return dequantizeBlocks<Format::int6>(p, n, y);
  dequantizeBlocks<Format::int4>(p, n, y);
}

/** Clamps to [-most, most]; NaN becomes -most. */
inline Vec clamp(Vec x, float maximum) {
  const Vec low = x > splat(-maximum) ? x : splat(-maximum);
  return low < splat(maximum) ? low : splat(maximum);
}
/** Rounds to the nearest int8 in [-127, 127], ties to even. */
inline void roundToInt8(Vec x, int8_t *to) {
  const Vec near = clamp(x, 127);
#if defined(__AVX512F__)
  const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(reinterpret_cast<__m512>(near)));
  std::memcpy(to, &bytes, sizeof bytes);
#elif defined(__AVX2__)
  const __m256i whole = _mm256_cvtps_epi32(reinterpret_cast<__m256>(near));
  const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  const __m128i bytes = _mm_packs_epi16(shorts, shorts);
  std::memcpy(to, &bytes, 8);
#else
  for (int i = 0; i < W; i++) to[i] = static_cast<int8_t>(std::nearbyint(near[i]));
#endif
}

/** The largest absolute value of n entries; n is a multiple of W. */
inline float maxAbs(const float *x, int64_t n) {
  Vec sizes{};
  for (int64_t i = 0; i < n; i += W) sizes = max(sizes, max(load(x + i), -load(x + i)));
  float maximum = 0;
  for (int i = 0; i < W; i++) maximum = std::max(maximum, sizes[i]);
  return maximum;
}
