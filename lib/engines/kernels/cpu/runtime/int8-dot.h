// Dot products of int8 numbers with int32 sums, where the processor has an instruction for them.
#pragma once
#include "runtime/simd.h"
#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

// `dotInt8` adds to each lane the products of its four bytes of x and of `levels`. VNNI takes x unsigned: x is stored as x + dotShift.
#if defined(INT8_TWIN) // VNNI's arithmetic without its instruction: tests compile the tiles with it for processors that have none
#define HAS_INT8_DOT
constexpr int dotShift = 128;
inline IVec dotInt8(IVec sums, IVec x, IVec levels) {
  for (int byte = 0; byte < 32; byte += 8) sums += (x >> byte & 255) * (levels << (24 - byte) >> 24);
  return sums;
}
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define HAS_INT8_DOT
constexpr int dotShift = 128;
inline IVec dotInt8(IVec sums, IVec x, IVec levels) {
  return reinterpret_cast<IVec>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(levels)));
}
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
#define HAS_INT8_DOT
constexpr int dotShift = 128;
inline IVec dotInt8(IVec sums, IVec x, IVec levels) {
  return reinterpret_cast<IVec>(
      _mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sums), reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(levels)));
}
#elif defined(__ARM_FEATURE_DOTPROD)
#define HAS_INT8_DOT
constexpr int dotShift = 0;
inline IVec dotInt8(IVec sums, IVec x, IVec levels) {
  return reinterpret_cast<IVec>(
      vdotq_s32(reinterpret_cast<int32x4_t>(sums), reinterpret_cast<int8x16_t>(x), reinterpret_cast<int8x16_t>(levels)));
}
#else
constexpr int dotShift = 0; // never used
#endif

/** Adds to each lane the products of its two numbers of 16 bits. */
inline IVec dotInt16(IVec sums, IVec x, IVec y) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
  return reinterpret_cast<IVec>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
  return reinterpret_cast<IVec>(_mm256_dpwssd_avx_epi32(reinterpret_cast<__m256i>(sums), reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
#else
  return sums + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}
