// Float32 matrix products: operands are packed into panels, tiles of the result are accumulated in registers.
#include "gemm/matmul.h"
#include "gemm/microkernel.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"
#include <algorithm>
#include <cstring>
#include <memory>

namespace {
constexpr int64_t R = tileRows, tileWidth = tileVecs * W, rowsPerGroup = 10 * R;
constexpr int64_t panelK = 256; // entries of the summed axis: a panel of b stays in the L1 cache while the panels of a stream by

/** `panel[p·N + r] = m(i + r, k + p)` for p below d, zero-padded beyond the last row. */
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

/** Stores (or adds, if `add`) the first `rows` x `columns` entries of a tile, without the first `skip` columns. */
inline void storeTile(const Vec (&sums)[tileRows][tileVecs], float *c, int64_t stride, bool add, int64_t rows, int64_t columns, int64_t skip = 0) {
  float edge[tileRows][tileWidth];
  const bool isWhole = columns == tileWidth && skip == 0;
  if (!isWhole) std::memcpy(edge, sums, sizeof sums);
  for (int64_t r = 0; r < rows; r++, c += stride) {
    if (isWhole)
      for (int v = 0; v < tileVecs; v++) store(c + v * W, add ? load(c + v * W) + sums[r][v] : sums[r][v]);
    else
      for (int64_t j = skip; j < columns; j++) c[j] = add ? c[j] + edge[r][j] : edge[r][j];
  }
}

void tile(int64_t d, const float *a, const float *b, float *c, int64_t stride, bool add, int64_t rows, int64_t columns) {
  Vec sums[tileRows][tileVecs] = {};
  ::multiply<tileRows, tileVecs>(d, a, b, tileWidth, sums);
  storeTile(sums, c, stride, add, rows, columns);
}

// --- Both matrices are read without packing where the rows of b are contiguous and packing a costs more than it gains: a is transposed, so that
// the entries of a tile's rows are neighbours, or b is narrow, so that each entry of a is read once or twice.

constexpr int64_t panelInPlace = 128;        // entries of the summed axis, of which each is in cache lines of its own
constexpr int64_t narrow = 3 * tileWidth;    // columns

/** False also for power-of-two strides, which would map all rows to the same cache sets. */
bool canReadInPlace(const Matrix &a, const Matrix &b) {
  if (b.right != 1 || b.columns < tileWidth || b.columns > 1024 || b.down % 128 == 0) return false;
  return a.down == 1 ? a.right % 128 != 0 : b.columns < narrow;
}

/** `multiply` of the R rows of a from i on; rows beyond the last are copies of the last. */
inline void multiplyRowsOf(const Matrix &a, int64_t i, const Matrix &b, Vec (&sums)[tileRows][tileVecs]) {
  if (a.down == 1 && i + R <= a.rows) return ::multiply<tileRows, tileVecs>(a.columns, a.data + i, b.data, b.down, sums, a.right);
  const float *rows[tileRows];
  for (int64_t r = 0; r < R; r++) rows[r] = a.data + std::min(i + r, a.rows - 1) * a.down;
  multiplyRows(a.columns, rows, a.right, [&](int64_t p, int v) { return load(b.data + p * b.down + v * W); }, sums);
}

/** The last stripe of columns starts early enough to have full width. */
void multiplyInPlace(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  for (int64_t k = 0; k < a.columns; k += panelInPlace) {
    const int64_t d = std::min(panelInPlace, a.columns - k);
    const Matrix left = a.part(0, k, a.rows, d);
    for (int64_t j = 0; j < b.columns; j += tileWidth) {
      const int64_t first = std::min(j, b.columns - tileWidth);
      for (int64_t i = 0; i < a.rows; i += R) {
        Vec sums[tileRows][tileVecs] = {};
        multiplyRowsOf(left, i, b.part(k, first, d, tileWidth), sums);
        storeTile(sums, c + i * stride + first, stride, add || k > 0, std::min(R, a.rows - i), tileWidth, j - first);
      }
    }
  }
}

/** Packs each group of rows of a once, and b once for each group. */
void multiplyPacked(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  static thread_local std::unique_ptr<float[]> left(new float[rowsPerGroup * panelK]), right(new float[tileWidth * panelK]);
  const Matrix columns = b.transposed();
  for (int64_t k = 0; k < a.columns; k += panelK) {
    const int64_t d = std::min(panelK, a.columns - k);
    for (int64_t i = 0; i < a.rows; i += rowsPerGroup) {
      const int64_t end = std::min(i + rowsPerGroup, a.rows);
      for (int64_t r = i; r < end; r += R) packRows<R>(a, r, k, d, left.get() + (r - i) * d);
      for (int64_t j = 0; j < b.columns; j += tileWidth) {
        packRows<tileWidth>(columns, j, k, d, right.get());
        for (int64_t r = i; r < end; r += R)
          tile(d, left.get() + (r - i) * d, right.get(), c + r * stride + j, stride, add || k > 0, std::min(R, end - r),
               std::min(tileWidth, b.columns - j));
      }
    }
  }
}

// --- Large matrices: a is packed once for all threads; each thread packs the stripes of b of its own columns.

constexpr int64_t panelsPerBlock = 24 * 12 / R; // panels of a that stay in the L2 cache
constexpr int64_t maxStripePanels = 8;          // panels of b in a stripe
constexpr int64_t maxRows = 256 * R, maxPackedFloats = 1 << 20; // of a per pass: bounds the scratch buffer

bool isLarge(const Matrix &a, const Matrix &b) { return a.rows > R && b.rows >= 512 && b.columns >= 8 * tileWidth && b.rows * b.columns >= 1 << 18; }

/** a in panels: `[columns / shallow][panels][shallow][R]`. */
const float *packPanels(const Matrix &a) {
  static thread_local ScratchBuffer scratch;
  const int64_t panels = ceilDiv(a.rows, R);
  float *packed = scratch.reserve(panels * R * a.columns);
  parallel(panels, 4, [&](int64_t from, int64_t to) {
    for (int64_t k = 0; k < a.columns; k += panelK)
      for (int64_t i = from; i < to; i++) {
        const int64_t d = std::min(panelK, a.columns - k);
        packRows<R>(a, i * R, k, d, packed + k * panels * R + i * d * R);
      }
  });
  return packed;
}

/** Packs rows `[k, k + d)` of a stripe of b into panels, row by row if b is row-major: sequential reads from memory. */
void packStripe(const Matrix &b, int64_t k, int64_t d, float *panels) {
  const int64_t isWhole = b.right == 1 ? b.columns / tileWidth * tileWidth : 0;
  for (int64_t p = 0; p < d && isWhole > 0; p++) {
    const float *row = b.data + (k + p) * b.down;
    for (int64_t j = 0; j < isWhole; j += tileWidth) {
      __builtin_prefetch(row + 8 * b.down + j);
      std::memcpy(panels + j * d + p * tileWidth, row + j, tileWidth * sizeof(float));
    }
  }
  for (int64_t j = isWhole; j < b.columns; j += tileWidth) packRows<tileWidth>(b.transposed(), j, k, d, panels + j * d);
}

/** Computes all rows of one stripe of columns of c. */
void multiplyStripe(const Matrix &a, const float *packed, const Matrix &b, float *c, int64_t stride, bool add) {
  static thread_local std::unique_ptr<float[]> right(new float[maxStripePanels * tileWidth * panelK]);
  const int64_t panels = ceilDiv(a.rows, R);
  for (int64_t k = 0; k < a.columns; k += panelK) {
    const int64_t d = std::min(panelK, a.columns - k);
    packStripe(b, k, d, right.get());
    for (int64_t top = 0; top < panels; top += panelsPerBlock)
      for (int64_t j = 0; j < b.columns; j += tileWidth)
        for (int64_t i = top; i < std::min(top + panelsPerBlock, panels); i++)
          tile(d, packed + k * panels * R + i * d * R, right.get() + j * d, c + i * R * stride + j, stride, add || k > 0,
               std::min(R, a.rows - i * R), std::min(tileWidth, b.columns - j));
  }
}

void multiplyLarge(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  const int64_t stripe = tileWidth * std::clamp<int64_t>(b.columns / tileWidth / (4 * threads()), 1, maxStripePanels);
  for (int64_t i = 0; i < a.rows; i += maxRows) {
    const int64_t rows = std::min(maxRows, a.rows - i), depthPerPass = std::max<int64_t>(1, maxPackedFloats / (ceilDiv(rows, R) * R * panelK)) * panelK;
    for (int64_t k = 0; k < a.columns; k += depthPerPass) {
      const Matrix part = a.part(i, k, rows, std::min(depthPerPass, a.columns - k));
      const float *packed = packPanels(part);
      parallel(ceilDiv(b.columns, stripe), 1, [&](int64_t from, int64_t to) {
        for (int64_t j = from * stripe; j < std::min(to * stripe, b.columns); j += stripe)
          multiplyStripe(part, packed, b.part(k, j, part.columns, std::min(stripe, b.columns - j)), c + i * stride + j, stride, add || k > 0);
      });
    }
  }
}

/** Handles products without entries or without terms: c is zero, or unchanged if `add`. False for all others. */
bool multiplyEmpty(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  if (a.rows == 0 || b.columns == 0) return true;
  if (a.columns > 0) return false;
  for (int64_t i = 0; i < a.rows && !add; i++) std::fill_n(c + i * stride, b.columns, 0.0f);
  return true;
}
} // namespace

void multiply(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  if (multiplyEmpty(a, b, c, stride, add)) return;
  canReadInPlace(a, b) ? multiplyInPlace(a, b, c, stride, add) : multiplyPacked(a, b, c, stride, add);
}

void multiplyParallel(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  if (multiplyEmpty(a, b, c, stride, add)) return;
  if (isLarge(a, b)) return multiplyLarge(a, b, c, stride, add);
  const int64_t rows = std::min(rowsPerGroup, R * ceilDiv(a.rows, R)), groups = ceilDiv(a.rows, rows);
  const int64_t stripes = ceilDiv(b.columns, tileWidth), wanted = 8 * threads(); // more pieces than threads balance the load
  const int64_t columns = tileWidth * ceilDiv(stripes, std::min(stripes, ceilDiv(wanted, groups))), parts = ceilDiv(b.columns, columns);
  const bool small = a.rows * a.columns * b.columns < (1 << 18);
  parallel(groups * parts, small ? groups * parts : 1, [&](int64_t from, int64_t to) {
    for (int64_t piece = from; piece < to; piece++) {
      const int64_t i = piece / parts * rows, j = piece % parts * columns;
      multiply(a.part(i, 0, std::min(rows, a.rows - i), a.columns), b.part(0, j, b.rows, std::min(columns, b.columns - j)),
               c + i * stride + j, stride, add);
    }
  });
}
