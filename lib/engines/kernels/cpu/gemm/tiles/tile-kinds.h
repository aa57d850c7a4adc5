// Tile kinds of the GEMM: float32, bfloat16 with float32 sums (AVX512-BF16), and bfloat16 in AMX tiles. A kind defines how rows of x and
// of a weight are packed into panels, and computes one tile of y from two panels.
#pragma once
#include <memory>
#include "gemm/linear.h"
#include "gemm/microkernel.h"
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_BFLOAT16
#if defined(__AMX_BF16__) && defined(__linux__)
#define HAS_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

static_assert(panelK % blockSize == 0, "quantized rows are read in whole blocks");

/** Rows `[n, n + present)`, columns `[k, k + d)` of a weight, dequantized to float32; rows are `panelK` apart. */
inline const float *dequantized(const Projection &projection, int64_t n, int64_t present, int64_t k, int64_t d) {
  static thread_local std::unique_ptr<float[]> rows(new float[tileWidth * panelK]);
  for (int64_t r = 0; r < present; r++) dequantizeRow(projection.format, projection.row(n + r), k, d, rows.get() + r * panelK);
  return rows.get();
}

/** Stores the accumulators of a tile: overwrites y for the first panel of K, adds to y for the later ones. */
template <int64_t R> inline void storeTile(const Vec (&c)[R][tileVecs], float *y, int64_t stride, bool first) {
  for (int64_t r = 0; r < R; r++)
    for (int v = 0; v < tileVecs; v++) store(y + r * stride + v * W, first ? c[r][v] : load(y + r * stride + v * W) + c[r][v]);
}

/** Prefetches the output tile. */
template <int64_t R = tileRows> inline void prefetchTile(float *y, int64_t stride) {
  for (int64_t r = 0; r < R; r++) __builtin_prefetch(y + r * stride, 1), __builtin_prefetch(y + r * stride + tileWidth - 1, 1);
}

/** Float32. A panel of x is `[d][R]`, a weight panel is `[d][tileWidth]`. */
struct Float32Tiles {
  static constexpr int64_t R = tileRows, entries = panelK, panelDepth = panelK; // entries of K per panel, and floats of a panel per row
  struct TileConfig {};

  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) { pack<R>(panel, x, stride, present, d); }

  static void packWeight(float *panel, const Projection &projection, int64_t n, int64_t present, int64_t k, int64_t d) {
    if (projection.format == Format::float32) pack<tileWidth>(panel, projection.row(n) + k, projection.stride, present, d);
    else pack<tileWidth>(panel, dequantized(projection, n, present, k, d), panelK, present, d);
  }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    prefetchTile(y, stride);
    Vec c[tileRows][tileVecs] = {};
    multiply<tileRows, tileVecs>(d, a, b, tileWidth, c);
    storeTile(c, y, stride, first);
  }
};

#if defined(HAS_BFLOAT16)
constexpr bool hasBfloat16 = true;

/** Neighbouring bfloat16 pairs, 32 bits each. A panel of x is `[R][panelK / 2]`, a weight panel is `[d / 2][tileWidth]`, zero-padded. */
struct Bfloat16Tiles {
  static constexpr int64_t R = tileRows, entries = panelK, panelDepth = panelK / 2;
  struct TileConfig {};

  /** 32-bit pairs of d numbers, padded to whole AMX tiles. */
  static constexpr int64_t paddedPairs(int64_t d) { return (d + 31) / 32 * 16; }

  static void roundToPairs(const float *x, int64_t d, float *to) {
    alignas(64) float tail[32] = {};
    for (int64_t i = 0; i < d; i += 32) {
      const float *from = i + 32 <= d ? x + i : tail;
      if (from == tail) std::copy_n(x + i, d - i, tail);
      const auto both = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(load(from + W)), reinterpret_cast<__m512>(load(from)));
      std::memcpy(to + i / 2, &both, sizeof both);
    }
  }

  template <int64_t rows> static void packPairs(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) {
    for (int64_t r = 0; r < present; r++) roundToPairs(x + r * stride, d, panel + r * panelDepth);
    std::fill_n(panel + present * panelDepth, (rows - present) * panelDepth, 0.0f);
  }
  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) { packPairs<R>(panel, x, stride, present, d); }

  static void packWeight(float *panel, const Projection &projection, int64_t n, int64_t present, int64_t k, int64_t d) {
    if (projection.format == Format::bfloat16) {
      const int64_t pairs = (d + 1) / 2;
      pack<tileWidth>(panel, projection.row(n) + k / 2, projection.stride, present, pairs);
      std::fill_n(panel + pairs * tileWidth, (paddedPairs(d) - pairs) * tileWidth, 0.0f);
      return;
    }
    static thread_local std::unique_ptr<float[]> rows(new float[tileWidth * panelDepth]);
    packPairs<tileWidth>(rows.get(), dequantized(projection, n, present, k, d), panelK, present, d);
    pack<tileWidth>(panel, rows.get(), panelDepth, present, paddedPairs(d));
  }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    prefetchTile(y, stride);
    Vec c[tileRows][tileVecs] = {};
    for (int64_t p = 0; p < paddedPairs(d); p++, b += tileWidth) {
      Pairs columns[tileVecs];
#pragma GCC unroll 4
      for (int v = 0; v < tileVecs; v++) columns[v] = pairs(keepInRegister(load(b + v * W)));
#pragma GCC unroll 16
      for (int r = 0; r < tileRows; r++) {
        const Pairs row = reinterpret_cast<Pairs>(_mm512_set1_ps(a[r * panelDepth + p]));
#pragma GCC unroll 4
        for (int v = 0; v < tileVecs; v++) c[r][v] = reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(c[r][v]), row, columns[v]));
      }
    }
    storeTile(c, y, stride, first);
  }

 private:
  typedef decltype(_mm512_cvtne2ps_pbh(__m512{}, __m512{})) Pairs;
  static Pairs pairs(Vec x) { return reinterpret_cast<Pairs>(x); }
};
#else
constexpr bool hasBfloat16 = false;
using Bfloat16Tiles = Float32Tiles;
#endif

#if defined(HAS_AMX)
/** The same panels with 32 rows of x, multiplied in AMX tiles. */
struct AmxBfloat16Tiles : Bfloat16Tiles {
  static constexpr int64_t R = 32;
  static_assert(tileWidth == 32);

  /** Requests AMX permission from Linux once; false if the kernel denies the request. */
  static bool isPermitted() {
    static const bool yes = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
    return yes;
  }

  /** Configures AMX on this thread for its lifetime: tiles of 16 rows of 64 bytes. */
  struct TileConfig {
    TileConfig() {
      struct alignas(64) {
        uint8_t palette = 1, startRow = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
      } shapes;
      for (int i = 0; i < 8; i++) shapes.bytes[i] = 64, shapes.rows[i] = 16;
      asm volatile("" ::: "memory");
      _tile_loadconfig(&shapes);
    }
    ~TileConfig() { _tile_release(); }
    TileConfig(const TileConfig &) = delete;
  };

  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) { packPairs<R>(panel, x, stride, present, d); }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    multiplyTiles(paddedPairs(d), a, panelDepth, b, y, stride, first);
  }

  /** `y = a b`, or `y += a b` unless `first`: 32 rows of a, `depth` pairs each and `aStride` apart, times `depth` rows of b, 32 pairs each. */
  static void multiplyTiles(int64_t depth, const float *a, int64_t aStride, const float *b, float *y, int64_t stride, bool first) {
    constexpr int64_t floatBytes = sizeof(float), halfTile = 16;
    asm volatile("" ::: "memory"); // GCC does not know that a tile load reads memory
    if (first) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(0, y, stride * floatBytes);
      _tile_loadd(1, y + halfTile, stride * floatBytes);
      _tile_loadd(2, y + halfTile * stride, stride * floatBytes);
      _tile_loadd(3, y + halfTile * stride + halfTile, stride * floatBytes);
    }
    for (int64_t p = 0; p < depth; p += halfTile) {
      _tile_loadd(4, a + p, aStride * floatBytes);
      _tile_loadd(5, a + halfTile * aStride + p, aStride * floatBytes);
      _tile_loadd(6, b + p * tileWidth, tileWidth * floatBytes);
      _tile_loadd(7, b + p * tileWidth + halfTile, tileWidth * floatBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, y, stride * floatBytes);
    _tile_stored(1, y + halfTile, stride * floatBytes);
    _tile_stored(2, y + halfTile * stride, stride * floatBytes);
    _tile_stored(3, y + halfTile * stride + halfTile, stride * floatBytes);
    asm volatile("" ::: "memory");
  }
};
#endif
