// Quantization of activations to int8, in groups of 32 with a scale and a middle each.
#pragma once
#include "quantization/dequantize.h"

/** The largest and the smallest entry of a group. Both are NaN if an entry is NaN. */
struct Range {
  float high, low;

  explicit Range(const float *x) {
#if defined(__AVX2__)
    __m256 most = _mm256_loadu_ps(x), least = most, unordered = _mm256_cmp_ps(most, most, _CMP_UNORD_Q);
    for (int64_t i = 8; i < groupSize; i += 8) {
      const __m256 v = _mm256_loadu_ps(x + i);
      most = _mm256_max_ps(most, v), least = _mm256_min_ps(least, v), unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    }
    least = _mm256_xor_ps(least, _mm256_set1_ps(-0.0f)); // both reductions are maxima of one vector
    const __m128 a = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(least), _mm256_extractf128_ps(least, 1));
    const __m128 both = _mm_max_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)), ends = _mm_max_ps(both, _mm_movehl_ps(both, both));
    const float nanOrZero = _mm256_movemask_ps(unordered) ? __builtin_nanf("") : 0.0f;
    high = _mm_cvtss_f32(ends) + nanOrZero, low = nanOrZero - _mm_cvtss_f32(_mm_shuffle_ps(ends, ends, 1));
#else
    high = low = x[0];
    float nanOrZero = 0;
    for (int64_t i = 0; i < groupSize; i++) high = std::max(high, x[i]), low = std::min(low, x[i]), nanOrZero += x[i] * 0;
    high += nanOrZero, low += nanOrZero;
#endif
  }
};

/** Rounds `(x - middle) * inverse` of a group to the nearest int8, ties to even; the products are at most 127 in size. */
inline void roundGroup(const float *x, float middle, float inverse, int8_t *to) {
#if defined(__AVX2__)
  const auto eight = [&](int64_t i) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(middle)), _mm256_set1_ps(inverse)));
  };
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(eight(0), eight(8)), _mm256_packs_epi32(eight(16), eight(24)));
  const __m256i inOrder = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); // both packs stay in halves of the vector
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), inOrder);
#else
  for (int64_t i = 0; i < groupSize; i += W) roundToInt8((load(x + i) - middle) * inverse, to + i);
#endif
}

/** A group of activations: entry i is about `middle + scale * to[i]`. */
struct QuantizedGroup {
  float scale, middle;
};

/**
 * Quantizes n entries, padded with zeros to a group, to -127 … 127 between their smallest and their largest; scale and middle are not finite if
 * an entry is NaN or infinite: int8 holds neither.
 */
inline QuantizedGroup quantizeGroup(const float *x, int64_t n, int8_t *to) {
  alignas(64) float tail[groupSize];
  if (n < groupSize) std::fill(std::copy_n(x, n, tail), tail + groupSize, 0.0f), x = tail;
  const Range range(x);
  const float middle = range.high / 2 + range.low / 2, length = range.high - range.low;
  roundGroup(x, middle, length > 0 ? 254 / length : 0, to);
  return {length / 254, middle};
}
