// Products of blockwise weight rows with rows of x in int8, by VNNI: 64 products per instruction.
#pragma once
#include "gemm/gemv-input.h"

/**
 * Prefetches weights that are read later: into the L2 cache, which can wait for more lines of memory at once than the L1 cache, and then into
 * the L1 cache. GCC 12 removes the call unless it is always inlined.
 */
inline __attribute__((always_inline)) void prefetchWeights(const void *p) {
  __builtin_prefetch(static_cast<const char *>(p) + 8192, 0, 2);
  __builtin_prefetch(static_cast<const char *>(p) + 2048);
}

#if defined(HAS_VNNI)
/** Reads blocks in a format. Levels are shifted by 128 to be unsigned: VNNI takes one unsigned factor. */
template <Format format> class BlockReader {
 public:
  BlockReader() {
    alignas(16) uint8_t unsignedLevels[16];
    for (int i = 0; i < 16; i++) unsignedLevels[i] = static_cast<uint8_t>(codebook[i] + 128);
    table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i *>(unsignedLevels)));
  }

  /** Level + 128 of each weight of a block. */
  __m512i levels(const uint8_t *block) const {
    const __m512i shift = _mm512_set1_epi8(-128), four = _mm512_set1_epi8(15), upperTwo = _mm512_set1_epi8(48);
    if (format == Format::int8) return _mm512_xor_si512(_mm512_loadu_si512(block + 4), shift);
    const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(block + 4)));
    const __m512i numbers = _mm512_mask_srli_epi16(both, 0xffff0000, both, 4); // in the low four bits
#if defined(__AVX512VBMI__)
    if (format == Format::int4) return _mm512_permutexvar_epi8(numbers, table); // two more bits select one of four equal parts of the table
#else
    if (format == Format::int4) return _mm512_shuffle_epi8(table, _mm512_and_si512(numbers, four));
#endif
    const __m512i more = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(block + 4 + groupSize)));
    const __m512i rotations = _mm512_setr_epi32(4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0, 30, 30, 30, 30);
    const __m512i two = _mm512_and_si512(_mm512_rolv_epi32(more, rotations), upperTwo); // selects, from the four bit pairs of a byte, the pair of this quarter
    return _mm512_add_epi8(_mm512_or_si512(_mm512_and_si512(numbers, four), two), _mm512_set1_epi8(96));
  }

  /** The scale of the first group in lanes 0 to 7, that of the second in lanes 8 to 15. */
  __m512 scales(const uint8_t *block) const {
    uint32_t both;
    std::memcpy(&both, block, 4);
    const __m512i upperHalves = _mm512_inserti64x4(_mm512_set1_epi32(0x01008080), _mm256_set1_epi32(0x03028080), 1); // 0x80 selects zero
    return _mm512_castsi512_ps(_mm512_shuffle_epi8(_mm512_set1_epi32(static_cast<int>(both)), upperHalves));
  }

 private:
  __m512i table;
};

/** Products of a weight row of `count` blocks with R rows of x, each as a vector of partial sums. */
template <Format format, int R>
inline __attribute__((always_inline)) void multiplyBlocks(const BlockReader<format> &reader, const uint8_t *w, const QuantizedBlock *x, int64_t count,
                                                          __m512 (&sums)[R]) {
  for (int r = 0; r < R; r++) sums[r] = _mm512_setzero_ps();
  for (int64_t k = 0; k < count; k++, w += blockBytes(format)) {
    prefetchWeights(w);
    const __m512i levels = reader.levels(w);
    const __m512 scales = reader.scales(w);
    for (int r = 0; r < R; r++) {
      const QuantizedBlock &at = x[r * count + k];
      const __m512i products = _mm512_dpbusd_epi32(_mm512_load_si512(at.offset), levels, _mm512_load_si512(at.q));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scales, _mm512_set1_ps(at.scale)), sums[r]);
    }
  }
}

/** Products of one weight row with R rows of x. */
template <Format format, int R> void dotQuantized(const uint8_t *w, const QuantizedBlock *x, int64_t count, float *y, int64_t width) {
  __m512 sums[R];
  multiplyBlocks<format, R>({}, w, x, count, sums);
  for (int r = 0; r < R; r++) y[r * width] = _mm512_reduce_add_ps(sums[r]);
}

/** Products of N consecutive weight rows with one row of x. The sums of W rows are added across lanes together, in the order of `dotQuantized`. */
template <Format format> void dotConsecutive(const uint8_t *w, int64_t N, const QuantizedBlock *x, int64_t count, float *y) {
  const BlockReader<format> reader;
  const int64_t rowBytes = count * blockBytes(format);
  int64_t n = 0;
  for (; n + W <= N; n += W) {
    Vec rows[W];
    for (int i = 0; i < W; i++, w += rowBytes) {
      __m512 sums[1];
      multiplyBlocks<format, 1>(reader, w, x, count, sums);
      rows[i] = reinterpret_cast<Vec>(sums[0]);
    }
    storeSums(y + n, rows);
  }
  for (; n < N; n++, w += rowBytes) dotQuantized<format, 1>(w, x, count, y + n, 1);
}
#endif
