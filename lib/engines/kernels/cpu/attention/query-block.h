// A block of queries whose attention is computed together. Vector lanes are queries.
#pragma once
#include <memory>
#include "attention/attention.h"
#include "gemm/microkernel.h"

constexpr int64_t R = wideRows, blockQueries = wideVecs * W, blockKeys = 128; // R keys, or dimensions of values, are a panel

inline int64_t roundUp(int64_t n, int64_t to) { return ceilDiv(n, to) * to; }

/** Stores and loads a tile vector by vector: a tile copied with memcpy does not stay in registers. */
template <int rows, int vecs> inline void storeTile(float *to, const Vec (&c)[rows][vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++) store(to + (r * vecs + v) * W, c[r][v]);
}
template <int rows, int vecs> inline void loadTile(const float *from, Vec (&c)[rows][vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++) c[r][v] = load(from + (r * vecs + v) * W);
}

struct Block {
  std::unique_ptr<float[]> q, scores, out; // [K][queries] in float32 or in words of four bytes, [keys][queries], [K][queries]
  Vec maximum[wideVecs], total[wideVecs], firstKey[wideVecs], position[wideVecs];
};
