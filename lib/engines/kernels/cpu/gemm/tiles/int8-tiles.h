// Tile kind of the GEMM in int8 with int32 sums, for weights in int8, int6 and int4.
#pragma once
#include "gemm/tiles/tile-kinds.h"
#include "quantization/quantize-group.h"
#include "runtime/int8-dot.h"

#if defined(HAS_INT8_DOT)
constexpr bool hasInt8 = true;

/**
 * Rows of x are quantized to int8 in groups of 32, as the weights are, with a scale and a middle each: x ≈ middle + scale · q. The products of
 * a group are summed in int32. A step is four neighbours of a row in 32 bits. A panel of x has, for each group, `[steps][R]` of q + dotShift, R
 * scales, and R middles less dotShift scales. A weight panel has, for each group, `[steps][tileWidth]`, tileWidth scales, and tileWidth sums of
 * the group's weights, by which the middles are multiplied.
 */
struct Int8Tiles {
  static constexpr int64_t R = 6, steps = groupSize / 4; // with AVX-512 the sums of a group and their totals take 24 of 32 registers
  static constexpr int64_t entries = 2 * panelK; // a weight panel is 20 KB with AVX-512
  static constexpr int64_t rowDepth = steps + 2, columnDepth = steps + 2, panelDepth = entries / groupSize * columnDepth;
  struct TileConfig {};

  static void packRows(float *panel, const float *x, int64_t stride, int64_t present, int64_t d) {
    alignas(64) float rows[R][entries / 4];
    const int64_t groups = ceilDiv(d, groupSize);
    for (int64_t r = 0; r < present; r++)
      for (int64_t g = 0; g < groups; g++) {
        int8_t *to = reinterpret_cast<int8_t *>(rows[r] + g * steps);
        const QuantizedGroup group = quantizeGroup(x + r * stride + g * groupSize, std::min(groupSize, d - g * groupSize), to);
        float *scales = panel + (g * rowDepth + steps) * R;
        scales[r] = group.scale, scales[R + r] = group.middle - dotShift * group.scale;
        for (int64_t i = 0; i < groupSize && dotShift; i++) to[i] = static_cast<int8_t>(to[i] ^ 0x80); // + 128
      }
    for (int64_t g = 0; g < groups; g++) {
      pack<R>(panel + g * rowDepth * R, rows[0] + g * steps, entries / 4, present, steps);
      for (int64_t row = steps; row < rowDepth; row++) std::fill_n(panel + (g * rowDepth + row) * R + present, R - present, 0.0f);
    }
  }

  static void packWeight(float *panel, const Projection &projection, int64_t n, int64_t present, int64_t k, int64_t d) {
    static thread_local std::unique_ptr<float[]> rows(new float[tileWidth * entries / 4]);
    const int64_t groups = ceilDiv(d, groupSize);
    for (int64_t g = 0; g < groups; g++) std::fill_n(panel + (g * columnDepth + steps) * tileWidth + present, tileWidth - present, 0.0f);
    for (int64_t r = 0; r < present; r++) {
      const Format format = projection.format;
      const uint8_t *blocks = reinterpret_cast<const uint8_t *>(projection.row(n + r)) + k / blockSize * blockBytes(format);
      int8_t *row = reinterpret_cast<int8_t *>(rows.get() + r * (entries / 4));
      float *scales = panel + steps * tileWidth + r;
      if (format == Format::int8) readBlocks<Format::int8>(blocks, groups, row, scales);
      else if (format == Format::int6) readBlocks<Format::int6>(blocks, groups, row, scales);
      else readBlocks<Format::int4>(blocks, groups, row, scales);
    }
    for (int64_t g = 0; g < groups; g++, panel += columnDepth * tileWidth) {
      pack<tileWidth>(panel, rows.get() + g * steps, entries / 4, present, steps);
      writeSums(panel);
    }
  }

  static void tile(int64_t d, const float *a, const float *b, float *y, int64_t stride, bool first) {
    prefetchTile<R>(y, stride);
    // The int32 sums of a group start at the bits of 1.5 · 2²³. Read as a float, such a sum is 1.5 · 2²³ + the sum: no conversion is needed.
    constexpr float sumsStart = 12582912;
    const IVec start = reinterpret_cast<IVec>(keepInRegister(splat(sumsStart)));
    Vec sums[R][tileVecs] = {};
    for (int64_t g = 0; g < ceilDiv(d, groupSize); g++, a += rowDepth * R, b += columnDepth * tileWidth) {
      const float *xScales = a + steps * R, *middles = xScales + R, *scales = b + steps * tileWidth, *weightSums = scales + tileWidth;
      IVec dots[R][tileVecs];
      for (auto &row : dots) std::fill_n(row, tileVecs, start);
#pragma GCC unroll 8
      for (int64_t t = 0; t < steps; t++) {
        IVec columns[tileVecs];
#pragma GCC unroll 4
        for (int v = 0; v < tileVecs; v++) columns[v] = reinterpret_cast<IVec>(keepInRegister(load(b + t * tileWidth + v * W)));
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          const IVec row = reinterpret_cast<IVec>(keepInRegister(splat(a[t * R + r])));
#pragma GCC unroll 4
          for (int v = 0; v < tileVecs; v++) dots[r][v] = dotInt8(dots[r][v], row, columns[v]);
        }
      }
      Vec columnScales[tileVecs], columnSums[tileVecs], offsets[tileVecs];
#pragma GCC unroll 4
      for (int v = 0; v < tileVecs; v++) {
        columnScales[v] = keepInRegister(load(scales + v * W)), columnSums[v] = keepInRegister(load(weightSums + v * W));
        offsets[v] = keepInRegister(columnScales[v] * -sumsStart); // exact for scales in bfloat16
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const Vec xScale = keepInRegister(splat(xScales[r])), middle = keepInRegister(splat(middles[r]));
#pragma GCC unroll 4
        for (int v = 0; v < tileVecs; v++)
          sums[r][v] += (reinterpret_cast<Vec>(dots[r][v]) * columnScales[v] + offsets[v]) * xScale + columnSums[v] * middle;
      }
    }
    storeTile<R>(sums, y, stride, first);
  }

 private:
  static IVec loadInts(const float *p) { return reinterpret_cast<IVec>(load(p)); }

  /** Writes the levels of a weight row in order, and the scales of its groups to the panels of the groups. */
  template <Format format> static void readBlocks(const uint8_t *blocks, int64_t groups, int8_t *to, float *scales) {
    for (int64_t g = 0; g < groups; g += 2, blocks += blockBytes(format), to += blockSize, scales += 2 * columnDepth * tileWidth) {
      const int8_t *q = levels<format>(blocks + 4, to);
      if (q != to) std::memcpy(to, q, blockSize);
      const GroupScales both(blocks);
      scales[0] = both.low;
      if (g + 1 < groups) scales[columnDepth * tileWidth] = both.high;
    }
  }

  /** Writes the sums of the weights of a packed group. */
  static void writeSums(float *panel) {
    for (int v = 0; v < tileVecs; v++) {
      IVec sums{};
      for (int64_t t = 0; t < steps; t++) sums = dotInt8(sums, IVec{} + 0x01010101, loadInts(panel + t * tileWidth + v * W));
      const float *scales = panel + steps * tileWidth + v * W;
      store(panel + (steps + 1) * tileWidth + v * W, __builtin_convertvector(sums, Vec) * load(scales));
    }
  }
};
#else
constexpr bool hasInt8 = false;
using Int8Tiles = Float32Tiles;
#endif
