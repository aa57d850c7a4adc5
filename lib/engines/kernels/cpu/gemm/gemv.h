// GEMV: a few rows of x times a weight in any quantization format, in one pass over the weight.
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

/** `x weightᵀ`. The constructor pads and quantizes x once for all weight rows. */
class Gemv {
 public:
  Gemv(Format format, const Rows &x, const float *weight);
  /** `y[m · width + n] = x[m] · weight[n]` for n from `from` to `to`. */
  void multiply(int64_t from, int64_t to, float *y, int64_t width) const;

 private:
  template <int R> void dotRow(int64_t m, int64_t n, float *y, int64_t width) const;
  template <Format format, int R> void dotBlockRow(int64_t m, const uint8_t *w, float *y, int64_t width) const;
  const float *row(int64_t n) const { return weight + n * stride; }

  Format format;
  Rows x; // K is padded to whole blocks for blockwise formats
  const float *weight;
  int64_t stride;
  std::unique_ptr<float[]> padded;
  std::unique_ptr<QuantizedBlock[]> quantized; // [M][blocks]
};
