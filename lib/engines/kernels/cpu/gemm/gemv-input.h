// The rows of x that a GEMV reads, prepared once for all weights that are multiplied with them.
#pragma once
#include "quantization/dequantize.h"
#include <memory>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_VNNI
#endif

/** Rows of x, `[M, K]`. */
struct Rows {
  int64_t M, K;
  const float *x;
};

/** A block of 64 entries of x in int8 with one scale, for integer products with blockwise weights. */
struct alignas(64) QuantizedBlock {
  int8_t q[blockSize];
#if defined(HAS_VNNI)
  /** -128 times the sum of each four entries: corrects for the weight levels, which are shifted by 128 to be unsigned. */
  int32_t offset[blockSize / 4];
#else
  /** Absolute values of q: `maddubs` takes one unsigned factor. */
  uint8_t size[blockSize];
#endif
  float scale;
};

/** Rows of x as they are and, once prepared, padded to whole blocks. */
struct GemvInput {
  explicit GemvInput(const Rows &rows) : rows(rows) {}
  /** Prepares the rows for weights in blockwise formats. */
  void prepareBlocks();

  Rows rows, blockRows{0, 0, nullptr};         // K of blockRows is a multiple of 64
  std::unique_ptr<QuantizedBlock[]> quantized; // [M][blocks]; null if this processor, or a setting, wants products in float32

 private:
  std::unique_ptr<float[]> padded;
};
