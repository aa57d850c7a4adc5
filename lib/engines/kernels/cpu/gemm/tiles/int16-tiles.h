// Tile kind of the GEMM in int16 with int32 sums (`vpmaddwd`, or `vpdpwssd` with AVX512-VNNI), for weights in int8, int6 and int4.
#pragma once
#include "gemm/tiles/tile-kinds.h"

#if defined(__AVX2__) && (!defined(__AVX512F__) || defined(__AVX512BW__))
#define HAS_INT16
constexpr bool hasInt16 = true;

/**
 * A row of x is quantized to 13 bits and a sign, with one scale per panelK entries. The levels of a weight row, whose groups of 32 have
 * a scale each, are rescaled to 10 bits and a sign, with one scale per panelK entries. The tile then needs no scales inside its loop.
 * A panel of x is `[pairs of neighbours][R]` and R scales; a weight panel is `[pairs][tileWidth]` and tileWidth scales.
 */
struct Int16Tiles {
  static constexpr int64_t R = tileRows, entries = panelK, panelDepth = panelK / 2 + 1;
  static constexpr int maxX = 8191, maxWeight = 1024; // |level| ≤ 127 times 8 for int8 and int4, ≤ 32 times 32 for int6
  static_assert(int64_t{maxX} * maxWeight * panelK < int64_t{1} << 31, "sums fit in int32");
  struct TileConfig {};

  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) {
    alignas(64) float rows[R][panelK / 2];
    float *scales = panel + numPairs(d) * R;
    for (int64_t r = 0; r < R; r++) scales[r] = r < present ? quantizeRow(x + r * stride, d, reinterpret_cast<int16_t *>(rows[r])) : 0.0f;
    pack<R>(panel, rows[0], panelK / 2, present, numPairs(d));
  }

  static void packWeight(float *panel, const Projection &projection, int64_t n, int64_t present, int64_t k, int64_t d) {
    static thread_local std::unique_ptr<float[]> rows(new float[tileWidth * panelK / 2]);
    float *scales = panel + numPairs(d) * tileWidth;
    for (int64_t r = 0; r < tileWidth; r++) {
      const Format format = projection.format;
      const uint8_t *blocks = reinterpret_cast<const uint8_t *>(projection.row(n + std::min(r, present - 1))) + k / blockSize * blockBytes(format);
      int16_t *row = reinterpret_cast<int16_t *>(rows.get() + r * (panelK / 2));
      if (r >= present) scales[r] = 0;
      else if (format == Format::int8) scales[r] = rescale<Format::int8>(blocks, d, row);
      else if (format == Format::int6) scales[r] = rescale<Format::int6>(blocks, d, row);
      else scales[r] = rescale<Format::int4>(blocks, d, row);
    }
    pack<tileWidth>(panel, rows.get(), panelK / 2, present, numPairs(d));
  }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    prefetchTile(y, stride);
    const float *xScales = a + numPairs(d) * R, *weightScales = b + numPairs(d) * tileWidth;
    Vec c[tileRows][tileVecs];
    multiplyPairs(numPairs(d), a, b, c);
#pragma GCC unroll 16
    for (int r = 0; r < tileRows; r++)
#pragma GCC unroll 4
      for (int v = 0; v < tileVecs; v++) c[r][v] *= load(weightScales + v * W) * xScales[r];
    storeTile(c, y, stride, first);
  }

 private:
  static int64_t numPairs(int64_t d) { return (d + 1) / 2; }

  /** Quantizes d entries, padded with zeros to whole vectors; returns their scale, NaN if an entry is NaN or infinite. */
  static float quantizeRow(const float *x, int64_t d, int16_t *to) {
    const auto at = [&](int64_t i) { return i + W <= d ? load(x + i) : loadSome(x + i, d - i); };
    Vec sizes{}, nanOrZero{};
    for (int64_t i = 0; i < d; i += W) {
      const Vec v = at(i);
      sizes = max(sizes, max(v, -v)), nanOrZero += v * 0;
    }
    float maximum = 0;
    for (int i = 0; i < W; i++) maximum = std::max(maximum, sizes[i]);
    const float inverse = maximum > 0 ? maxX / maximum : 0;
    for (int64_t i = 0; i < d; i += W) {
      const Vec v = at(i) * inverse;
#if defined(__AVX512F__)
      const __m256i shorts = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(reinterpret_cast<__m512>(v)));
#else
      const __m256i whole = _mm256_cvtps_epi32(reinterpret_cast<__m256>(v));
      const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
#endif
      std::memcpy(to + i, &shorts, sizeof shorts);
    }
    return maximum / maxX + sum(nanOrZero);
  }

  /** Brings the levels of the blocks of d weights to one scale, which is returned. */
  template <Format format> static float rescale(const uint8_t *blocks, int64_t d, int16_t *to) {
    constexpr int shift = format == Format::int6 ? 5 : 3;
    const int64_t count = blockCount(d);
    float maximum = 0, nanOrZero = 0;
    for (int64_t i = 0; i < count; i++) {
      const GroupScales scales(blocks + i * blockBytes(format));
      maximum = std::max({maximum, std::abs(scales.low), std::abs(scales.high)}), nanOrZero += (scales.low + scales.high) * 0;
    }
    const float inverse = maximum > 0 ? 32767 / maximum : 0;
    alignas(64) int8_t buffer[blockSize];
    for (int64_t i = 0; i < count; i++, blocks += blockBytes(format)) {
      const GroupScales scales(blocks);
      const int8_t *q = levels<format>(blocks + 4, buffer);
      for (int64_t j = 0; j < blockSize; j += 16) {
        const __m256i ratio = _mm256_set1_epi16(static_cast<int16_t>(std::lrint((j < groupSize ? scales.low : scales.high) * inverse)));
        const __m256i level = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(q + j))), shift);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + i * blockSize + j), _mm256_mulhrs_epi16(level, ratio));
      }
    }
    return maximum / (1 << shift) + nanOrZero;
  }

#if defined(__AVX512F__)
  static void multiplyPairs(int64_t pairs, const float *a, const float *b, Vec (&y)[tileRows][tileVecs]) {
    __m512i c[tileRows][tileVecs] = {};
    for (int64_t p = 0; p < pairs; p++, a += R, b += tileWidth) {
      __m512i columns[tileVecs];
#pragma GCC unroll 4
      for (int v = 0; v < tileVecs; v++) columns[v] = reinterpret_cast<__m512i>(keepInRegister(load(b + v * W)));
#pragma GCC unroll 16
      for (int r = 0; r < tileRows; r++) {
        const __m512i row = _mm512_castps_si512(_mm512_set1_ps(a[r]));
#pragma GCC unroll 4
        for (int v = 0; v < tileVecs; v++)
#if defined(__AVX512VNNI__)
          c[r][v] = _mm512_dpwssd_epi32(c[r][v], row, columns[v]);
#else
          c[r][v] = _mm512_add_epi32(c[r][v], _mm512_madd_epi16(row, columns[v]));
#endif
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < tileRows; r++)
#pragma GCC unroll 4
      for (int v = 0; v < tileVecs; v++) y[r][v] = reinterpret_cast<Vec>(_mm512_cvtepi32_ps(c[r][v]));
  }
#else
  /** In assembly, because GCC 12 spills accumulators to memory. */
  static inline __attribute__((always_inline)) void multiplyPairs(int64_t pairs, const float *a, const float *b, Vec (&y)[tileRows][tileVecs]) {
    static_assert(tileRows == 6 && tileVecs == 2 && W == 8);
    __m256i c00{}, c01{}, c10{}, c11{}, c20{}, c21{}, c30{}, c31{}, c40{}, c41{}, c50{}, c51{};
    for (int64_t p = 0; p < pairs; p++, a += R, b += tileWidth) {
      __m256i column, row, product;
#define ROW(r, left, right)                                                                                                        \
  "vpbroadcastd " #r "*4(%[a]), %[row]\n vpmaddwd %[column], %[row], %[product]\n vpmaddwd 32(%[b]), %[row], %[row]\n"               \
  "vpaddd %[product], %[" #left "], %[" #left "]\n vpaddd %[row], %[" #right "], %[" #right "]\n"
      asm("vmovdqu (%[b]), %[column]\n" ROW(0, c00, c01) ROW(1, c10, c11) ROW(2, c20, c21) ROW(3, c30, c31) ROW(4, c40, c41) ROW(5, c50, c51)
          : [c00] "+x"(c00), [c01] "+x"(c01), [c10] "+x"(c10), [c11] "+x"(c11), [c20] "+x"(c20), [c21] "+x"(c21), [c30] "+x"(c30),
            [c31] "+x"(c31), [c40] "+x"(c40), [c41] "+x"(c41), [c50] "+x"(c50), [c51] "+x"(c51), [column] "=&x"(column), [row] "=&x"(row),
            [product] "=&x"(product)
          : [a] "r"(a), [b] "r"(b)
          : "memory");
#undef ROW
    }
    const __m256i c[tileRows][tileVecs] = {{c00, c01}, {c10, c11}, {c20, c21}, {c30, c31}, {c40, c41}, {c50, c51}};
#pragma GCC unroll 16
    for (int r = 0; r < tileRows; r++)
#pragma GCC unroll 4
      for (int v = 0; v < tileVecs; v++) y[r][v] = reinterpret_cast<Vec>(_mm256_cvtepi32_ps(c[r][v]));
  }
#endif
};
#else
constexpr bool hasInt16 = false;
using Int16Tiles = Float32Tiles;
#endif
