// Weights in fewer bits: how a row of them lies in memory, and how it is read. lib/packed.ts says the same in TypeScript.
//
// A row of K weights is a run of 32-bit words. bf16: two weights a word, the first in the low half. int8, int6 and int4: records of 64
// weights, each a word with the scales of its two halves (bf16, the first in the low half), then the weights: int8 in order; int4 as
// 32 bytes whose low four bits are the first half and whose high four bits the second, numbers of levels in `codebook`; int6 as the
// low four bits of all in the same way, then 16 bytes with two more bits of weights i, i + 16, i + 32 and i + 48, and 32 too much.
// What is missing at the end of a row meets zeros.
#pragma once
#include "simd.h"
#include <algorithm>
#include <cmath>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

/** Numbers that register.ts gives them. */
enum class Form { float32, bf16, int8, int6, int4 };

constexpr int64_t record = 64, half = 32; // weights

constexpr bool hasRecords(Form form) { return form == Form::int8 || form == Form::int6 || form == Form::int4; }
constexpr int64_t recordBytes(Form form) { return 4 + (form == Form::int8 ? record : form == Form::int6 ? record * 3 / 4 : record / 2); }

/** Levels of int4: those of least squared error for Gaussian weights in groups of 32, each with its best scale (7.3 %). */
alignas(16) constexpr int8_t codebook[16] = {-127, -100, -80, -63, -48, -34, -21, -9, 2, 14, 25, 37, 50, 65, 84, 109};

inline int64_t records(int64_t k) { return (k + record - 1) / record; }

/** 32-bit words of a row of K weights. */
inline int64_t rowWords(Form form, int64_t k) {
  switch (form) {
    case Form::float32: return k;
    case Form::bf16: return (k + 1) / 2;
    default: return records(k) * (recordBytes(form) / 4);
  }
}

inline float ofBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t bitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

/** Scales of the halves of a record. */
struct Scales {
  float low, high;
  explicit Scales(const uint8_t *at) {
    uint32_t word;
    std::memcpy(&word, at, 4);
    low = ofBits(word << 16), high = ofBits(word & 0xffff0000u);
  }
};

typedef int8_t Bytes __attribute__((vector_size(W)));
typedef uint16_t Shorts __attribute__((vector_size(W * 2)));
typedef uint32_t UVec __attribute__((vector_size(W * 4)));
typedef int8_t Sixteen __attribute__((vector_size(16)));

// GCC 12 takes such conversions apart into scalars, so AVX-512 and AVX2 have them by name.

/** W whole numbers of a byte each. */
inline Vec loadBytes(const int8_t *p) {
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
/** W numbers in bf16. */
inline Vec loadHalves(const uint16_t *p) {
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

inline Sixteen look(Sixteen table, Sixteen at) {
#if defined(__clang__)
  Sixteen y;
  for (int i = 0; i < 16; i++) y[i] = table[at[i] & 15];
  return y;
#else
  return __builtin_shuffle(table, at);
#endif
}

typedef uint8_t Unsigned __attribute__((vector_size(16)));

/** The levels of the 64 weights of a record, in order; `own` is memory for those that do not lie so. */
template <Form form> inline const int8_t *levels(const uint8_t *packed, int8_t *own) {
  if (form == Form::int8) return reinterpret_cast<const int8_t *>(packed);
  Sixteen table;
  std::memcpy(&table, codebook, 16);
  Unsigned more{};
  if (form == Form::int6) std::memcpy(&more, packed + half, 16);
  for (int i = 0; i < 2; i++, more >>= 2) {
    Unsigned both;
    std::memcpy(&both, packed + i * 16, 16);
    const auto level = [&](Unsigned four, Unsigned two) {
      return form == Form::int4 ? look(table, reinterpret_cast<Sixteen>(four)) : reinterpret_cast<Sixteen>((four | (two & 3) << 4) - 32);
    };
    const Sixteen low = level(both & 15, more), high = level(both >> 4, more >> 4);
    std::memcpy(own + i * 16, &low, 16);
    std::memcpy(own + half + i * 16, &high, 16);
  }
  return own;
}

/** Weights of whole records, but for what is beyond n. */
template <Form form> inline void unpackRecords(const uint8_t *p, int64_t n, float *y) {
  alignas(64) int8_t own[record];
  alignas(64) float rest[record];
  for (int64_t i = 0; i < n; i += record, p += recordBytes(form)) {
    const Scales scales(p);
    const int8_t *q = levels<form>(p + 4, own);
    float *to = i + record <= n ? y + i : rest;
    for (int64_t j = 0; j < record; j += W) store(to + j, loadBytes(q + j) * (j < half ? scales.low : scales.high));
    if (to == rest) std::memcpy(y + i, rest, (n - i) * sizeof(float));
  }
}

/** Weights `[from, from + n)` of a row as float32; `from` is a multiple of 64 in records. */
inline void unpackRow(Form form, const float *row, int64_t from, int64_t n, float *y) {
  if (form == Form::float32) {
    std::memcpy(y, row + from, n * sizeof(float));
    return;
  }
  if (form == Form::bf16) {
    const uint16_t *p = reinterpret_cast<const uint16_t *>(row) + from;
    int64_t i = 0;
    for (; i + W <= n; i += W) store(y + i, loadHalves(p + i));
    for (; i < n; i++) y[i] = ofBits(static_cast<uint32_t>(p[i]) << 16);
    return;
  }
  const uint8_t *p = reinterpret_cast<const uint8_t *>(row) + from / record * recordBytes(form);
  if (form == Form::int8) return unpackRecords<Form::int8>(p, n, y);
  if (form == Form::int6) return unpackRecords<Form::int6>(p, n, y);
  unpackRecords<Form::int4>(p, n, y);
}

/** Between -most and most; -most for what is no number. */
inline Vec bounded(Vec x, float most) {
  const Vec low = x > splat(-most) ? x : splat(-most);
  return low < splat(most) ? low : splat(most);
}
/** To the nearest whole numbers, ties to even, in bytes: at most 127 in size. */
inline void nearestBytes(Vec x, int8_t *to) {
  const Vec near = bounded(x, 127);
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

/** The size of the entry of greatest size, of n: a multiple of W. */
inline float largest(const float *x, int64_t n) {
  Vec sizes{};
  for (int64_t i = 0; i < n; i += W) sizes = max(sizes, max(load(x + i), -load(x + i)));
  float most = 0;
  for (int i = 0; i < W; i++) most = std::max(most, sizes[i]);
  return most;
}

/** K float32 weights as the words of a row. */
void packRow(Form form, const float *w, int64_t K, int32_t *words);
