// Products of matrices as they lie in memory: blocks are packed, tiles of the result are held in registers.
#include "product.h"
#include "gemm.h"
#include "kept.h"
#include "pool.h"
#include <algorithm>
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

// --- Large matrices: a is packed once for all threads, a stripe of b by the one that makes those columns.

constexpr int64_t block = 24 * 12 / R; // panels of a that stay in the second cache
constexpr int64_t widest = 8;          // panels of b in a stripe
constexpr int64_t mostRows = 256 * R, mostPacked = 1 << 20; // of a at a time: bounds what is kept of it

bool isLarge(const Matrix &a, const Matrix &b) { return a.rows > R && b.rows >= 512 && b.columns >= 8 * width && b.rows * b.columns >= 1 << 18; }

/** a in panels: `[columns / shallow][panels][shallow][R]`. */
const float *packedPanels(const Matrix &a) {
  static thread_local Kept kept;
  const int64_t panels = upTo(a.rows, R);
  float *packed = kept.of(panels * R * a.columns);
  parallel(panels, 4, [&](int64_t from, int64_t to) {
    for (int64_t k = 0; k < a.columns; k += shallow)
      for (int64_t i = from; i < to; i++) {
        const int64_t d = std::min(shallow, a.columns - k);
        packRows<R>(a, i * R, k, d, packed + k * panels * R + i * d * R);
      }
  });
  return packed;
}

/** Rows `[k, k + d)` of a stripe in panels; row by row where they lie so, for they come from memory. */
void packStripe(const Matrix &b, int64_t k, int64_t d, float *panels) {
  const int64_t whole = b.right == 1 ? b.columns / width * width : 0;
  for (int64_t p = 0; p < d && whole > 0; p++) {
    const float *row = b.data + (k + p) * b.down;
    for (int64_t j = 0; j < whole; j += width) {
      __builtin_prefetch(row + 8 * b.down + j);
      std::memcpy(panels + j * d + p * width, row + j, width * sizeof(float));
    }
  }
  for (int64_t j = whole; j < b.columns; j += width) packRows<width>(b.transposed(), j, k, d, panels + j * d);
}

/** All rows of a few columns of c. */
void stripeOfProduct(const Matrix &a, const float *packed, const Matrix &b, float *c, int64_t stride, bool add) {
  static thread_local std::unique_ptr<float[]> right(new float[widest * width * shallow]);
  const int64_t panels = upTo(a.rows, R);
  for (int64_t k = 0; k < a.columns; k += shallow) {
    const int64_t d = std::min(shallow, a.columns - k);
    packStripe(b, k, d, right.get());
    for (int64_t top = 0; top < panels; top += block)
      for (int64_t j = 0; j < b.columns; j += width)
        for (int64_t i = top; i < std::min(top + block, panels); i++)
          tile(d, packed + k * panels * R + i * d * R, right.get() + j * d, c + i * R * stride + j, stride, add || k > 0,
               std::min(R, a.rows - i * R), std::min(width, b.columns - j));
  }
}

void largeProduct(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  const int64_t stripe = width * std::clamp<int64_t>(b.columns / width / (4 * threads()), 1, widest);
  for (int64_t i = 0; i < a.rows; i += mostRows) {
    const int64_t rows = std::min(mostRows, a.rows - i), most = std::max<int64_t>(1, mostPacked / (upTo(rows, R) * R * shallow)) * shallow;
    for (int64_t k = 0; k < a.columns; k += most) {
      const Matrix part = a.part(i, k, rows, std::min(most, a.columns - k));
      const float *packed = packedPanels(part);
      parallel(upTo(b.columns, stripe), 1, [&](int64_t from, int64_t to) {
        for (int64_t j = from * stripe; j < std::min(to * stripe, b.columns); j += stripe)
          stripeOfProduct(part, packed, b.part(k, j, part.columns, std::min(stripe, b.columns - j)), c + i * stride + j, stride, add || k > 0);
      });
    }
  }
}
} // namespace

void multiply(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  readsInPlace(b) ? productInPlace(a, b, c, stride, add) : product(a, b, c, stride, add);
}

void multiplyOnAll(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  if (isLarge(a, b)) return largeProduct(a, b, c, stride, add);
  const int64_t rows = std::min(groupRows, R * upTo(a.rows, R)), groups = upTo(a.rows, rows);
  const int64_t stripes = upTo(b.columns, width), wanted = 8 * threads(); // pieces, so that no thread waits long for the last
  const int64_t columns = width * upTo(stripes, std::min(stripes, upTo(wanted, groups))), parts = upTo(b.columns, columns);
  const bool small = a.rows * a.columns * b.columns < (1 << 18);
  parallel(groups * parts, small ? groups * parts : 1, [&](int64_t from, int64_t to) {
    for (int64_t unit = from; unit < to; unit++) {
      const int64_t i = unit / parts * rows, j = unit % parts * columns;
      multiply(a.part(i, 0, std::min(rows, a.rows - i), a.columns), b.part(0, j, b.rows, std::min(columns, b.columns - j)),
               c + i * stride + j, stride, add);
    }
  });
}
