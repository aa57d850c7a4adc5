// Products of many rows, by tiles of y: in float32, or in bfloat16 with sums in float32 where the processor has arithmetic for that.
// Each kind says how numbers of x and of a weight lie in panels, and how a tile is made of two panels.
#pragma once
#include "affine.h"
#include "gemm.h"
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define WITH_HALVES
#if defined(__AMX_BF16__) && defined(__linux__)
#define WITH_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

constexpr int64_t width = tileVecs * W; // columns of a tile
constexpr int64_t depth = 256;          // of K: a panel of weights stays in the first cache while panels of x pass by
static_assert(depth % record == 0, "packed rows are read by whole records");

/** Rows `[n, n + present)` of a weight and of these columns `[k, k + d)`, in float32: a row each `depth`. */
inline const float *unpacked(const Map &map, int64_t n, int64_t present, int64_t k, int64_t d) {
  static thread_local std::unique_ptr<float[]> rows(new float[width * depth]);
  for (int64_t r = 0; r < present; r++) unpackRow(map.form, map.row(n + r), k, d, rows.get() + r * depth);
  return rows.get();
}

/** y as a tile is to be written: what is there is added to, unless the tile is the first of its K. */
inline void put(const Vec (&c)[tileRows][tileVecs], float *y, int64_t stride, bool first) {
  for (int64_t r = 0; r < tileRows; r++)
    for (int v = 0; v < tileVecs; v++) store(y + r * stride + v * W, first ? c[r][v] : load(y + r * stride + v * W) + c[r][v]);
}

/** y is asked for before its numbers are due. */
inline void expect(float *y, int64_t stride) {
  for (int64_t r = 0; r < tileRows; r++) __builtin_prefetch(y + r * stride, 1), __builtin_prefetch(y + r * stride + width - 1, 1);
}

/** Float32. A panel of x is `[d][R]`, one of a weight `[d][width]`. */
struct Singles {
  static constexpr int64_t R = tileRows, words = depth; // in a panel, of a row of x or of a weight
  struct Ready {};

  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) { pack<R>(panel, x, stride, present, d); }

  static void packWeight(float *panel, const Map &map, int64_t n, int64_t present, int64_t k, int64_t d) {
    if (map.form == Form::float32) pack<width>(panel, map.row(n) + k, map.stride, present, d);
    else pack<width>(panel, unpacked(map, n, present, k, d), depth, present, d);
  }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    expect(y, stride);
    Vec c[tileRows][tileVecs] = {};
    multiply<tileRows, tileVecs>(d, a, b, width, c);
    put(c, y, stride, first);
  }
};

#if defined(WITH_HALVES)
constexpr bool hasHalves = true;

/** Pairs of neighbours in bfloat16, a word each. A panel of x is `[R][depth / 2]`, one of a weight `[d / 2][width]`; what is missing is 0. */
struct Halves {
  static constexpr int64_t R = tileRows, words = depth / 2;
  struct Ready {};

  /** Of d numbers, and of zeros up to a whole tile of AMX. */
  static constexpr int64_t wordsOf(int64_t d) { return (d + 31) / 32 * 16; }

  static void rounded(const float *x, int64_t d, float *to) {
    alignas(64) float rest[32] = {};
    for (int64_t i = 0; i < d; i += 32) {
      const float *from = i + 32 <= d ? x + i : rest;
      if (from == rest) std::copy_n(x + i, d - i, rest);
      const auto both = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(load(from + W)), reinterpret_cast<__m512>(load(from)));
      std::memcpy(to + i / 2, &both, sizeof both);
    }
  }

  template <int64_t rows> static void packRounded(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) {
    for (int64_t r = 0; r < present; r++) rounded(x + r * stride, d, panel + r * words);
    std::fill_n(panel + present * words, (rows - present) * words, 0.0f);
  }
  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) { packRounded<R>(panel, x, stride, present, d); }

  static void packWeight(float *panel, const Map &map, int64_t n, int64_t present, int64_t k, int64_t d) {
    if (map.form == Form::bf16) {
      const int64_t given = (d + 1) / 2;
      pack<width>(panel, map.row(n) + k / 2, map.stride, present, given);
      std::fill_n(panel + given * width, (wordsOf(d) - given) * width, 0.0f);
      return;
    }
    static thread_local std::unique_ptr<float[]> rows(new float[width * words]);
    packRounded<width>(rows.get(), unpacked(map, n, present, k, d), depth, present, d);
    pack<width>(panel, rows.get(), words, present, wordsOf(d));
  }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    expect(y, stride);
    Vec c[tileRows][tileVecs] = {};
    for (int64_t p = 0; p < wordsOf(d); p++, b += width) {
      Pairs columns[tileVecs];
#pragma GCC unroll 4
      for (int v = 0; v < tileVecs; v++) columns[v] = pairs(inRegister(load(b + v * W)));
#pragma GCC unroll 16
      for (int r = 0; r < tileRows; r++) {
        const Pairs row = reinterpret_cast<Pairs>(_mm512_set1_ps(a[r * words + p]));
#pragma GCC unroll 4
        for (int v = 0; v < tileVecs; v++) c[r][v] = reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(c[r][v]), row, columns[v]));
      }
    }
    put(c, y, stride, first);
  }

 private:
  typedef decltype(_mm512_cvtne2ps_pbh(__m512{}, __m512{})) Pairs;
  static Pairs pairs(Vec x) { return reinterpret_cast<Pairs>(x); }
};
#else
constexpr bool hasHalves = false;
using Halves = Singles;
#endif

#if defined(WITH_AMX)
/** The same panels, but for more rows, multiplied in tiles of AMX. */
struct AmxHalves : Halves {
  static constexpr int64_t R = 32;
  static_assert(width == 32);

  /** Linux lets a process use tiles that asks for them. */
  static bool granted() {
    static const bool yes = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
    return yes;
  }

  /** While it lives, this thread has tiles of 16 rows of 64 bytes. */
  struct Ready {
    Ready() {
      struct alignas(64) {
        uint8_t palette = 1, startRow = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
      } shapes;
      for (int i = 0; i < 8; i++) shapes.bytes[i] = 64, shapes.rows[i] = 16;
      asm volatile("" ::: "memory");
      _tile_loadconfig(&shapes);
    }
    ~Ready() { _tile_release(); }
    Ready(const Ready &) = delete;
  };

  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) { packRounded<R>(panel, x, stride, present, d); }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    constexpr int64_t four = sizeof(float), half = 16;
    asm volatile("" ::: "memory"); // GCC does not know that loading a tile reads memory
    if (first) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(0, y, stride * four);
      _tile_loadd(1, y + half, stride * four);
      _tile_loadd(2, y + half * stride, stride * four);
      _tile_loadd(3, y + half * stride + half, stride * four);
    }
    for (int64_t p = 0; p < wordsOf(d); p += half) {
      _tile_loadd(4, a + p, words * four);
      _tile_loadd(5, a + half * words + p, words * four);
      _tile_loadd(6, b + p * width, width * four);
      _tile_loadd(7, b + p * width + half, width * four);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, y, stride * four);
    _tile_stored(1, y + half, stride * four);
    _tile_stored(2, y + half * stride, stride * four);
    _tile_stored(3, y + half * stride + half, stride * four);
    asm volatile("" ::: "memory");
  }
};
#endif
