// Quantization formats of a weight: the layout of a row in memory. lib/quantization/formats.ts defines the same layout in TypeScript.
//
// A row of K weights is a sequence of 32-bit words, zero-padded at its end.
// - bfloat16: two weights per word, the first one in the low half.
// - int8, int6, int4: blocks of 64 weights. A block starts with one word: the bfloat16 scales of its two groups of 32, the first one in the
//   low half. Then:
//   - int8: 64 bytes, the levels in order.
//   - int4: 32 bytes; the low four bits are the codes of the first group, the high four bits those of the second. A code is an index of
//     `codebook`.
//   - int6: levels + 32. 32 bytes with the low four bits of all, laid out as in int4, then 16 bytes; byte i holds the upper two bits of
//     weights i, i + 16, i + 32 and i + 48.
#pragma once
#include <cstdint>
#include "operator/kernel-enums.h"

constexpr int64_t blockSize = 64, groupSize = 32; // weights

constexpr bool isBlockwise(Format format) { return format == Format::int8 || format == Format::int6 || format == Format::int4; }
constexpr int64_t blockBytes(Format format) {
  return 4 + (format == Format::int8 ? blockSize : format == Format::int6 ? blockSize * 3 / 4 : blockSize / 2);
}

/** Levels of int4: least squared error for Gaussian weights in groups of 32, each with its best scale (7.3 %). */
alignas(16) constexpr int8_t codebook[16] = {-127, -100, -80, -63, -48, -34, -21, -9, 2, 14, 25, 37, 50, 65, 84, 109};

/** Number of blocks of a row of K weights. */
constexpr int64_t blockCount(int64_t K) { return (K + blockSize - 1) / blockSize; }

/** Number of 32-bit words of a row of K weights. */
constexpr int64_t packedColumns(Format format, int64_t K) {
  return format == Format::float32 ? K : format == Format::bfloat16 ? (K + 1) / 2 : blockCount(K) * (blockBytes(format) / 4);
}
