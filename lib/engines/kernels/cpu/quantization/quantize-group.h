// Quantization of activations to int8, in groups of 32 with a scale each.
#pragma once
#include "quantization/dequantize.h"

/** Bits of the largest absolute value of a group. NaN and infinity have greater bits than all numbers. */
inline uint32_t maxAbsBits(const float *x) {
#if defined(__AVX2__)
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i bits = _mm256_setzero_si256();
  for (int64_t i = 0; i < groupSize; i += 8)
    bits = _mm256_max_epi32(bits, _mm256_and_si256(magnitude, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(x + i))));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
#else
  uint32_t most = 0;
  for (int64_t i = 0; i < groupSize; i++) most = std::max(most, bitsOfFloat(x[i]) & 0x7fffffffu);
  return most;
#endif
}

/** Rounds a group to the nearest int8, ties to even; the products with `inverse` are at most 127 in size. */
inline void roundGroup(const float *x, float inverse, int8_t *to) {
#if defined(__AVX2__)
  const auto eight = [&](int64_t i) { return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inverse))); };
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(eight(0), eight(8)), _mm256_packs_epi32(eight(16), eight(24)));
  const __m256i inOrder = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); // both packs stay in halves of the vector
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), inOrder);
#else
  for (int64_t i = 0; i < groupSize; i += W) roundToInt8(load(x + i) * inverse, to + i);
#endif
}

/** Quantizes n entries, padded with zeros to a group; returns their scale, NaN if an entry is NaN or infinite: int8 holds neither. */
inline float quantizeGroup(const float *x, int64_t n, int8_t *to) {
  alignas(64) float tail[groupSize];
  if (n < groupSize) std::fill(std::copy_n(x, n, tail), tail + groupSize, 0.0f), x = tail;
  const float maximum = floatFromBits(maxAbsBits(x));
  roundGroup(x, maximum > 0 ? 127 / maximum : 0, to);
  return maximum / 127 + (maximum - maximum);
}
