// Products of matrices as they lie in memory: blocks are packed, tiles of the result are held in registers.
#include "product.h"
#include "gemm.h"
#include "pool.h"
#include <cstring>
#include <memory>

namespace {
constexpr int64_t R = tileRows, width = tileVecs * W, depth = 384;
constexpr int64_t groupRows = 10 * R;

/** `panel[p·N + r] = m(i + r, k + p)` for p below d, zeros beyond the last row. */
template <int N> void packRows(const Matrix &m, int64_t i, int64_t k, int64_t d, float *panel) {
  const int64_t present = std::min<int64_t>(N, m.rows - i);
  if (m.right == 1) return pack<N>(panel, m.data + i * m.down + k, m.down, present, d);
  const float *from = m.data + i + k * m.right;
  for (int64_t p = 0; p < d; p++, from += m.right, panel += N) {
    if (present == N) {
      std::memcpy(panel, from, N * sizeof(float));
      continue;
    }
    for (int64_t r = 0; r < N; r++) panel[r] = r < present ? from[r] : 0;
  }
}

/** Writes the sums of a tile's first rows and columns, but for `skip` columns; or adds them. */
inline void put(const Vec (&sums)[tileRows][tileVecs], float *c, int64_t stride, bool add, int64_t rows, int64_t columns, int64_t skip = 0) {
  float edge[tileRows][width];
  const bool whole = columns == width && skip == 0;
  if (!whole) std::memcpy(edge, sums, sizeof sums);
  for (int64_t r = 0; r < rows; r++, c += stride) {
    if (whole)
      for (int v = 0; v < tileVecs; v++) store(c + v * W, add ? load(c + v * W) + sums[r][v] : sums[r][v]);
    else
      for (int64_t j = skip; j < columns; j++) c[j] = add ? c[j] + edge[r][j] : edge[r][j];
  }
}

void tile(int64_t d, const float *a, const float *b, float *c, int64_t stride, bool add, int64_t rows, int64_t columns) {
  Vec sums[tileRows][tileVecs] = {};
  ::multiply<tileRows, tileVecs>(d, a, b, width, sums);
  put(sums, c, stride, add, rows, columns);
}

// --- What lies as a tile reads it, and stays in the second cache, is read where it lies.

constexpr int64_t shallow = 256; // of the summed axis: a stripe of b stays in the first cache while panels of a pass by

/** Rows of b a power of two apart would all want one place of the cache. */
bool readsInPlace(const Matrix &b) { return b.right == 1 && b.columns >= width && b.columns <= 1024 && b.down % 128 != 0; }

/** The last stripe of columns begins early enough to be whole. */
void productInPlace(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  for (int64_t k = 0; k < a.columns; k += shallow) {
    const int64_t d = std::min(shallow, a.columns - k);
    const Matrix left = a.part(0, k, a.rows, d);
    for (int64_t j = 0; j < b.columns; j += width) {
      const int64_t first = std::min(j, b.columns - width);
      for (int64_t i = 0; i < a.rows; i += R) {
        const float *rows[tileRows]; // beyond the last, the last once more
        for (int64_t r = 0; r < R; r++) rows[r] = left.data + std::min(i + r, left.rows - 1) * left.down;
        Vec sums[tileRows][tileVecs] = {};
        multiplyRows<tileRows, tileVecs>(d, rows, left.right, b.data + k * b.down + first, b.down, sums);
        put(sums, c + i * stride + first, stride, add || k > 0, std::min(R, a.rows - i), width, j - first);
      }
    }
  }
}

/** Rows of a in groups: each is packed once, and b again for each. */
void product(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  static thread_local std::unique_ptr<float[]> left(new float[groupRows * depth]), right(new float[width * depth]);
  const Matrix columns = b.transposed();
  for (int64_t k = 0; k < a.columns; k += depth) {
    const int64_t d = std::min(depth, a.columns - k);
    for (int64_t i = 0; i < a.rows; i += groupRows) {
      const int64_t end = std::min(i + groupRows, a.rows);
      for (int64_t r = i; r < end; r += R) packRows<R>(a, r, k, d, left.get() + (r - i) * d);
      for (int64_t j = 0; j < b.columns; j += width) {
        packRows<width>(columns, j, k, d, right.get());
        for (int64_t r = i; r < end; r += R)
          tile(d, left.get() + (r - i) * d, right.get(), c + r * stride + j, stride, add || k > 0, std::min(R, end - r),
               std::min(width, b.columns - j));
      }
    }
  }
}

int64_t upTo(int64_t n, int64_t pieces) { return (n + pieces - 1) / pieces; }
} // namespace

void multiply(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  readsInPlace(b) ? productInPlace(a, b, c, stride, add) : product(a, b, c, stride, add);
}

void multiplyOnAll(const Matrix &a, const Matrix &b, float *c, int64_t stride) {
  const int64_t rows = std::min(groupRows, R * upTo(a.rows, R)), groups = upTo(a.rows, rows);
  const int64_t stripes = upTo(b.columns, width), wanted = 8 * threads(); // pieces, so that no thread waits long for the last
  const int64_t columns = width * upTo(stripes, std::min(stripes, upTo(wanted, groups))), parts = upTo(b.columns, columns);
  const bool small = a.rows * a.columns * b.columns < (1 << 18);
  parallel(groups * parts, small ? groups * parts : 1, [&](int64_t from, int64_t to) {
    for (int64_t unit = from; unit < to; unit++) {
      const int64_t i = unit / parts * rows, j = unit % parts * columns;
      multiply(a.part(i, 0, std::min(rows, a.rows - i), a.columns), b.part(0, j, b.rows, std::min(columns, b.columns - j)),
               c + i * stride + j, stride, false);
    }
  });
}
