// GEMV: a few rows of x times a weight in any quantization format, in one pass over the weight.
#pragma once
#include "gemm/gemv-input.h"

/** `x weightᵀ`. The blocks of the input are prepared if the format is blockwise. */
class Gemv {
 public:
  Gemv(Format format, const GemvInput &input, const float *weight);
  /** `y[m · width + n] = x[m] · weight[n]` for n from `from` to `to`. */
  void multiply(int64_t from, int64_t to, float *y, int64_t width) const;

 private:
  template <int R> void dotRow(int64_t m, int64_t n, float *y, int64_t width) const;
  template <Format format, int R> void dotBlockRow(int64_t m, const uint8_t *w, float *y, int64_t width) const;
  void multiplyOneRow(int64_t from, int64_t to, float *y) const;
  const float *row(int64_t n) const { return weight + n * stride; }

  Format format;
  Rows x;
  const QuantizedBlock *quantized;
  const float *weight;
  int64_t stride;
};
