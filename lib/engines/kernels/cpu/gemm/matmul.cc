// Float32 matrix products: rows of a are read in place, columns of b are packed into panels, tiles of c are accumulated in registers.
#include "gemm/matmul.h"
#include "gemm/microkernel.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"
#include <algorithm>
#include <cstring>

namespace {
constexpr int64_t R = tileRows, rowsPerGroup = 10 * R, floatsPerLine = 16;

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

/** Memory that is prefetched while a tile is computed, a row at a time: the next tile of c, and `lines` cache lines of each of the next rows of a. */
struct Next {
  const float *c = nullptr, *a = nullptr;
  int64_t lines = 0;

  void prefetchRow(int64_t r, int64_t stride, int64_t down) const {
    __builtin_prefetch(c + r * stride, 1), __builtin_prefetch(c + r * stride + tileWidth - 1, 1);
    for (int64_t line = 0; line < lines; line++) __builtin_prefetch(a + r * down + line * floatsPerLine);
  }
};

/** Sums of N rows and V vectors of columns. Rows beyond the last row of a are copies of the last. */
template <int N, int V> inline void multiplyTile(const Matrix &a, const float *b, int64_t stride, const Next &next, Vec (&sums)[N][V]) {
  if (a.rows < N) {
    const float *rows[N];
    for (int64_t r = 0; r < N; r++) rows[r] = a.data + std::min(r, a.rows - 1) * a.down;
    return multiplyRows(a.columns, rows, a.right, [&](int64_t p, int v) { return load(b + p * tileWidth + v * W); }, sums);
  }
  const int64_t part = next.c ? a.columns / N : 0; // a burst of prefetches would stall the core
  for (int64_t r = 0, p = 0; r <= N; r++, p += part) {
    const int64_t d = r < N ? part : a.columns - p;
    if (next.c && r < N) next.prefetchRow(r, stride, a.down);
    if (a.down == 1) ::multiply<N, V>(d, a.data + p * a.right, b + p * tileWidth, tileWidth, sums, a.right);
    else multiplyRowMajor<N, V>(d, a.data + p, a.down, b + p * tileWidth, tileWidth, sums);
  }
}

/** Rows of a times the first `columns` columns of a panel of b. */
template <int N, int V> void tileOf(const Matrix &a, const float *b, float *c, int64_t stride, bool add, int64_t columns, const Next &next) {
  Vec sums[N][V] = {};
  multiplyTile(a, b, stride, next, sums);
  for (int64_t r = 0; r < std::min<int64_t>(N, a.rows); r++, c += stride)
    for (int v = 0; v < V; v++) {
      const int64_t n = columns - v * W;
      float *to = c + v * W;
      if (n >= W) store(to, add ? load(to) + sums[r][v] : sums[r][v]);
      else if (n > 0) storeSome(to, add ? loadSome(to, n) + sums[r][v] : sums[r][v], n);
    }
}

/** `tileOf` for at most R rows: half a tile, or half its columns, where that is enough. */
void tile(const Matrix &a, const float *b, float *c, int64_t stride, bool add, int64_t columns, const Next &next = {}) {
  const bool fewRows = a.rows <= R / 2;
  if (columns <= W) return fewRows ? tileOf<R / 2, 1>(a, b, c, stride, add, columns, next) : tileOf<R, 1>(a, b, c, stride, add, columns, next);
  fewRows ? tileOf<R / 2, tileVecs>(a, b, c, stride, add, columns, next) : tileOf<R, tileVecs>(a, b, c, stride, add, columns, next);
}

/** Packs each stripe of columns of b once for all rows of a. */
void multiplyStripes(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  static thread_local ScratchBuffer scratch;
  float *panel = scratch.reserve(tileWidth * panelK);
  const Matrix columns = b.transposed();
  for (int64_t k = 0; k < b.rows; k += panelK) {
    const int64_t d = std::min(panelK, b.rows - k);
    for (int64_t j = 0; j < b.columns; j += tileWidth) {
      packRows<tileWidth>(columns, j, k, d, panel);
      for (int64_t i = 0; i < a.rows; i += R)
        tile(a.part(i, k, std::min(R, a.rows - i), d), panel, c + i * stride + j, stride, add || k > 0, std::min(tileWidth, b.columns - j));
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
  static thread_local ScratchBuffer scratch;
  float *right = scratch.reserve(maxStripePanels * tileWidth * panelK);
  const int64_t panels = ceilDiv(a.rows, R);
  for (int64_t k = 0; k < a.columns; k += panelK) {
    const int64_t d = std::min(panelK, a.columns - k);
    packStripe(b, k, d, right);
    for (int64_t top = 0; top < panels; top += panelsPerBlock)
      for (int64_t j = 0; j < b.columns; j += tileWidth)
        for (int64_t i = top; i < std::min(top + panelsPerBlock, panels); i++)
          tile({packed + k * panels * R + i * d * R, std::min(R, a.rows - i * R), d, 1, R}, right + j * d, c + i * R * stride + j, stride, add || k > 0,
               std::min(tileWidth, b.columns - j));
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

bool isSmall(const Matrix &a, const Matrix &b) { return b.rows * b.columns <= maxSmallMatrix && a.right == 1 && a.rows >= 8 * R; }

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
  multiplyStripes(a, b, c, stride, add);
}

// The right matrices are packed once for all threads and stay in the L2 cache while the rows of a stream by.
void multiplySmall(const Matrix &a, const std::vector<SmallProduct> &products, bool add, const std::function<void(int64_t, int64_t)> &done) {
  struct Stripe {
    const SmallProduct &product;
    int64_t j;
    float *tileOf(int64_t i) const { return product.c + i * product.stride + j; }
  };
  std::vector<Stripe> stripes;
  for (const SmallProduct &product : products)
    for (int64_t j = 0; j < product.columns; j += tileWidth) stripes.push_back({product, j});
  static thread_local ScratchBuffer scratch;
  const int64_t K = a.columns, count = stripes.size();
  float *panels = scratch.reserve(count * K * tileWidth); // [stripes][K][tileWidth]
  parallel(count, 1, [&](int64_t from, int64_t to) {
    for (int64_t s = from; s < to; s++)
      for (int64_t k = 0; k < K; k += panelK) stripes[s].product.pack(k, std::min(panelK, K - k), stripes[s].j, panels + (s * K + k) * tileWidth);
  });
  const int64_t groups = ceilDiv(a.rows, R);
  parallel(groups, std::clamp<int64_t>(groups / (8 * threads()), 1, 4), [&](int64_t from, int64_t to) {
    for (int64_t i = from * R; i < std::min(to * R, a.rows); i += R) {
      const int64_t rows = std::min(R, a.rows - i);
      for (int64_t k = 0; k < K; k += panelK) {
        const int64_t d = std::min(panelK, K - k), lines = ceilDiv(ceilDiv(d, floatsPerLine), count);
        for (int64_t s = 0; s < count; s++) {
          const auto &[product, j] = stripes[s];
          const bool isLast = s + 1 == count;
          Next next;
          if (i + 2 * R <= a.rows) next = {isLast ? stripes[0].tileOf(i + R) : stripes[s + 1].tileOf(i), a.data + (i + R) * a.down + k + s * lines * floatsPerLine, lines};
          tile(a.part(i, k, rows, d), panels + (s * K + k) * tileWidth, stripes[s].tileOf(i), product.stride, add || k > 0, std::min(tileWidth, product.columns - j), next);
        }
      }
      if (done) done(i, i + rows);
    }
  });
}

void multiplyParallel(const Matrix &a, const Matrix &b, float *c, int64_t stride, bool add) {
  if (multiplyEmpty(a, b, c, stride, add)) return;
  if (isLarge(a, b)) return multiplyLarge(a, b, c, stride, add);
  if (isSmall(a, b)) {
    const Matrix columns = b.transposed();
    const auto pack = [&](int64_t k, int64_t d, int64_t j, float *panel) { packRows<tileWidth>(columns, j, k, d, panel); };
    return multiplySmall(a, {{b.columns, pack, c, stride}}, add);
  }
  const int64_t groups = ceilDiv(a.rows, rowsPerGroup), rows = R * ceilDiv(ceilDiv(a.rows, R), groups);
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
