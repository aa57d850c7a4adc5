#include "gemm/gemm.h"
#include "gemm/epilogue.h"
#include "gemm/gemm-kind.h"
#include "gemm/tiles/int16-tiles.h"
#include "gemm/tiles/int8-tiles.h"
#include "runtime/scratch-buffer.h"
#include "runtime/thread-pool.h"

namespace {
// --- Large weights: x is packed once; each thread packs the weight panels of its own columns.

constexpr int64_t maxStripeTiles = 4;     // tiles of columns of y per task
constexpr int64_t rowsPerBlock = 12 * 12; // rows of x whose panels stay in the L2 cache

/** Columns of y per task: the widest stripe for which the busiest thread has the fewest columns. */
int64_t stripeColumns(int64_t N) {
  const int64_t tiles = ceilDiv(N, tileWidth);
  int64_t best = 1, least = ceilDiv(tiles, threads());
  for (int64_t stripe = 2; stripe <= maxStripeTiles; stripe++) {
    const int64_t busiest = ceilDiv(ceilDiv(tiles, stripe), threads()) * stripe;
    if (busiest <= least) best = stripe, least = busiest;
  }
  return best * tileWidth;
}

/** Calls `make(y, stride, first)` for a tile of R rows of y. At an edge of y the tile goes through a buffer of full size. */
template <int64_t R, class F> void writeTile(float *y, int64_t stride, bool first, int64_t rows, int64_t columns, F make) {
  if (rows == R && columns == tileWidth) return make(y, stride, first);
  alignas(64) float tile[R * tileWidth];
  make(tile, tileWidth, true);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < columns; j++) y[r * stride + j] = first ? tile[r * tileWidth + j] : y[r * stride + j] + tile[r * tileWidth + j];
}

/** Packs x into panels, `[K / entries][panels][R · panelDepth]`. */
template <class Tiles> const float *packInput(const Rows &x) {
  constexpr int64_t R = Tiles::R, entries = Tiles::entries, size = R * Tiles::panelDepth;
  static thread_local ScratchBuffer scratch;
  const int64_t panels = ceilDiv(x.M, R);
  float *packed = scratch.reserve(ceilDiv(x.K, entries) * panels * size);
  parallel(panels, std::max<int64_t>(1, 24 / R), [&](int64_t from, int64_t to) {
    for (int64_t k = 0; k < x.K; k += entries)
      for (int64_t i = from; i < to; i++)
        Tiles::packRows(packed + (k / entries * panels + i) * size, x.x + i * R * x.K + k, x.K, std::min(R, x.M - i * R), std::min(entries, x.K - k));
  });
  return packed;
}

template <class Tiles> void gemmTiled(const Projection &p, const Rows &x, const float *&packed) {
  constexpr int64_t R = Tiles::R, entries = Tiles::entries, size = R * Tiles::panelDepth, panelsPerBlock = rowsPerBlock / R;
  if (!packed) packed = packInput<Tiles>(x);
  const int64_t panels = ceilDiv(x.M, R), stripe = stripeColumns(p.N);
  parallel(ceilDiv(p.N, stripe), 1, [&](int64_t from, int64_t to) {
    static thread_local ScratchBuffer scratch;
    float *weightPanels = scratch.reserve(maxStripeTiles * tileWidth * Tiles::panelDepth);
    [[maybe_unused]] const typename Tiles::TileConfig config;
    for (int64_t n = from * stripe; n < std::min(to * stripe, p.N); n += stripe) {
      const int64_t end = std::min(n + stripe, p.N);
      for (int64_t k = 0; k < x.K; k += entries) {
        const int64_t d = std::min(entries, x.K - k);
        for (int64_t j = n; j < end; j += tileWidth) Tiles::packWeight(weightPanels + (j - n) * Tiles::panelDepth, p, j, std::min(tileWidth, end - j), k, d);
        for (int64_t top = 0; top < panels; top += panelsPerBlock) {
          const int64_t bottom = std::min(top + panelsPerBlock, panels);
          for (int64_t j = n; j < end; j += tileWidth)
            for (int64_t i = top; i < bottom; i++)
              writeTile<R>(p.y + i * R * p.N + j, p.N, k == 0, std::min(R, x.M - i * R), std::min(tileWidth, end - j), [&](float *y, int64_t stride, bool first) {
                Tiles::tile(d, packed + (k / entries * panels + i) * size, weightPanels + (j - n) * Tiles::panelDepth, y, stride, first);
              });
          if (k + d == x.K)
            for (int64_t m = top * R; m < std::min(bottom * R, x.M); m++) epilogue(p, m, n, end);
        }
      }
    }
  });
}

} // namespace

void gemmSmall(const std::vector<Projection> &projections, const Rows &x) {
  std::vector<SmallProduct> products;
  for (const Projection &p : projections)
    products.push_back({p.N, [&p](int64_t k, int64_t d, int64_t j, float *panel) { Float32Tiles::packWeight(panel, p, j, std::min(tileWidth, p.N - j), k, d); },
                        p.y, p.N});
  multiplySmall(rowMajor(x.x, x.M, x.K, x.K), products, false, [&](int64_t from, int64_t to) {
    for (const Projection &p : projections)
      for (int64_t m = from; m < to; m++) epilogue(p, m, 0, p.N);
  });
}

void gemm(const Projection &p, const Rows &x, PackedInput &packed) {
  switch (gemmKind(p.format)) {
    case GemmKind::int16: return gemmTiled<Int16Tiles>(p, x, packed.int16);
    case GemmKind::int8: return gemmTiled<Int8Tiles>(p, x, packed.int8);
    case GemmKind::bfloat16: return gemmTiled<Bfloat16Tiles>(p, x, packed.bfloat16);
#if defined(HAS_AMX)
    case GemmKind::amxBfloat16: return gemmTiled<AmxBfloat16Tiles>(p, x, packed.amxBfloat16);
#endif
    default: gemmTiled<Float32Tiles>(p, x, packed.float32);
  }
}
