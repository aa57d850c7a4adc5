// Microkernels: an R x V tile of vector accumulators in registers, and the packing of panels that feed it.
#pragma once
#include <algorithm>
#include <cstdint>
#include "runtime/simd.h"

// The tile takes 24 of 32 vector registers with AVX-512 and NEON, 12 of 16 otherwise.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tileRows = 12, tileVecs = 2, wideRows = 8, wideVecs = 3;
#else
constexpr int tileRows = 6, tileVecs = 2, wideRows = 4, wideVecs = 3;
#endif
constexpr int64_t tileWidth = tileVecs * W; // columns of a tile
constexpr int64_t panelK = 256;             // entries of the summed axis per panel: a panel of the right matrix stays in the L1 cache

/** `⌈n / size⌉`. */
inline int64_t ceilDiv(int64_t n, int64_t size) { return (n + size - 1) / size; }
/** `n` rounded up to a multiple of `size`. */
inline int64_t roundUp(int64_t n, int64_t size) { return ceilDiv(n, size) * size; }

/** Keeps a loaded vector in a register. Without this GCC reloads it from memory at each use, and loads become the bottleneck. */
inline Vec keepInRegister(Vec x) {
#if defined(__x86_64__)
  asm("" : "+v"(x));
#endif
  return x;
}

/** `c[r][j] += Σₚ a[p·step + r] · b[p·stride + j]`: R neighbouring rows, of a packed panel by default, times V vectors of columns. */
template <int R, int V>
inline __attribute__((always_inline)) void multiply(int64_t k, const float *a, const float *b, int64_t stride, Vec (&c)[R][V], int64_t step = R) {
  for (int64_t p = 0; p < k; p++, a += step, b += stride) {
    __builtin_prefetch(a + 64 * step);
    Vec columns[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) columns[v] = keepInRegister(load(b + v * W));
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec row = splat(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) c[r][v] += row * columns[v];
    }
  }
}

/** `multiply` of R rows of a row-major matrix, `down` floats apart. Three rows share a pointer: their distances are scaled indices of one register. */
template <int R, int V>
inline __attribute__((always_inline)) void multiplyRowMajor(int64_t k, const float *a, int64_t down, const float *b, int64_t stride, Vec (&c)[R][V]) {
  const float *rows[R / 3];
#pragma GCC unroll 4
  for (int g = 0; g < R / 3; g++) rows[g] = a + 3 * g * down;
  for (int64_t p = 0; p < k; p++, b += stride) {
    Vec columns[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) columns[v] = keepInRegister(load(b + v * W));
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec row = splat(rows[r / 3][r % 3 * down]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) c[r][v] += row * columns[v];
    }
#pragma GCC unroll 4
    for (int g = 0; g < R / 3; g++) rows[g]++;
  }
}

/** `multiply` with rows that are not neighbours: entry p of row r is `rows[r][p·right]`, and vector v of columns `columnsOf(p, v)`. */
template <int R, int V, class F>
inline __attribute__((always_inline)) void multiplyRows(int64_t k, const float *const (&rows)[R], int64_t right, F columnsOf, Vec (&c)[R][V]) {
  for (int64_t p = 0, at = 0; p < k; p++, at += right) {
    Vec columns[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) columns[v] = keepInRegister(columnsOf(p, v));
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec row = splat(rows[r][at]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) c[r][v] += row * columns[v];
    }
  }
}

/** Loads and stores a tile vector by vector: a tile copied with memcpy does not stay in registers. */
template <int R, int V> inline void loadTile(const float *from, int64_t stride, Vec (&c)[R][V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) c[r][v] = load(from + r * stride + v * W);
}
template <int R, int V> inline void storeTile(float *to, int64_t stride, const Vec (&c)[R][V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) store(to + r * stride + v * W, c[r][v]);
}

typedef float LooseFour __attribute__((vector_size(16), aligned(4), may_alias));

/** Identity; bits that are not a float32 number stay unchanged. */
struct Identity {
  template <class T> T operator()(T x) const { return x; }
};

/** Transposes a 4 x 4 block: four rows, `rowStride` apart, to four columns, `stride` apart. */
template <class F = Identity> inline void transpose(const float *rows, int64_t rowStride, float *columns, int64_t stride, F change = {}) {
  Four x[4];
  for (int r = 0; r < 4; r++) x[r] = change(Four(*reinterpret_cast<const LooseFour *>(rows + r * rowStride)));
  transpose(x);
  for (int i = 0; i < 4; i++) *reinterpret_cast<LooseFour *>(columns + i * stride) = x[i];
}

/** Packs R rows into a panel: `panel[p·R + r] = change(rows[r·stride + p])`, zeros for rows from `present` on. */
template <int R, class F = Identity>
inline void pack(float *panel, const float *rows, int64_t stride, int64_t present, int64_t k, F change = {}) {
  if (present < R) std::fill_n(panel, k * R, 0.0f);
  const int64_t fours = std::min<int64_t>(R, present) / 4 * 4;
  for (int64_t p = 0; p < k; p += 16) { // one cache line of each row
    const int64_t end = std::min(p + 16, k);
    for (int64_t r = 0; r < std::min<int64_t>(R, present); r++) __builtin_prefetch(rows + r * stride + p + 64);
    for (int64_t r = 0; r < std::min<int64_t>(R, present); r += r < fours ? 4 : 1) {
      int64_t i = p;
      if (r < fours)
        for (; i + 4 <= end; i += 4) transpose(rows + r * stride + i, stride, panel + i * R + r, R, change);
      for (; i < end; i++)
        for (int64_t j = r; j < (r < fours ? r + 4 : r + 1); j++) panel[i * R + j] = change(rows[j * stride + i]);
    }
  }
}

/** Transposes columns back to rows: `rows[i·rowStride + d] = columns[d·stride + i]` for i below `count`, d below `dims`. */
inline void unpack(const float *columns, int64_t stride, int64_t dims, int64_t count, float *rows, int64_t rowStride) {
  const int64_t fours = dims / 4 * 4, most = count / 4 * 4;
  for (int64_t i = 0; i < most; i += 4)
    for (int64_t d = 0; d < fours; d += 4) transpose(columns + d * stride + i, stride, rows + i * rowStride + d, rowStride);
  for (int64_t i = 0; i < count; i++)
    for (int64_t d = i < most ? fours : 0; d < dims; d++) rows[i * rowStride + d] = columns[d * stride + i];
}
